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
    package func rootfs() throws(StoreError) -> SharedDescriptor {
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
        /// Inodes that were made or changed since, the root directory of the subvolume among them.
        package var inodes = 0
    }

    /// What was written since the tree was made. The cost follows the changes: of the tree only the leaves are read that were written
    /// since. What was written a moment ago and is still in memory is not in it.
    ///
    /// - Throws: `BtrfsError`: EPERM for others than root, who alone may search trees.
    package func usage() throws(BtrfsError) -> Usage {
        var usage = Usage()
        var seen: Set<UInt64> = []
        var search = TreeSearch(subvolume.fd)
        try search.forEachInode(changedSince: info.originTransaction) { _ in usage.inodes += 1 }
        try search.forEachNewExtent(since: info.originTransaction) { start, length in
            if let start, !seen.insert(start).inserted { return }
            usage.bytes += length
        }
        return usage
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
    private let origin: SubvolumeInfo
    private var snapshot: WorkSubvolume

    fileprivate init(of tree: ActiveTree, in work: WorkArea) throws {
        path = tree.path
        origin = tree.info
        let snapshot = try work.makeSnapshot(of: tree.subvolume, readOnly: true, for: tree.path)
        subvolume = try snapshot.open(for: tree.path)
        root = try snapshot.openRootfs(for: tree.path)
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
        from base: TreeBase, source: DeltaSource = .auto, logger: Logger,
        onEntry: @escaping @Sendable () throws -> Void = {}
    ) throws -> DeltaResult {
        let oldRoot = try base.rootfs(for: path)
        return try Delta.compute(
            old: DeltaTree(subvolume: base.subvolume.fd, root: oldRoot.fd, state: base.state),
            new: DeltaTree(subvolume: subvolume.fd, root: root.fd, state: .snapshot), source: source,
            known: [origin], logger: logger, onEntry: onEntry)
    }

    /// Keeps the snapshot under a name of the store's, read-only all the time that it has that name.
    package func keep(in target: SubvolumeDirectory, as name: BytePath) throws {
        do {
            // No inode of the snapshot changes on its way, so it stays the ancestor that deltas by transid need.
            try snapshot.keep(subvolume.fd, in: target, as: name)
        } catch let error as Errno {
            throw StoreError.system("keep the frozen state of", path, error)
        }
    }
}

/// What the delta of a tree counts from.
package struct TreeBase {
    package let subvolume: SharedDescriptor
    /// What is known of it.
    let state: DeltaTree.State
    /// Where the subvolume was made for this purpose: it goes with this value.
    private let work: SharedWork?

    /// A chain, which is what was published.
    package init(_ chain: OpenChain) {
        self.init(chain.subvolume, state: .proven(chain.info))
    }

    /// Any other subvolume with `rootfs/` in it.
    package init(_ subvolume: SharedDescriptor, state: DeltaTree.State = .unknown) {
        self.subvolume = subvolume
        self.state = state
        work = nil
    }

    /// The root directory of the tree.
    ///
    /// - Parameter subject: what it is the base of, for errors.
    func rootfs(for subject: BytePath) throws(StoreError) -> SharedDescriptor {
        SharedDescriptor(
            try attempt("open the base of", subject) { () throws(Errno) in
                try subvolume.fd.openDirectory(StoreLayout.rootfs)
            })
    }

    /// The tree of an image with no layers, made now.
    package init(emptyIn work: WorkArea, owners: OwnerMapping, for subject: BytePath) throws {
        let tree = try work.makeEmptyTree(for: subject, owners: owners)
        subvolume = try tree.open(for: subject)
        // Writable, but nobody else's.
        state = .snapshot
        self.work = SharedWork(tree)
    }
}
