import VarveBtrfs
import VarveLayers
import VarveOCI
import VarveSystem
import SystemPackage

/// A read-only snapshot of a bundle, for as long as its delta is taken and its layer written.
final class BtrfsFrozenBundle: FrozenBundle {
    let store: SnapshotStore
    let bundle: Bundle
    let base: BundleBase
    private let source: DeltaSource
    let cancellation: Cancellation
    private var snapshot: WorkSubvolume
    let subvolume: SharedDescriptor
    let hadNestedSubvolumes: Bool
    let root: SharedDescriptor

    init(store: SnapshotStore, bundle: Bundle, _ context: RepackContext) throws {
        self.store = store
        self.bundle = bundle
        source = context.source
        cancellation = context.cancellation
        base = try store.base(of: bundle)
        hadNestedSubvolumes = try !bundle.subvolume.fd.nestedSubvolumes().isEmpty
        // Taking the snapshot writes out what is still dirty in memory first (btrfs_start_delalloc_snapshot,
        // fs/btrfs/ioctl.c): no sync is needed for the snapshot to hold all that was written before it.
        let snapshot = try store.makeWork(for: bundle.path) { directory, name in
            do throws(BtrfsError) {
                try bundle.subvolume.fd.snapshot(to: directory, name, readOnly: true)
            } catch {
                throw ActiveSwapFile.explanation(of: error, in: bundle.subvolume.fd, bundle.path) ?? error
            }
        }
        let name = snapshot.name
        subvolume = SharedDescriptor(
            try attempt("open the snapshot of", bundle.path) { () throws(Errno) in
                try store.workDirectory.fd.openDirectory(name)
            })
        root = SharedDescriptor(
            try attempt("open the snapshot of", bundle.path) { [subvolume] () throws(Errno) in
                try subvolume.fd.openDirectory(StoreLayout.rootfs)
            })
        self.snapshot = snapshot
    }

    func delta(onEntry: @escaping @Sendable () throws -> Void) throws -> DeltaResult {
        let oldRoot = try attempt("open the base of", bundle.path) { () throws(Errno) in
            try base.subvolume.fd.openDirectory(StoreLayout.rootfs)
        }
        return try Delta.compute(
            old: DeltaTree(subvolume: base.subvolume.fd, root: oldRoot.fd, state: base.state),
            new: DeltaTree(subvolume: subvolume.fd, root: root.fd, state: .snapshot), source: source,
            known: [bundle.info], logger: store.logger, onEntry: onEntry)
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
            parent = try store.chain(ChainName(below, variant: chainVariant(options)))
            if parent == nil { return false }
        }
        try store.withLock(on: name, cancellation) {
            if try store.chain(name) != nil { return }
            let work = try store.makeWork(for: bundle.path) { directory, workName in
                if let parent {
                    try store.snapshot(of: parent, to: directory, workName)
                } else {
                    try store.makeEmptyTree(workName, in: directory, owners: options.owners)
                }
            }
            let workName = work.name
            let rootfs = SharedDescriptor(
                try attempt("open", work.name) { () throws(Errno) in
                    try store.workDirectory.fd.openDirectory(workName.appending(StoreLayout.rootfs))
                })
            try layer(ExtractionTarget(root: rootfs, isBottom: below == nil))
            _ = try store.publish(name, snapshotOf: workName, in: store.workDirectory.fd)
            extendLifetime(work)
        }
        return true
    }

    /// The bundle's `umoci.json` says which of the states kept for it counts, so replacing it is the step that does it:
    /// before that, the new state is there and not used; after it, the old one.
    func refresh(manifest: Digest, chainID: ChainID?, options: ApplyOptions, files: [BundleFile]) throws {
        let kept = store.keptName(bundle, manifest)
        if try store.open(kept, in: store.refreshedDirectory) != nil {
            try store.delete(kept, in: store.refreshedDirectory.fd)
        }
        try store.removeStub(kept, in: store.refreshedDirectory)
        // No inode of the snapshot changes on its way, so it stays the ancestor that deltas by transid need.
        do {
            try snapshot.keep(subvolume.fd, in: store.refreshedDirectory, as: kept)
        } catch let error as Errno {
            throw StoreError.system("keep the refreshed state of", bundle.path, error)
        }
        store.recordTimes(ofSnapshot: subvolume.fd, of: bundle.info)
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
                        contents: try RecordedTree.scan(root.fd).mtree)
                ]
                : [], then: files)
        try store.removeKept(bundle, except: kept)
    }
}
