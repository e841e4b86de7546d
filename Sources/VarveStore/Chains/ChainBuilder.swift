import VarveBtrfs
import Logging
package import VarveLayers
import VarveOCI
package import VarveSystem
import SystemPackage

/// Builds chains: the one way in which a tree gets a ChainID.
///
/// A builder has a writable subvolume in `work/`, made when it is first asked for: on top of a chain, of nothing, or as a
/// copy of another tree. Its user puts layers onto it and publishes it, under the name of the chain that it then is:
///
///     claim(name)      this process alone may publish the chain now
///     tree()           the writable tree; layers are applied to it
///     publish(name)    a read-only snapshot of it, in `chains/`; the builder goes on in the tree
///     takeTree()       the tree of the chain published last, which becomes a bundle
///
/// What is not published or taken goes with the builder. A builder is used on one thread.
///
/// Its users: the btrfs driver's unpack (`BtrfsUnpack`), a repack (`BtrfsFrozenBundle`), the hook for other tools
/// (`BtrfsHook`), and the deep check (`StoreCheck.compare`), which publishes nothing.
package final class ChainBuilder {
    private let store: SnapshotStore
    private let subject: BytePath
    private let owners: OwnerMapping
    /// What the tree is a copy of; nil where it is made on top of `parent`.
    private let original: Original?
    /// The chain that the tree is made on top of; nil for nothing.
    package private(set) var parent: OpenChain?
    private var work: WorkSubvolume?
    /// The tree is `parent`, which was published from it, and nobody has had it since.
    private var isAsPublished = false
    /// Held from before the first layer is applied until the chain is published.
    private var claim: (name: ChainName, lock: Claim)?

    private final class Claim {
        private let lock: FileLock
        init(_ lock: consuming FileLock) { self.lock = lock }
    }

    /// A tree that somebody else made, of which a chain is to be.
    package struct Original: Sendable {
        var subvolume: SharedDescriptor
        /// The chain on which it lies, and the transaction since which it may differ from that, in inodes that it has changed since; nil:
        /// whatever it is a snapshot of.
        var below: (chain: OpenChain, since: UInt64)?

        package init(_ subvolume: SharedDescriptor) { self.subvolume = subvolume }

        init(_ subvolume: SharedDescriptor, below: OpenChain?, since: UInt64) {
            self.subvolume = subvolume
            self.below = below.map { ($0, since) }
        }
    }

    /// Builds on top of a chain, or of nothing.
    ///
    /// - Parameters:
    ///   - subject: what errors name in place of the work area: the bundle that is made.
    ///   - owners: who owns the root directory of a tree that is made on top of nothing.
    package init(
        in store: SnapshotStore, for subject: BytePath, on parent: OpenChain?,
        owners: OwnerMapping = OwnerMapping()
    ) {
        self.store = store
        self.subject = subject
        self.owners = owners
        self.parent = parent
        original = nil
    }

    /// Builds from a copy of a tree, which stays as it is.
    package init(in store: SnapshotStore, for subject: BytePath, copying original: Original) {
        self.store = store
        self.subject = subject
        owners = OwnerMapping()
        self.original = original
    }

    // MARK: The tree

    /// The subvolume that is built, made now if there is none yet. `rootfs/` is in it.
    package func subvolume() throws -> SharedDescriptor {
        try makeIfNeeded()
        guard let opened = try work?.open(for: subject) else { throw Self.isGone }
        return opened
    }

    /// The root directory of the tree that is built, made now if there is none yet.
    package func tree() throws -> SharedDescriptor {
        try makeIfNeeded()
        guard let opened = try work?.openRootfs(for: subject) else { throw Self.isGone }
        return opened
    }

    private static let isGone = VarveError(.failed, "the tree that is built was taken away")

    private func makeIfNeeded() throws {
        // Whoever is given the tree may write to it.
        isAsPublished = false
        guard work == nil else { return }
        let made = try makeWork()
        work = consume made
    }

    private func makeWork() throws -> WorkSubvolume {
        if let parent {
            return try store.work.make(for: subject) { directory, name in
                try store.chains.snapshot(of: parent, to: directory, name)
            }
        }
        if let original {
            return try store.work.makeSnapshot(of: original.subvolume, readOnly: false, for: subject)
        }
        return try store.work.makeEmptyTree(for: subject, owners: owners)
    }

    /// Takes away what a chain does not have: the files and attributes that make a tree a bundle. False if there is something else.
    func leaveOnlyRootfs() throws -> Bool {
        let root = try subvolume()
        return try attempt("empty a snapshot of", subject) { () throws(Errno) in
            for entry in try root.fd.entries() where entry.name != StoreLayout.rootfs {
                guard try root.fd.status(of: entry.name).isRegular else { return false }
                try root.fd.unlink(entry.name)
            }
            // Chains are alike, whoever the bundle was given to, and whatever its permissions are.
            try root.fd.makeOwn()
            try root.fd.changeMode(to: 0o755)
            // Those of the chain below say what the new one was made on top of.
            for attribute in try root.fd.extendedAttributeNames()
            where !StoreLayout.chainAttributes.contains(attribute) {
                guard StoreLayout.bundleAttributes.contains(attribute) else { return false }
                try root.fd.removeExtendedAttribute(attribute)
            }
            return true
        }
    }

    /// Takes a tree out of the builder that is `parent`, or nothing, for a bundle: what `parent` was published from, where that is there,
    /// else a snapshot of it.
    ///
    /// What the chain was published from is no ancestor of it but carries its state on, which deltas know (`Lineage`). Nothing of it has to be deleted.
    func takeTree() throws -> WorkSubvolume {
        guard let made = work.take() else { return try makeWork() }
        guard let parent else { return made }
        let opened = try made.open(for: subject)
        // A snapshot has its source's `ctransid`, so this is that of the moment at which it was published.
        guard isAsPublished, try opened.fd.subvolumeInfo().changeTransaction == parent.info.changeTransaction
        else {
            return try makeWork()
        }
        try attempt("remove the attributes of the chain from", subject) { () throws(Errno) in
            // With them, snapshots of the bundle could not be told from the chain.
            for attribute in StoreLayout.chainAttributes
            where try opened.fd.extendedAttribute(attribute) != nil {
                try opened.fd.removeExtendedAttribute(attribute)
            }
        }
        return made
    }

    /// Gives the tree up, and goes on from a chain that somebody else published.
    package func restart(on chain: OpenChain) {
        work = nil
        parent = chain
        if claim?.name == chain.name { claim = nil }
    }

    // MARK: Publishing

    package var hasClaim: Bool { claim != nil }

    /// Waits until this process alone may publish or delete a chain. Somebody else may have published it meanwhile: the
    /// caller looks, and goes on from it (`restart`).
    ///
    /// - Parameter whileWaiting: called now and then, and throws to give up.
    package func claim(_ name: ChainName, whileWaiting: () throws -> Void = {}) throws {
        claim = nil
        claim = (name, Claim(try store.locks.lock(name, whileWaiting: whileWaiting)))
    }

    /// Builds one chain: claims it, and has the tree completed and published, unless somebody else was first.
    ///
    /// - Parameters:
    ///   - layer: as for `publish`.
    ///   - complete: makes the tree what the chain is to be; false if it cannot be that.
    /// - Returns: the chain; nil if `complete` said no.
    @discardableResult
    package func build(
        _ name: ChainName, layer: ChainLayer? = nil, whileWaiting: () throws -> Void = {},
        _ complete: () throws -> Bool
    ) throws -> OpenChain? {
        try claim(name, whileWaiting: whileWaiting)
        defer { claim = nil }
        if let published = try store.chains.find(name) {
            restart(on: published)
            return published
        }
        guard try complete() else { return nil }
        return try publish(name, layer: layer)
    }

    /// Makes a chain visible: a read-only snapshot of the tree, which the caller knows to be exactly its layers. The claim
    /// ends, and the builder goes on in the tree.
    ///
    /// The snapshot is made under its name at once: a read-only subvolume cannot be renamed into another directory
    /// (EROFS; vfs_rename, fs/namei.c, asks for write permission to a directory that gets a new parent). Whatever was
    /// written to the tree is written out first, and snapshot and name are one transaction, which is on disk when the
    /// call returns (create_snapshot, fs/btrfs/ioctl.c): there is no chain, or a whole one.
    ///
    /// What stands under the name and is not to be trusted (`ChainFault`) makes room first.
    ///
    /// - Parameter layer: the blob of the uppermost layer, if it was read to its end and checked; nil if it is not known.
    @discardableResult
    package func publish(_ name: ChainName, layer: ChainLayer? = nil) throws -> OpenChain {
        guard claim?.name == name else {
            throw VarveError(.failed, "the chain \(name) is published by who has not claimed it")
        }
        let source = try subvolume()
        try recordPublication(of: name, layer, on: source.fd)
        let directory = store.chains.directory
        if try directory.open(name.path) != nil {
            try directory.deleteUnused(
                name.path, "what has the name of the chain \(name) and is not to be trusted",
                store.locks.cancellation)
        }
        try directory.removeStub(name.path)
        try source.fd.snapshot(to: directory.fd, name.path, readOnly: true)
        guard let chain = try store.chains.find(name) else {
            throw VarveError(
                .failed, "the chain \(name) vanished while it was published", subject: name.path,
                remedy: .follow("do not delete chains by hand"))
        }
        let made = try source.fd.subvolumeInfo()
        if let parent, parent.info.parentUUID == made.uuid {
            store.chains.times.record(
                chain, below: parent.info.uuid, since: parent.info.originTransaction + 1)
        } else if let below = original?.below {
            store.chains.times.record(chain, below: below.chain.info.uuid, since: below.since)
        } else {
            store.chains.times.record(chain, below: made.parentUUID, since: made.originTransaction)
        }
        store.logger.debug("published the chain \(name)")
        parent = chain
        isAsPublished = true
        claim = nil
        return chain
    }

    /// Writes to `source` that the snapshot to be made of it is the chain `name`. What `source` lies on top of is in the
    /// record that it has itself as a snapshot of that chain, or since it was last published.
    private func recordPublication(of name: ChainName, _ layer: ChainLayer?, on source: FileDescriptor)
        throws
    {
        let below =
            try original?.below?.chain.name ?? PublicationRecord.read(from: source, name.path)?.name
        let record = PublicationRecord(
            name: name, source: try source.subvolumeInfo().uuid, below: below == name ? nil : below)
        try attempt("write what is published to", name.path) { () throws(Errno) in
            try source.setExtendedAttribute(
                ExtendedAttribute(name: StoreLayout.publicationAttribute, value: record.encoded))
            if let layer {
                try source.setExtendedAttribute(
                    ExtendedAttribute(name: StoreLayout.layerAttribute, value: layer.encoded))
            } else if try source.extendedAttribute(StoreLayout.layerAttribute) != nil {
                // That of the chain below.
                try source.removeExtendedAttribute(StoreLayout.layerAttribute)
            }
        }
    }
}
