import VarveBtrfs
import VarveLayers
import VarveOCI
import VarveSystem
import SystemPackage

/// A read-only snapshot of a bundle, for as long as its delta is taken and its layer written.
final class BtrfsFrozenBundle: FrozenBundle {
    let store: SnapshotStore
    let bundle: ActiveTree
    let base: StillTree
    private let source: DeltaSource
    let cancellation: Cancellation
    let frozen: FrozenTree
    private let lock: BundleLock
    /// The chain of the new image, which nobody collects as long as this value lives: nothing names it before the bundle does.
    var published: OpenChain?
    var root: SharedDescriptor { frozen.root }

    init(store: SnapshotStore, bundle: ActiveTree, _ context: RepackContext) throws {
        self.store = store
        self.bundle = bundle
        source = context.source
        cancellation = context.cancellation
        if context.refreshes {
            // The new state is moved to `refreshed/`, and the old one out of it.
            try RefreshObstacle(bundle.path).check(
                .current, in: store.refreshedDirectory.fd, store.path.appending(StoreLayout.refreshed))
        }
        lock = try context.lock(bundle.subvolume.fd)
        let metadata = try store.metadata(of: bundle)
        try context.checkImage(metadata?.path.last?.digest)
        base = try store.base(of: bundle, metadata)
        frozen = try bundle.freeze(in: store.work)
    }

    func delta(onEntry: @escaping @Sendable () throws -> Void) throws -> DeltaResult {
        try frozen.delta(from: base, source: source, logger: store.logger, onEntry: onEntry)
    }

    func publish(chainIDs: [ChainID], options: ApplyOptions, layer: (ExtractionTarget) throws -> Void) throws
        -> Bool
    {
        // A refreshed bundle's layer goes on top of the image that the refresh made, whose chain may be there too.
        guard let last = chainIDs.last else { return false }
        let below = chainIDs.dropLast().last
        let name = ChainName(last, variant: chainVariant(options))
        var parent: OpenChain?
        if let below {
            parent = try store.chains.find(ChainName(below, variant: chainVariant(options)))
            if parent == nil { return false }
        }
        let builder = ChainBuilder(in: store, for: bundle.path, on: parent, owners: options.owners)
        published = try builder.build(name, whileWaiting: { try cancellation.check() }) {
            try layer(ExtractionTarget(root: try builder.tree(), isBottom: below == nil))
            return true
        }
        return true
    }

    /// The bundle's `umoci.json` says which of the states kept for it counts, so replacing it is the step that does it:
    /// before that, the new state is there and not used; after it, the old one.
    func refresh(manifest: Digest, chainID: ChainID?, options: ApplyOptions, files: [BundleFile]) throws {
        let kept = store.keptName(bundle, manifest)
        if try store.refreshedDirectory.open(kept) != nil {
            try store.refreshedDirectory.deleteUnused(
                kept, "what the store keeps of the bundle \"\(bundle.path)\"", cancellation)
        }
        try store.refreshedDirectory.removeStub(kept)
        try frozen.keep(in: store.refreshedDirectory, as: kept)
        store.recordTimes(ofSnapshot: frozen.subvolume.fd, of: bundle)
        var records = try store.chainRecords(of: bundle)
        records.add(
            chainID.map { .chain(ChainName($0, variant: chainVariant(options))) } ?? .empty, for: manifest,
            keeping: try store.metadata(of: bundle)?.path.last?.digest)
        try attempt("write the name of its chain to", bundle.path) { () throws(Errno) in
            try bundle.subvolume.fd.setExtendedAttribute(
                ExtendedAttribute(name: StoreLayout.chainAttribute, value: records.encoded))
            try bundle.subvolume.fd.synchronize()
        }
        let state = try BundleState(of: bundle.subvolume.fd, path: bundle.path)
        try state.replace(
            with: state.isSharedWithUmoci(before: try store.metadata(of: bundle)?.path.last?.digest)
                ? [
                    BundleFile(
                        name: BundleMetadata.mtreeName(manifest),
                        contents: try RecordedTree.scan(root.fd, onEntry: { try cancellation.check() }).mtree)
                ]
                : [], then: files)
        try store.removeKept(bundle, except: kept)
    }
}
