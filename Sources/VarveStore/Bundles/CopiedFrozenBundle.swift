import VarveLayers
import Logging
import VarveOCI
import VarveSystem
import SystemPackage

/// A copy of a bundle of a store, as `cp -a` makes it, or `btrfs receive` on another file system: `umoci.json` and the attribute
/// that came along name its image and its chain. Both trees are read whole: that they are alike is not to be seen otherwise.
///
/// It is not held still: nothing may change in it while it is compared and packed.
final class CopiedFrozenBundle: FrozenBundle {
    private let context: RepackContext
    private let bundle: OpenBundle
    private let manifest: Digest
    private let base: StillTree
    private let lock: BundleLock
    let root: SharedDescriptor

    init(store: SnapshotStore, _ bundle: OpenBundle, _ context: RepackContext) throws {
        guard let manifest = bundle.manifest else { throw bundle.notABundle }
        self.context = context
        self.bundle = bundle
        self.manifest = manifest
        lock = try context.lock(bundle)
        root = try bundle.openRootfs()
        base = try store.base(ofCopy: bundle, of: manifest)
        store.logger.debug("\"\(bundle.path)\" is a copy of a bundle: it is compared with its chain, whole")
    }

    func delta(onEntry: @escaping @Sendable () throws -> Void) throws -> DeltaResult {
        if context.source == .search || context.source == .stream {
            throw LayerError.sourceUnusable(
                source: context.source.described,
                reason: "\"\(context.bundle)\" is a copy of a bundle, and no snapshot")
        }
        let oldRoot = try base.rootfs(for: bundle.path)
        return try Delta.compareWhole(old: oldRoot.fd, new: root.fd, onEntry: onEntry)
    }

    /// A plain directory is no store.
    func publish(
        chainIDs: [ChainID], options: ApplyOptions, layer: (ExtractionTarget) throws -> Void
    ) throws -> Bool { false }

    /// From now on it is a bundle of the directory driver.
    func refresh(manifest new: Digest, chainID: ChainID?, options: ApplyOptions, files: [BundleFile]) throws {
        let cancellation = context.cancellation
        let settled = try FileSystemClock.settle(bundle.directory.fd, path: bundle.path)
        try RecordedTree.scan(root.fd, onEntry: { try cancellation.check() }).keep(
            in: bundle.directory, path: bundle.path, of: new, before: manifest, settled: settled, files: files
        )
    }
}
