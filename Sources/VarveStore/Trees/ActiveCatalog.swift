import VarveBtrfs
package import VarveLayers
package import VarveSystem
import SystemPackage

/// The trees of one owner beside bundles: what one containerd, or one buildkitd, has on the store. They lie in
/// `containerd/OWNER/trees/`, and nobody else looks at them: each owner collects what it does not know.
///
/// The file system is the record of them: who owns a tree is said by its directory, what it lies on by its parent UUID. Bundles lie
/// where their users want them, and `SnapshotStore.bundles` finds them by an attribute.
package struct ActiveCatalog: Sendable {
    package let owner: String
    private let store: SnapshotStore
    private let trees: SubvolumeDirectory

    /// What a new tree is made on.
    package enum Base: Sendable {
        case chain(OpenChain)
        /// A subvolume with `rootfs/` in it that does not change.
        case tree(SharedDescriptor)
        /// Nothing: an empty root directory.
        case empty(OwnerMapping)
    }

    /// The trees of an owner; its directory is made if there is none yet.
    ///
    /// - Parameter owner: one component of a path: 1 to 255 bytes, no slash, no dot at the start.
    package init(of store: SnapshotStore, owner: String) throws {
        let name = try StoreLayout.ownerName(owner)
        self.owner = owner
        self.store = store
        let place = StoreLayout.containerd.appending(name).appending(StoreLayout.trees)
        trees = SubvolumeDirectory(
            opened: try attempt("make", store.path.appending(place)) { () throws(Errno) in
                SharedDescriptor(try store.directory.fd.makeOwnDirectories(place))
            }, store: store.path, name: place)
    }

    /// The names of all trees, whatever else lies there included.
    package func names() throws(StoreError) -> [BytePath] {
        try trees.entries().map(\.name).sorted()
    }

    /// Where a tree is: what is mounted lies in it, at `rootfs/`.
    package func path(of name: BytePath) -> BytePath {
        store.path.appending(trees.name).appending(name)
    }

    /// The tree of that name; nil if there is none.
    package func open(_ name: BytePath) throws -> ActiveTree? {
        guard let opened = try trees.open(name), try opened.fd.isSubvolume() else { return nil }
        return try ActiveTree(opened, at: path(of: name))
    }

    /// Makes a tree, which is there and whole after a crash if this returned.
    ///
    /// A snapshot is made under its name at once: the kernel has committed it when the call returns.
    ///
    /// - Throws: `VarveError`: `failed` if there is a tree of that name.
    package func create(_ name: BytePath, on base: Base, readOnly: Bool = false) throws -> ActiveTree {
        let path = path(of: name)
        do {
            switch base {
            case .chain(let chain): try store.chains.snapshot(of: chain, to: trees.fd, name)
            case .tree(let tree): try tree.fd.snapshot(to: trees.fd, name, readOnly: readOnly)
            case .empty(let owners): try makeEmpty(name, owners)
            }
        } catch let error as BtrfsError where error.errno == .fileExists {
            throw StoreError(.failed, "\"\(path)\" exists already", subject: path)
        }
        guard let made = try open(name) else {
            throw StoreError(.failed, "\"\(path)\" vanished while it was made", subject: path)
        }
        if readOnly, !made.info.isReadOnly { try made.subvolume.fd.setSubvolumeReadOnly(true) }
        return made
    }

    private func makeEmpty(_ name: BytePath, _ owners: OwnerMapping) throws {
        var made = try store.work.makeEmptyTree(for: path(of: name), owners: owners)
        try attempt("make", path(of: name)) { () throws(Errno) in
            try made.move(to: trees.fd, name)
            try trees.fd.synchronizeFileSystem()
        }
    }

    /// Keeps a frozen tree under a name, read-only: what was committed and is no chain.
    package func keep(_ frozen: FrozenTree, as name: BytePath) throws {
        try trees.removeStub(name)
        try frozen.keep(in: trees, as: name)
    }

    /// Takes a tree away at once, whatever its size. It is deleted when the value that is returned goes away, on whatever thread that
    /// is, and after a crash by `Sweeper`.
    ///
    /// - Returns: nil if there is no such tree.
    package func remove(_ name: BytePath) throws -> RemovedTree? {
        guard let opened = try trees.open(name), try opened.fd.isSubvolume() else { return nil }
        // What is read-only cannot change its directory.
        if try opened.fd.isReadOnlySubvolume() { try opened.fd.setSubvolumeReadOnly(false) }
        let path = path(of: name)
        let work = try store.work.make(for: path, removes: true) { [trees] directory, workName in
            try attempt("move away", path) { () throws(Errno) in
                try trees.fd.rename(name, to: directory, workName, replacing: false)
            }
        }
        return RemovedTree(SharedWork(work))
    }

    /// A tree that has no name any more.
    package struct RemovedTree: Sendable {
        private let work: SharedWork
        init(_ work: SharedWork) { self.work = work }
    }
}
