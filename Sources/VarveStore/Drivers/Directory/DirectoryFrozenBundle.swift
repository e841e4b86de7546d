import VarveLayers
import Logging
import VarveOCI
import VarveSystem
import SystemPackage

/// A bundle that is a plain directory, with what was recorded of it. It is not held still: nothing may change in it
/// while it is compared and packed.
final class DirectoryFrozenBundle: FrozenBundle {
    private let context: RepackContext
    private let directory: SharedDescriptor
    private let record: RecordedTree
    private let manifest: Digest
    private let logger: Logger
    private let lock: BundleLock
    let root: SharedDescriptor

    init(_ context: RepackContext, logger: Logger) throws {
        self.context = context
        self.logger = logger
        let bundle = try OpenBundle(context.bundle)
        guard let manifest = bundle.manifest, bundle.kind != .btrfs, bundle.kind != .copy,
            bundle.kind != .hooks
        else {
            throw bundle.notABundle
        }
        directory = bundle.directory
        lock = try context.lock(bundle)
        self.manifest = manifest
        let path = context.bundle
        root = try bundle.openRootfs()
        let name =
            bundle.kind == .directory
            ? BundleMetadata.recordName(manifest) : BundleMetadata.mtreeName(manifest)
        let (bytes, written) = try attempt("read", path.appending(name)) {
            () throws(Errno) -> ([UInt8], Timestamp) in
            let file = try bundle.directory.fd.openRegularFile(name)
            // Nobody who wrote a record left holes in it; they would fill the memory for nothing.
            if try file.fd.hasHoles() { throw .fileTooLarge }
            return (try file.fd.readAll(limit: Self.limit), try file.fd.status().modificationTime)
        }
        let check = { try context.cancellation.check() }
        do {
            record =
                try bundle.kind == .directory
                ? RecordedTree(decoding: bytes, onEntry: check)
                : RecordedTree(mtree: bytes, written: written, root: root.fd, onEntry: check)
        } catch let error as RecordError {
            throw VarveError(
                .invalidInput,
                "\"\(path.appending(name))\" is damaged: \(error)",
                subject: path.appending(name), remedy: .unpackAgain(losesChanges: true)
            )
        }
    }

    /// About 100 bytes are needed for a file.
    private static let limit = 1 << 32

    func delta(onEntry: @escaping @Sendable () throws -> Void) throws -> DeltaResult {
        if context.source == .search || context.source == .stream {
            throw LayerError.sourceUnusable(
                source: context.source.described,
                reason: "\"\(context.bundle)\" is no snapshot of a btrfs store"
            )
        }
        let result = try Delta.compute(
            old: record, new: root.fd, readsAll: context.readsAll, onEntry: onEntry)
        logger.debug("delta source: \(result.source.rawValue), because \(result.reason)")
        return result
    }

    /// A plain directory is no store.
    func publish(
        chainIDs: [ChainID], options: ApplyOptions, layer: (ExtractionTarget) throws -> Void
    ) throws -> Bool { false }

    /// As umoci does it: what the tree is now is recorded for the new manifest, then `umoci.json` names that. A crash
    /// before leaves a record that nobody looks at.
    func refresh(manifest new: Digest, chainID: ChainID?, options: ApplyOptions, files: [BundleFile]) throws {
        let cancellation = context.cancellation
        let settled = try FileSystemClock.settle(directory.fd, path: context.bundle)
        let now = try RecordedTree.scan(
            root.fd, known: record.digestOfUnchanged(), onEntry: { try cancellation.check() })
        try now.keep(
            in: directory, path: context.bundle, of: new, before: manifest, settled: settled, files: files)
    }
}

extension OpenBundle {
    /// The root file system of a plain directory, on which nothing may be mounted.
    func openRootfs() throws -> SharedDescriptor {
        do throws(Errno) {
            return SharedDescriptor(
                try directory.fd.open(StoreLayout.rootfs, [.directory, .noFollow], resolve: .noCrossing))
        } catch .improperLink {
            throw LayerError.mounted(on: StoreLayout.rootfs, in: directory.fd)
        } catch {
            throw VarveError.system("open", path.appending(StoreLayout.rootfs), error)
        }
    }
}

extension RecordedTree {
    /// Makes this what deltas of the bundle count from, and `files` what lies beside `rootfs/`.
    ///
    /// - Parameters:
    ///   - manifest: the image that the tree is now; `old` is the one that it was.
    ///   - settled: of before the scan (`FileSystemClock.settle`): only older change times are believed, as somebody may have files of the bundle
    ///     mapped.
    func keep(
        in directory: SharedDescriptor, path: BytePath, of manifest: Digest, before old: Digest,
        settled: Timestamp?, files: [BundleFile]
    ) throws {
        var now = self
        if let settled { now.trustChangeTimes(before: settled) }
        var added = [BundleFile(name: BundleMetadata.recordName(manifest), contents: now.encoded)]
        let state = try BundleState(of: directory.fd, path: path)
        if state.isSharedWithUmoci(before: old) {
            added.append(BundleFile(name: BundleMetadata.mtreeName(manifest), contents: now.mtree))
        }
        try state.replace(with: added, then: files)
    }
}
