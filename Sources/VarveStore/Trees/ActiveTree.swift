package import VarveBtrfs
package import Logging
package import VarveLayers
package import VarveSystem
import SystemPackage

/// A writable tree in a store's file system, that somebody works in: a subvolume in whose `rootfs/` the tree is. It lies on a chain,
/// on another tree that does not change, or on nothing. A bundle is one; a snapshot of containerd's that a container runs in is one.
///
/// What it was made of is asked of the file system: `info.parentUUID` is the UUID of the chain.
package struct ActiveTree: Sendable {
    /// Where it is, for messages.
    package let path: BytePath
    package let subvolume: SharedDescriptor
    /// As it was when the tree was opened.
    package let info: SubvolumeInfo

    /// - Parameter subvolume: its root directory, with `rootfs/` in it.
    package init(_ subvolume: SharedDescriptor, at path: BytePath) throws {
        self.path = path
        self.subvolume = subvolume
        info = try subvolume.fd.subvolumeInfo()
    }

    /// The root directory of the tree.
    package func rootfs() throws(VarveError) -> SharedDescriptor {
        SharedDescriptor(
            try attempt("open", path.appending(StoreLayout.rootfs)) { () throws(Errno) in
                try subvolume.fd.openDirectory(StoreLayout.rootfs)
            })
    }

    // MARK: Whether it was written to

    /// A moment in the life of a tree, to ask later whether it was written to since. It can be written down (`description`).
    package struct Mark: Hashable, Sendable, CustomStringConvertible {
        let uuid: SubvolumeUUID
        let changeTransaction: UInt64

        init(_ info: SubvolumeInfo) {
            uuid = info.uuid
            changeTransaction = info.changeTransaction
        }

        /// Nil for what is no mark.
        package init?(_ text: String) {
            let parts = text.split(separator: " ", omittingEmptySubsequences: false)
            guard parts.count == 2, let uuid = SubvolumeUUID(String(parts[0])),
                let transaction = UInt64(parts[1])
            else { return nil }
            self.uuid = uuid
            changeTransaction = transaction
        }

        package var description: String { "\(uuid) \(changeTransaction)" }
    }

    /// The state that the tree is in now. All that was written to it before is in that: it is written out first, with all of the
    /// file system (syncfs(2)), as the tree is writable. What somebody writes while the mark is taken may be in it.
    package func mark() throws -> Mark { Mark(try subvolume.fd.settledSubvolumeInfo()) }

    /// Whether nothing was written to the tree since the mark was taken, its own attributes and those of `rootfs/` included.
    /// Writes out the file system, as `mark` does; a tree that is frozen anyway answers without that
    /// (`FrozenTree.isUntouched`).
    package func isUntouched(since mark: Mark) throws -> Bool { try self.mark() == mark }

    // MARK: Freezing

    /// The tree as it is now, in a read-only snapshot. All that was written before is in it.
    package func freeze(in work: WorkArea) throws -> FrozenTree { try FrozenTree(of: self, in: work) }

    // MARK: Usage

    /// What a tree takes on disk beside what it was made of.
    package struct Usage: Hashable, Sendable {
        /// Bytes of content that was written since, as it is stored: compressed, each extent once. What was deleted since does not
        /// count against it.
        package var bytes: UInt64 = 0
        /// Inodes that were made or changed since, without the root directory of the subvolume, around `rootfs/`.
        package var inodes = 0
    }

    /// What was written since the tree was made. The cost follows the changes: of the tree only the leaves are read that were written
    /// since. What was written a moment ago and is still in memory is not in it.
    ///
    /// - Throws: `BtrfsError`: EPERM for others than root, who alone may search trees.
    package func usage() throws(BtrfsError) -> Usage {
        try Usage(of: subvolume.fd, since: info.originTransaction)
    }
}

extension ActiveTree.Usage {
    /// What a subvolume has that was written after a transaction.
    init(of subvolume: FileDescriptor, since transaction: UInt64) throws(BtrfsError) {
        var seen: Set<UInt64> = []
        var inodes = 0
        var bytes: UInt64 = 0
        var search = TreeSearch(subvolume)
        try search.forEachInode(changedSince: transaction) { inode in
            if inode.inode != TreeSearch.firstInode { inodes += 1 }
        }
        try search.forEachNewExtent(since: transaction) { start, length in
            if let start, !seen.insert(start).inserted { return }
            bytes &+= length
        }
        self.init(bytes: bytes, inodes: inodes)
    }
}

/// An active tree held still: a read-only snapshot of it, which goes with this value.
package final class FrozenTree {
    /// What errors name: the tree that was frozen.
    package let path: BytePath
    /// The snapshot.
    package let subvolume: SharedDescriptor
    /// The root directory of the tree in it.
    package let root: SharedDescriptor
    /// The tree that was frozen, as it was when it was opened, and what it was made of by way of others.
    let origins: [SubvolumeInfo]
    private let origin: SubvolumeInfo
    private var snapshot: WorkSubvolume

    fileprivate init(of tree: ActiveTree, in work: WorkArea) throws {
        path = tree.path
        origin = tree.info
        racePoint("freeze")
        let snapshot = try work.makeSnapshot(of: tree.subvolume, readOnly: true, for: tree.path)
        racePoint("frozen")
        subvolume = try snapshot.open(for: tree.path)
        root = try snapshot.openRootfs(for: tree.path)
        let frozen = subvolume
        let ancestors = try attempt("read the attributes of", tree.path) { () throws(Errno) in
            try BundleAncestors(of: frozen.fd)
        }
        origins = [tree.info] + ancestors.infos
        self.snapshot = snapshot
    }

    /// Whether nothing was written to the tree between the mark and the moment at which it was frozen. Costs one call of the
    /// kernel: a snapshot has its source's `ctransid` of the moment at which it was taken (`create_pending_snapshot`,
    /// fs/btrfs/transaction.c), and by then all data of the source was written out.
    package func isUntouched(since mark: ActiveTree.Mark) throws -> Bool {
        guard mark.uuid == origin.uuid else { return false }
        return try subvolume.fd.subvolumeInfo().changeTransaction == mark.changeTransaction
    }

    /// What the tree differs in from what it lies on.
    package func delta(
        from base: StillTree, source: DeltaSource = .auto, logger: Logger,
        onEntry: @escaping @Sendable () throws -> Void = {}
    ) throws -> DeltaResult {
        try StillTree(self).delta(from: base, source: source, logger: logger, onEntry: onEntry)
    }

    /// Keeps the snapshot under a name of the store's, read-only all the time that it has that name.
    package func keep(in target: SubvolumeDirectory, as name: BytePath) throws {
        do {
            // No inode of the snapshot changes on its way, so it stays the ancestor that deltas by transid need.
            try snapshot.keep(subvolume.fd, in: target, as: name)
        } catch let error as Errno {
            throw VarveError.system("keep the frozen state of", path, error)
        }
    }
}
