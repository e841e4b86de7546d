import VarveBtrfs
import VarveLayers
import VarveSystem
import SystemPackage

/// What lies in a store's `bundles/`, each bundle and each subvolume of it locked for this value alone: no command begins to work in
/// one for as long as its lock is there.
///
/// A bundle may lie at any depth, in plain directories, in subvolumes and in other bundles. The root file system of a bundle that is a
/// plain directory is not looked through for bundles that are plain directories too: subvolumes are found there all the same.
struct LockedBundles {
    struct Entry {
        /// In `bundles/`.
        let name: BytePath
        /// Of what lies there.
        fileprivate(set) var locks: [BundleLock] = []
        /// The root file systems in it, by their paths in the store.
        fileprivate(set) var roots: [TreeUsers.Root] = []
    }

    /// Nil where the store has none.
    let directory: SharedDescriptor?
    private(set) var entries: [Entry] = []
    /// Of `bundles/`.
    private let path: BytePath

    /// - Throws: `VarveError`, `failed` if somebody is at work in one of them, or if something that is mounted hides one. What cannot be
    ///   opened is an error too.
    init(of store: SnapshotStore) throws {
        let path = store.path.appending(StoreLayout.bundles)
        self.path = path
        directory = try attempt("open", path) { () throws(Errno) -> SharedDescriptor? in
            do throws(Errno) {
                return SharedDescriptor(
                    try store.directory.fd.open(
                        StoreLayout.bundles, [.directory, .noFollow], resolve: .noCrossing))
            } catch .noSuchFileOrDirectory {
                return nil
            }
        }
        guard let directory else { return }
        let listed = try attempt("list", path) { () throws(Errno) in try directory.fd.entries() }
        let nested = try subvolumes(in: directory)
        for entry in listed.sorted(by: { $0.name < $1.name }) {
            try store.locks.cancellation.check()
            var found = Entry(name: entry.name)
            for place in nested where place.components.first == entry.name {
                try lockSubvolumes(at: place, in: directory, &found, store.locks.cancellation)
            }
            try lockDirectories(in: directory, &found, store.locks.cancellation)
            entries.append(found)
        }
    }

    /// The outermost subvolumes below `bundles/`, by their paths in that.
    private func subvolumes(in directory: SharedDescriptor) throws -> [BytePath] {
        // Those that were made just now are in the tree of roots after the next commit.
        try directory.fd.commitTransaction()
        let id = try directory.fd.subvolumeInfo().id
        let inode = try attempt("look at", path) { () throws(Errno) in try directory.fd.status().inode }
        var search = TreeSearch(directory.fd)
        guard let here = try search.names(toSubvolume: id, directory: inode) else { return [] }
        var found: [[BytePath]] = []
        for root in try search.subvolumes() where !root.isDeleted {
            guard let names = try search.names(toSubvolume: root.id), names.count > here.count,
                names.starts(with: here)
            else { continue }
            found.append(Array(names.dropFirst(here.count)))
        }
        let all = Set(found)
        return found.filter { names in !(1..<names.count).contains { all.contains(Array(names.prefix($0))) } }
            .map(BytePath.init(joining:))
    }

    private func lockSubvolumes(
        at place: BytePath, in directory: SharedDescriptor, _ entry: inout Entry, _ cancellation: Cancellation
    ) throws {
        let shown = path.appending(place)
        let parent: SharedDescriptor
        do throws(Errno) {
            parent = SharedDescriptor(
                try directory.fd.openBelow(place.directory, [.directory], resolve: .noCrossing))
        } catch .noSuchFileOrDirectory {
            // Deleted or moved meanwhile.
            return
        } catch {
            throw VarveError.system("open the bundle", shown, error)
        }
        let way = SubvolumeDescent(parent.fd, place.lastComponent, .deleteSubvolume)
        while let step = try way.next() {
            try cancellation.check()
            guard case .entered(let subvolume, in: _) = step else { continue }
            try lock(subvolume.root.fd, place.appending(way.path), &entry)
        }
        extendLifetime(parent)
    }

    /// Locks bundles that are plain directories. What is in the way to one is listed, root file systems are not.
    private func lockDirectories(
        in directory: SharedDescriptor, _ entry: inout Entry, _ cancellation: Cancellation
    ) throws {
        let shown = path.appending(entry.name)
        let way: DirectoryDescent
        do throws(Errno) {
            let first = SharedDescriptor(
                try directory.fd.open(entry.name, [.directory, .noFollow], resolve: .noCrossing))
            way = try DirectoryDescent(first, resolve: .noCrossing)
        } catch  where Self.isNoDirectory(error) {
            return
        } catch {
            throw Self.unopened(shown, error)
        }
        /// The directories below the one that the way has reached that may hold bundles.
        func enter(_ isFirst: Bool, _ entry: inout Entry) throws -> [DirectoryEntry] {
            let here = way.current.fd
            let entries = try attempt("list", shown.appending(way.path)) { () throws(Errno) in
                try here.entries()
            }
            let isSubvolume = try here.isSubvolume()
            let names = Set(entries.map(\.name))
            let isBundle =
                names.contains(StoreLayout.rootfs) && (isSubvolume || names.contains(BundleMetadata.fileName))
            if isFirst || isBundle, !isSubvolume {
                try lock(here, entry.name.appending(way.path), &entry)
            }
            return entries.filter {
                ($0.type ?? .directory) == .directory && !(isBundle && $0.name == StoreLayout.rootfs)
            }
        }
        var pending = [try enter(true, &entry)]
        while let top = pending.indices.last {
            try cancellation.check()
            guard let next = pending[top].popLast() else {
                pending.removeLast()
                _ = try attempt("look into", shown.appending(way.path)) { () throws(Errno) in
                    try way.leave()
                }
                continue
            }
            do throws(Errno) {
                try way.enter(next.name)
            } catch  where Self.isNoDirectory(error) {
                continue
            } catch {
                throw Self.unopened(shown.appending(way.path).appending(next.name), error)
            }
            pending.append(try enter(false, &entry))
        }
    }

    /// - Parameter place: below `bundles/`.
    private func lock(_ directory: FileDescriptor, _ place: BytePath, _ entry: inout Entry) throws {
        entry.locks.append(try BundleLock(.exclusive, in: directory, path.appending(place)))
        let inStore = StoreLayout.bundles.appending(place).appending(StoreLayout.rootfs)
        let root = try attempt("look at", path.appending(place)) { () throws(Errno) in
            try TreeUsers.Root(StoreLayout.rootfs, in: directory)
        }
        if let root { entry.roots.append(TreeUsers.Root(root.status, at: inStore)) }
    }

    /// What is gone, or is no directory and therefore no bundle.
    private static func isNoDirectory(_ error: Errno) -> Bool {
        error == .notDirectory || error == .tooManySymbolicLinkLevels || error == .noSuchFileOrDirectory
    }

    private static func unopened(_ path: BytePath, _ error: Errno) -> VarveError {
        guard error == .improperLink else { return VarveError.system("open", path, error) }
        return VarveError(
            .failed, "something is mounted at \"\(path)\"", subject: path,
            remedy: .unmount(path, recursively: true))
    }
}
