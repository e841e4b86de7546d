import VarveBtrfs
import VarveLayers
import VarveSystem
import SystemPackage

/// What lies in a store's `bundles/`, each bundle of it locked for this value alone: no command begins to work in one for as long as its lock
/// is there.
///
/// A bundle may lie at any depth, in plain directories, in subvolumes and in other bundles. The root file system of a bundle that is a
/// plain directory is not looked through for bundles that are plain directories too: those that are subvolumes are found there all the same. Who
/// runs a container decides how deep they lie: a step costs the same at any depth.
struct LockedBundles {
    struct Entry {
        /// In `bundles/`.
        let name: BytePath
        /// Of what lies there.
        fileprivate(set) var locks: [BundleLock] = []
        /// The root file systems in it, by their paths in the store; those that lie very deep by that of the entry.
        fileprivate(set) var roots: [TreeUsers.Root] = []
    }

    /// Nil where the store has none.
    let directory: SharedDescriptor?
    private(set) var entries: [Entry] = []
    /// Of `bundles/`.
    private let path: BytePath
    private let cancellation: Cancellation

    /// - Throws: `VarveError`, `failed` if somebody is at work in one of them, or if something that is mounted hides one. What cannot be
    ///   opened is an error too.
    init(of store: SnapshotStore) throws {
        let path = store.path.appending(StoreLayout.bundles)
        self.path = path
        cancellation = store.locks.cancellation
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
        var found: [BytePath: Entry] = [:]
        for entry in listed { found[entry.name] = Entry(name: entry.name) }
        try lockSubvolumes(in: directory, &found)
        for name in found.keys.sorted() {
            guard var entry = found[name] else { continue }
            try lockDirectories(in: directory, &entry)
            entries.append(entry)
        }
    }

    /// What lies in a directory on the way to subvolumes.
    private struct Signpost {
        var subvolumes: [BytePath] = []
        var directories: [(name: BytePath, inode: UInt64)] = []
    }

    /// The directories on the way from `bundles/` to the outermost subvolumes below it, by their inodes.
    private func signposts(
        from directory: SharedDescriptor, _ inode: UInt64
    ) throws -> [UInt64: Signpost] {
        // Those that were made just now are in the tree of roots after the next commit.
        try directory.fd.commitTransaction()
        var search = TreeSearch(directory.fd)
        var posts = [inode: Signpost()]
        /// Directories that do not lie below `bundles/`.
        var others: Set<UInt64> = []
        for place in try search.placesOfSubvolumes(in: directory.fd.subvolumeInfo().id) {
            var way: [(name: BytePath, inode: UInt64, parent: UInt64)] = []
            var here = place.parent
            while posts[here] == nil, others.insert(here).inserted {
                try cancellation.check()
                // The root of the subvolume has none.
                guard let name = try search.names(ofInode: here).first else { break }
                way.append((name.name, here, name.parent))
                here = name.parent
            }
            if posts[here] == nil { continue }
            for step in way {
                others.remove(step.inode)
                if posts[step.inode] == nil { posts[step.inode] = Signpost() }
                posts[step.parent, default: Signpost()].directories.append((step.name, step.inode))
            }
            posts[place.parent]?.subvolumes.append(place.name)
        }
        return posts
    }

    /// Locks bundles that are subvolumes, or lie in one as such.
    private func lockSubvolumes(in directory: SharedDescriptor, _ entries: inout [BytePath: Entry]) throws {
        let way: DirectoryDescent
        do throws(Errno) { way = try DirectoryDescent(directory, resolve: .noCrossing) } catch {
            throw VarveError.system("look at", path, error)
        }
        let posts = try signposts(from: directory, way.status.inode)
        var pending = [posts[way.status.inode] ?? Signpost()]
        var outermost = BytePath.empty
        while let top = pending.indices.last {
            try cancellation.check()
            if let name = pending[top].subvolumes.popLast() {
                if top == 0 { outermost = name }
                try lockSubvolumes(
                    way, name, depth: top, &entries[outermost, default: Entry(name: outermost)])
            } else if let next = pending[top].directories.popLast() {
                if top == 0 { outermost = next.name }
                if try enter(next.name, way, path) { pending.append(posts[next.inode] ?? Signpost()) }
            } else {
                pending.removeLast()
                try leave(way, path)
            }
        }
    }

