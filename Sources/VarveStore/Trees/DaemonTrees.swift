import BtrfsSendStream
import Logging
package import VarveArchive
import VarveBtrfs
package import VarveLayers
package import VarveOCI
package import VarveSystem
import SystemPackage

/// The trees that one containerd has in a store, in `containerd/ID/trees/`: numbered subvolumes that outlive the process that made
/// them. This is all that varve-containerd asks of a store.
///
/// A tree is a snapshot of a chain or of another tree. So its chain is in use for as long as it is there, as that of a bundle is
/// (`ChainUsers`), and whether somebody wrote to it is asked of btrfs as for a chain (`changeFault`).
///
/// One process at a time has the trees of an ID: they go by the records that it keeps, in `containerd/ID/records/`.
package final class DaemonTrees: Sendable {
    /// The tree that all others without a parent are snapshots of: an empty `rootfs/`.
    package static let emptyTree: UInt64 = 0

    let store: SnapshotStore
    private let trees: SubvolumeDirectory
    /// Where the owner of the trees keeps its records.
    package let records: SharedDescriptor
    /// The absolute path of the directory of the trees, without symbolic links.
    package let path: BytePath
    private let lock: HeldLock
    /// Layers that were written of these trees.
    let written = WrittenLayers()

    /// Whether a layer that was written of a tree is taken from that when it is applied.
    private let adopts: Bool

    /// Opens the trees of `id`, which are made if there are none.
    ///
    /// - Parameter adopts: false to read each layer that is applied.
    /// - Throws: `VarveError`, also if another process has them.
    package init(_ store: SnapshotStore, id: String, adopts: Bool = true) throws {
        self.adopts = adopts
        guard Self.isValid(id) else {
            throw VarveError(
                .usage,
                "\"\(BytePath.excerpt(id.utf8))\" cannot be the name of a containerd: it takes 1 to 64 letters, digits, \"-\", \"_\" and \".\", and no \".\" at its start"
            )
        }
        let name = BytePath(id)
        let shown = store.path.appending(StoreLayout.containerd).appending(name)
        let all = try Self.directory(StoreLayout.containerd, in: store.directory, store.path)
        let own = try Self.directory(name, in: all, store.path.appending(StoreLayout.containerd))
        guard try attempt("lock", shown, { () throws(Errno) in try own.fd.tryLock(.exclusive) }) else {
            throw VarveError(
                .failed, "another process serves the containerd \"\(id)\" from \"\(store.path)\"",
                subject: shown,
                remedy: .follow("end it, or give this one another ID"))
        }
        self.store = store
        lock = HeldLock(on: own)
        records = try Self.directory(StoreLayout.records, in: own, shown)
        let opened = try Self.directory(StoreLayout.trees, in: own, shown)
        trees = SubvolumeDirectory(
            opened: opened, store: store.path,
            name: StoreLayout.containerd.appending(name).appending(StoreLayout.trees))
        path = try attempt("find the path of", shown) { () throws(Errno) in try opened.fd.path() }
        try makeEmptyTree()
    }

    /// Whether something can be the ID of a containerd.
    package static func isValid(_ id: String) -> Bool {
        let others = Set("-_.".utf8)
        return (1...64).contains(id.utf8.count) && id.utf8.first != UInt8(ascii: ".")
            && id.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"):
                    true
                default: others.contains(byte)
                }
            }
    }

    private static func directory(_ name: BytePath, in parent: SharedDescriptor, _ path: BytePath) throws
        -> SharedDescriptor
    {
        try attempt("make the directory", path.appending(name)) { () throws(Errno) in
            do throws(Errno) {
                try parent.fd.makeDirectory(name, mode: 0o700)
                try parent.fd.synchronize()
            } catch .fileExists {}
            return SharedDescriptor(try parent.fd.openDirectory(name))
        }
    }

    static func name(_ number: UInt64) -> BytePath { BytePath(String(number)) }

    /// The number of a tree by its name; nil for what was not named so.
    static func number(_ name: BytePath) -> UInt64? {
        name.string.flatMap { UInt64($0) }.flatMap { Self.name($0) == name ? $0 : nil }
    }

    /// What lies beside the trees, by its names: the numbers of trees, and what was on its way when a process ended.
    static func split(_ entries: [DirectoryEntry]) -> (numbers: [UInt64], others: [BytePath]) {
        (entries.compactMap { number($0.name) }, entries.map(\.name).filter { number($0) == nil })
    }

    /// Made as a snapshot, like all others, so that a change shows.
    private func makeEmptyTree() throws {
        let name = Self.name(Self.emptyTree)
        if try trees.open(name) != nil { return }
        try trees.removeStub(name)
        let work = try store.work.makeEmptyTree(for: path, owners: OwnerMapping())
        let made = try work.open(for: path)
        try made.fd.snapshot(to: trees.fd, name, readOnly: true)
        extendLifetime(work)
    }

    // MARK: Trees

    /// The numbers of all trees, and the names of what else lies there: what was on its way when a process ended.
    package func all() throws -> (numbers: [UInt64], others: [BytePath]) {
        Self.split(try trees.entries())
    }

    /// A tree, open: the root directory of its subvolume.
    package func open(_ number: UInt64) throws -> SharedDescriptor {
        guard let opened = try trees.subvolume(Self.name(number)) else {
            throw VarveError(
                .notFound, "the tree \"\(path.appending(Self.name(number)))\" is gone",
                subject: path.appending(Self.name(number)),
                remedy: .follow("remove the snapshot, and let containerd unpack the image again"))
        }
        return opened
    }

    /// Whether a tree is there.
    package func isThere(_ number: UInt64) throws -> Bool {
        try trees.subvolume(Self.name(number)) != nil
    }

    /// A tree, as something that is worked in.
    package func tree(_ number: UInt64) throws -> ActiveTree {
        try ActiveTree(open(number), at: path.appending(Self.name(number)))
    }

    /// The absolute path of the root file system of a tree.
    package func rootfs(of number: UInt64) -> BytePath {
        path.appending(Self.name(number)).appending(StoreLayout.rootfs)
    }

    /// The number of the tree that has this path as its root file system; nil if none of these trees can have it.
    package func number(ofRootfs path: BytePath) -> UInt64? {
        let components = path.components
        let own = self.path.components
        guard components.count == own.count + 2, components.starts(with: own),
            components.last == StoreLayout.rootfs, path.bytes.first == UInt8(ascii: "/"),
            let number = Self.number(components[own.count]),
            // As it was given out: no other spelling of it.
            rootfs(of: number) == path
        else { return nil }
        return number
    }

    /// Makes a tree as a snapshot of another.
    ///
    /// - Throws: `VarveError` if that was changed since it was made.
    package func makeTree(_ number: UInt64, from source: UInt64, readOnly: Bool) throws {
        let opened = try open(source)
        try check(opened, source)
        try trees.removeStub(Self.name(number))
        try opened.fd.snapshot(to: trees.fd, Self.name(number), readOnly: readOnly)
    }

    /// Makes a read-only tree as a snapshot of one, whatever was written to that before. On disk when this returns.
    package func makeTree(_ number: UInt64, copying source: UInt64) throws {
        let opened = try open(source)
        // What was made read-only meanwhile is not written out by the snapshot.
        if try opened.fd.isReadOnlySubvolume() { _ = try opened.fd.settledSubvolumeInfo() }
        try trees.removeStub(Self.name(number))
        do throws(BtrfsError) {
            try opened.fd.snapshot(to: trees.fd, Self.name(number), readOnly: true)
        } catch {
            throw ActiveSwapFile.explanation(of: error, in: opened.fd, rootfs(of: source)) ?? error
        }
    }

    /// Makes a tree as a snapshot of a chain. False if the store does not hold that.
    package func makeTree(_ number: UInt64, from chain: ChainID, readOnly: Bool) throws -> Bool {
        guard let chain = try store.chains.find(ChainName(chain)) else { return false }
        try trees.removeStub(Self.name(number))
        try store.chains.snapshot(of: chain, to: trees.fd, Self.name(number), readOnly: readOnly)
        return true
    }

    /// Throws if a tree that is read-only is not as it was made.
    package func check(_ number: UInt64) throws { try check(open(number), number) }

    private func check(_ tree: SharedDescriptor, _ number: UInt64) throws {
        guard let fault = try store.chains.times.changeFault(tree.fd, tree.fd.settledSubvolumeInfo()) else {
            return
        }
        let shown = path.appending(Self.name(number))
        throw VarveError(
            .failed, "the tree \"\(shown)\" is not used: \(fault)", subject: shown,
            remedy: .follow("remove the snapshot, and let containerd unpack the image again"))
    }

    /// Whether a tree is read-only.
    package func isReadOnly(_ number: UInt64) throws -> Bool {
        let opened = try open(number)
        return try opened.fd.isReadOnlySubvolume()
    }

    /// Makes a tree read-only, or writable again. On disk when this returns.
    package func setReadOnly(_ number: UInt64, _ isReadOnly: Bool) throws {
        let opened = try open(number)
        try opened.fd.setSubvolumeReadOnly(isReadOnly)
    }

    /// Makes a tree writable again that was read-only for a while. What goes wrong is a warning in the log: a container in it cannot write
    /// until the next start of the daemon.
    package func thaw(_ number: UInt64) {
        do {
            if try isReadOnly(number) { try setReadOnly(number, false) }
        } catch {
            store.logger.warning(
                "the tree \"\(path.appending(Self.name(number)))\" stays read-only: \(error)")
        }
    }

    /// Whether nobody wrote to a tree since it was made. It must be read-only: what was written before is settled then
    /// without a synchronization of the whole file system.
    package func isUnchanged(_ number: UInt64) throws -> Bool {
        try isUnchanged(open(number))
    }

    func isUnchanged(_ tree: SharedDescriptor) throws -> Bool {
        try store.chains.times.changeFault(tree.fd, tree.fd.settledSubvolumeInfo()) == nil
    }

    /// Whether a tree is known to have been written to since it was made. Of one that was, false may be answered for as long as that is in
    /// memory alone.
    package func wasWritten(_ number: UInt64) throws -> Bool { try wasWritten(open(number)) }

    private func wasWritten(_ tree: SharedDescriptor) throws -> Bool {
        let info = try tree.fd.subvolumeInfo()
        return info.changeTransaction > info.originTransaction
    }

    /// Whether this process sees a mount of the tree's root file system, or of something in it. What it takes for one may be a
    /// mount of another file system's directory of the same name.
    package func isMounted(_ number: UInt64) throws -> Bool {
        let own = rootfs(of: number).components
        let mounts = try attempt("look for mounts of", rootfs(of: number)) { () throws(Errno) in
            try MountTable.read()
        }
        // `containerd/ID/trees/NUMBER/rootfs`: what lies above is not in the path within the file system where a store is mounted.
        let tail = own.suffix(5)
        return mounts.contains { mount in
            let root = mount.root.components
            return root.indices.contains { root[$0...].starts(with: tail) }
        }
    }

    /// Writes out all that was written to the file system of the trees.
    package func synchronize() throws {
        try attempt("synchronize", path) { () throws(Errno) in try trees.fd.synchronizeFileSystem() }
    }

    /// Deletes a tree, or something else that `all` lists. What is not there is no error.
    package func delete(_ number: UInt64) throws {
        written.forget(number)
        try delete(Self.name(number))
    }

    package func delete(_ name: BytePath) throws { try trees.deleteEntry(name) }

    /// What is kept of a tree that will be gone, because another is a snapshot of it: with it, a delta knows that the other
    /// descends from what this one was made from.
    package struct Origin: Sendable, Hashable {
        /// Of the tree, as btrfs shows it.
        package var uuid: String
        /// Of what it was a snapshot of; empty for nothing.
        package var parentUUID: String
        /// The transaction that made it.
        package var transaction: UInt64

        package init(uuid: String, parentUUID: String, transaction: UInt64) {
            self.uuid = uuid
            self.parentUUID = parentUUID
            self.transaction = transaction
        }

        fileprivate var info: SubvolumeInfo? {
            SubvolumeUUID(uuid).map {
                SubvolumeInfo(uuid: $0, parentUUID: SubvolumeUUID(parentUUID), originTransaction: transaction)
            }
        }
    }

    package func origin(of number: UInt64) throws -> Origin {
        let opened = try open(number)
        let info = try opened.fd.subvolumeInfo()
        return Origin(
            uuid: info.uuid.description, parentUUID: info.parentUUID?.description ?? "",
            transaction: info.originTransaction)
    }

    // MARK: Use

    /// What a tree has that it was not made with (`SnapshotRecord.Usage`). Data that was not written out yet, up to 30 seconds after it
    /// was written, does not count.
    ///
    package func usage(of record: SnapshotRecord) throws -> SnapshotRecord.Usage {
        let tree = try open(record.tree)
        return try SnapshotRecord.Usage(of: tree.fd, as: record)
    }

    /// What a chain has that the chain below it has not; nil if the store does not hold it.
    package func usage(ofChain chain: ChainID, above below: ChainID?) throws -> SnapshotRecord.Usage? {
        guard let chain = try store.chains.find(ChainName(chain)) else { return nil }
        return try SnapshotRecord.Usage(
            of: chain, above: below.flatMap { try store.chains.find(ChainName($0)) })
    }

    // MARK: Layers

    /// What came of a layer.
    package struct AppliedLayer: Sendable {
        package var diffID: DiffID
        /// Bytes of the uncompressed archive.
        package var size: Int64
        /// What the tree is a snapshot of now; nil if the layer was applied to a tree that is no chain.
        package var chain: ChainID?
        /// Where the tree that the layer gives came from.
        package enum Source: String, Sendable, CaseIterable {
            /// The blob was read, and became a chain.
            case built
            /// The blob was read, and went onto a tree that is no chain.
            case `private`
            /// The store held the chain.
            case found
            /// The layer was written of a tree that is still there.
            case adopted
        }

        package var source: Source
    }

    /// Builds the chain that `layer` gives on top of `base`, as an unpack would, and makes `number` a writable snapshot of it. Of a chain
    /// that the store holds, built of this very blob, nothing is read, and of a layer that
    /// was written of a tree that is still there neither. The tree that was there before is left under another name, which is returned: it is to be deleted.
    ///
    /// That tree must be a snapshot of `base` (of the empty tree for nil), and as it was made: nil if it is not, or if the store does not hold `base`. Whether it was written
    /// to is asked before anything is done, and once the new tree is there: the snapshot that this is has then committed all that was written
    /// before, so that it shows (`wasWritten`). Where the layer is read, the old tree is read-only meanwhile.
    ///
    /// - Parameters:
    ///   - base: nil for nothing at all.
    ///   - blobs: where its bytes are; size and digest are checked.
    ///   - memory: bytes for the layer while it is inflated.
    package func replace(
        _ number: UInt64, with layer: Descriptor, on base: ChainID?, from blobs: any BlobSource,
        memory: Int, limits: UnpackLimits = UnpackLimits(), _ cancellation: Cancellation
    ) throws -> (AppliedLayer, replaced: BytePath)? {
        let store = store.bound(to: cancellation)
        let old = try open(number)
        if try wasWritten(old) { return nil }
        let made = try old.fd.subvolumeInfo().parentUUID
        var below: OpenChain?
        if let base {
            guard let found = try store.chains.find(ChainName(base)), made == found.info.uuid else {
                return nil
            }
            below = found
        } else {
            // Else it is one of a chain that nobody knows any more: what that holds stays below the layer.
            let empty = try open(Self.emptyTree)
            guard try made == empty.fd.subvolumeInfo().uuid else { return nil }
        }
        var isFrozen = false
        defer { if isFrozen { thaw(number) } }
        let chain: OpenChain
        let known: ChainLayer
        let source: AppliedLayer.Source
        let match = written.find(layer, on: base)
        if let found = try store.chains.find(layer, on: base) {
            (chain, known) = found
            source = .found
            if let match { written.isChain(match.entry.tree, chain.name.chainID, nil) }
        } else if let match, let adopted = try adopt(match, on: below, in: store) {
            (chain, known) = (adopted, match.entry.layer)
            source = .adopted
        } else {
            source = .built
            try setReadOnly(number, true)
            isFrozen = true
            guard try isUnchanged(old),
                let built = try build(
                    layer, on: below, from: blobs, in: store, memory: memory, limits: limits, cancellation)
            else { return nil }
            (chain, known) = built
        }
        let spare = BytePath("\(number)-" + randomName())
        try store.chains.snapshot(of: chain, to: trees.fd, spare)
        do {
            if try wasWritten(old) {
                try trees.fd.removeSubvolumeTree(spare)
                return nil
            }
            try attempt("put in place", path.appending(Self.name(number))) { () throws(Errno) in
                try trees.fd.exchange(spare, with: trees.fd, Self.name(number))
            }
        } catch {
            _ = try? trees.fd.removeSubvolumeTree(spare)
            throw error
        }
        // The number is the new tree's from now on.
        isFrozen = false
        return (
            AppliedLayer(
                diffID: known.diffID, size: known.archiveSize, chain: chain.name.chainID, source: source),
            spare
        )
    }

    /// The chain that a layer gives, read from its blob.
    private func build(
        _ layer: Descriptor, on below: OpenChain?, from blobs: any BlobSource, in store: SnapshotStore,
        memory: Int, limits: UnpackLimits, _ cancellation: Cancellation
    ) throws -> (OpenChain, ChainLayer)? {
        let builder = ChainBuilder(in: store, for: BytePath("\(layer.digest)"), on: below)
        let applied = try extract(
            layer, from: blobs, to: builder.tree(), isBottom: below == nil, memory: memory, limits: limits,
            cancellation)
        let known = ChainLayer(layer, diffID: applied.diffID, archiveSize: applied.size)
        let name = ChainName(known.chainID(on: below?.name.chainID))
        return try builder.build(name, layer: known) { true }.map { ($0, known) }
    }

    /// Applies a layer to a tree as it is. After an error the tree is half done.
    package func apply(
        _ layer: Descriptor, to number: UInt64, from blobs: any BlobSource, memory: Int,
        limits: UnpackLimits = UnpackLimits(), _ cancellation: Cancellation
    ) throws -> AppliedLayer {
        let applied = try extract(
            layer, from: blobs, to: tree(number).rootfs(), isBottom: false, memory: memory, limits: limits,
            cancellation)
        return AppliedLayer(diffID: applied.diffID, size: applied.size, chain: nil, source: .private)
    }

    private func extract(
        _ layer: Descriptor, from blobs: any BlobSource, to rootfs: SharedDescriptor, isBottom: Bool,
        memory: Int, limits: UnpackLimits, _ cancellation: Cancellation
    ) throws -> LayerExtraction.Extracted {
        let extraction = LayerExtraction(
            from: blobs, options: ApplyOptions(), limits: limits, memory: memory, cancellation: cancellation)
        do {
            let extracted = try extraction.apply(
                layer, diffID: nil, to: ExtractionTarget(root: rootfs, isBottom: isBottom))
            for sentence in extracted.omissions {
                store.logger.warning("the layer \(layer.digest): \(sentence)")
            }
            return extracted
        } catch LayerError.system(let operation, let path, let errno) where errno.isOutOfSpace {
            throw VarveError(
                .noSpace, "cannot \(operation) \"\(path)\": \(errno)", subject: path,
                remedy: .freeSpace(near: self.path))
        }
    }

    // MARK: Deltas

    /// One side of a delta.
    package enum Side: Sendable {
        /// A tree that is read-only and was never written to.
        case frozen(UInt64, origin: Origin? = nil)
        /// A chain; `fallback` if the store does not hold it any more.
        case chain(ChainID, fallback: UInt64)
        /// A tree that somebody may be writing to: it is compared as it is now.
        case active(UInt64)
    }

    private func still(_ side: Side) throws -> StillTree {
        switch side {
        case .frozen(let number, let origin):
            let tree = try tree(number)
            try check(tree.subvolume, number)
            return StillTree(
                tree.subvolume, at: tree.path, state: .proven(try tree.subvolume.fd.settledSubvolumeInfo()),
                known: origin?.info.map { [$0] } ?? [])
        case .chain(let id, let fallback):
            guard let chain = try store.chains.find(ChainName(id)) else {
                return try still(.frozen(fallback))
            }
            return StillTree(chain)
        case .active(let number): return StillTree(try tree(number).freeze(in: store.work))
        }
    }

    /// What a delta became.
    package struct PackedLayer: Sendable {
        package var diffID: DiffID
        /// Bytes of the uncompressed archive.
        package var size: Int64
        package var changes: Int
        /// Where the changes were learnt from.
        package var source: DeltaSource
        /// What it was written of, where that is exactly what the layer gives.
        var origin: Origin?

        struct Origin: Sendable {
            var base: WrittenLayers.Base
            var tree: UInt64
            /// The transaction from which on the tree differs from its base.
            var since: UInt64
        }
    }

    /// Writes what `right` has and `left` has not as one layer.
    ///
    /// - Parameters:
    ///   - sink: gets the compressed blob, and is finished.
    ///   - latestTime: times later than this become this.
    package func pack(
        from left: Side, to right: Side, _ compression: LayerCompression, threads: Int,
        latestTime: Timestamp?,
        into sink: any ByteSink, _ cancellation: Cancellation
    ) throws -> PackedLayer {
        let old = try still(left)
        let new = try still(right)
        let delta = try new.delta(from: old, logger: store.logger) { try cancellation.check() }.requireAll()
        let root = try new.rootfs(for: path)
        var isWhole = false
        let (diffID, size) = try NewLayer.write(to: sink, compression, threads: threads) { archive in
            isWhole = try LayerPacker(root: root.fd, options: PackOptions(latestTime: latestTime)).pack(
                delta.changes, to: TarWriter(archive)
            ) { _ in try cancellation.check() }
        }
        let origin = try origin(left, old, right, new, delta, isWhole: isWhole)
        extendLifetime(new)
        return PackedLayer(
            diffID: diffID, size: size, changes: delta.changes.count, source: delta.source, origin: origin)
    }

    /// What a layer was written of, if that is exactly what the layer makes of what it was compared with, and is kept.
    private func origin(
        _ left: Side, _ old: StillTree, _ right: Side, _ tree: StillTree, _ delta: DeltaResult, isWhole: Bool
    ) throws -> PackedLayer.Origin? {
        guard adopts, case .frozen(let number, _) = right, let since = delta.since else { return nil }
        let base: WrittenLayers.Base
        switch left {
        case .chain(let chain, _): base = .chain(chain, try old.subvolume.fd.subvolumeInfo().uuid)
        case .frozen(let number, _): base = number == Self.emptyTree ? .nothing : .tree(number)
        case .active: return nil
        }
        let obstacle =
            try AdoptionObstacle.ofLayer(
                isPackedWhole: isWhole, packed: delta.changes.count, of: delta)
            ?? AdoptionObstacle.ofTree(tree.subvolume.fd, since: since)
        if let obstacle {
            store.logger.debug(
                "the layer of the tree \(number) will be read where it is applied: \(obstacle)")
            return nil
        }
        return PackedLayer.Origin(base: base, tree: number, since: since)
    }
}