    private func lockSubvolumes(
        _ outer: DirectoryDescent, _ name: BytePath, depth: Int, _ entry: inout Entry
    ) throws {
        let parent = outer.current
        let way = SubvolumeDescent(parent.fd, name, .deleteSubvolume)
        var depth = depth
        while let step = try way.next() {
            try cancellation.check()
            guard case .entered(let subvolume, in: _) = step else {
                depth -= 1
                continue
            }
            depth += 1
            let root = subvolume.root.fd
            // What is no bundle is nobody's to work in, and may be a part of the root file system of one.
            guard try hasRootfs(root) else { continue }
            try lock(root, outer.path.appending(name).appending(way.path), depth: depth, &entry)
        }
        extendLifetime(parent)
    }

    private func hasRootfs(_ directory: FileDescriptor) throws(VarveError) -> Bool {
        try attempt("look into a subvolume in", path) { () throws(Errno) in
            try directory.statusIfPresent(of: StoreLayout.rootfs)?.isDirectory == true
        }
    }

    /// Locks bundles that are plain directories. What is in the way to one is listed, root file systems are not.
    private func lockDirectories(in directory: SharedDescriptor, _ entry: inout Entry) throws {
        let name = entry.name
        let shown = path.appending(name)
        let way: DirectoryDescent
        do throws(Errno) {
            let first = SharedDescriptor(
                try directory.fd.open(name, [.directory, .noFollow], resolve: .noCrossing))
            way = try DirectoryDescent(first, resolve: .noCrossing)
        } catch  where Self.isNoDirectory(error) {
            return
        } catch {
            throw Self.unopened(shown, error)
        }
        /// The directories below the one that the way has reached that may hold bundles.
        func lookAround(depth: Int, _ entry: inout Entry) throws -> [DirectoryEntry] {
            let here = way.current.fd
            let entries = try attempt("list", shown.appending(way.path)) { () throws(Errno) in
                try here.entries()
            }
            let isSubvolume = try here.isSubvolume()
            let names = Set(entries.map(\.name))
            let isBundle =
                names.contains(StoreLayout.rootfs) && (isSubvolume || names.contains(BundleMetadata.fileName))
            if depth == 0 || isBundle, !isSubvolume {
                try lock(here, name.appending(way.path), depth: depth, &entry)
            }
            return entries.filter {
                ($0.type ?? .directory) == .directory && !(isBundle && $0.name == StoreLayout.rootfs)
            }
        }
        var pending = [try lookAround(depth: 0, &entry)]
        while let top = pending.indices.last {
            try cancellation.check()
            guard let next = pending[top].popLast() else {
                pending.removeLast()
                try leave(way, shown)
                continue
            }
            if try enter(next.name, way, shown) {
                pending.append(try lookAround(depth: pending.count, &entry))
            }
        }
    }

    /// - Parameter start: the path of the directory that the way began at.
    /// - Returns: false for what was deleted or moved meanwhile, or is no directory.
    private func enter(
        _ name: BytePath, _ way: DirectoryDescent, _ start: BytePath
    ) throws(VarveError) -> Bool {
        do throws(Errno) {
            try way.enter(name)
            return true
        } catch  where Self.isNoDirectory(error) {
            return false
        } catch {
            throw Self.unopened(start.appending(way.path).appending(name), error)
        }
    }

    private func leave(_ way: DirectoryDescent, _ start: BytePath) throws(VarveError) {
        _ = try attempt("look into", start.appending(way.path)) { () throws(Errno) in try way.leave() }
    }

    /// Levels below `bundles/` to which a root file system is told by its path: all paths together would grow with the square.
    private static let depthLimit = 100

    /// - Parameters:
    ///   - place: below `bundles/`.
    ///   - depth: of the place.
    private func lock(
        _ directory: FileDescriptor, _ place: @autoclosure () -> BytePath, depth: Int, _ entry: inout Entry
    ) throws {
        entry.locks.append(try BundleLock(.exclusive, in: directory, path.appending(place())))
        let root = try attempt("look at", path.appending(place())) { () throws(Errno) in
            try TreeUsers.Root(StoreLayout.rootfs, in: directory)
        }
        guard let root else { return }
        let inStore =
            depth > Self.depthLimit
            ? StoreLayout.bundles.appending(entry.name)
            : StoreLayout.bundles.appending(place()).appending(StoreLayout.rootfs)
        entry.roots.append(TreeUsers.Root(root.status, at: inStore))
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
