import VarveBtrfs
import Glibc
import VarveLayers
import VarveSystem
import SystemPackage

/// What forbids to delete a bundle: looked for before anything of it is moved, and again when the deletion failed all the
/// same, to say why.
struct RemovalObstacle {
    private let bundle: BytePath
    /// The bundle's directory.
    private let directory: FileDescriptor
    /// Ends a look, with all as it was: that it was ended is an obstacle then.
    private let cancellation: Cancellation

    init(_ directory: FileDescriptor, _ bundle: BytePath, _ cancellation: Cancellation) {
        self.directory = directory
        self.bundle = bundle
        self.cancellation = cancellation
    }

    /// Throws if flags of the directory that the bundle lies in forbid to take a name out of it. They are the user's, not the
    /// bundle's, so root does not take them away.
    func check(parent: FileDescriptor, _ path: BytePath) throws {
        if let file = ProtectedFile(.current, in: parent, path: path) {
            throw VarveError.protected("the bundle \"\(bundle)\" cannot be deleted", bundle, by: file)
        }
    }

    /// Throws if something forbids it.
    ///
    /// - Parameter walks: also looks at each directory and file, for a caller other than root of the host whose bundle is a plain
    ///   directory: root can take away what forbids to list or delete a file, root of a user name space not that of users whom the
    ///   name space does not have.
    func check(walks: Bool) throws {
        if let obstacle = try found() { throw obstacle }
        if walks, !Privileges.isRoot { try walk() }
    }

    /// Throws if something forbids it that no program of the bundle's could take away.
    func checkAllButMounts() throws {
        if let obstacle = try swapFile() ?? defaultSubvolume() { throw obstacle }
    }

    /// What made a deletion fail that was begun; nil if it can not be told.
    func explanation() -> VarveError? { (try? found()) ?? nil }

    private func found() throws -> VarveError? { try mount() ?? swapFile() ?? defaultSubvolume() }

    private func mount() throws -> VarveError? {
        let (place, users) = try attempt("look for mounts of", bundle) {
            () throws(Errno) -> ([BytePath], [TreeUsers.User]) in
            let rootfs = try TreeUsers.Root(StoreLayout.rootfs, in: directory)
            let users = try TreeUsers(of: directory, in: .all, roots: rootfs.map { [$0] } ?? [], cancellation)
                .all
            return (try directory.path().components, users)
        }
        func error(_ words: String, _ remedy: VarveError.Remedy) -> VarveError {
            VarveError(
                .unsupported, "the bundle \"\(bundle)\" cannot be deleted: \(words)", subject: bundle,
                remedy: remedy)
        }
        let points = users.compactMap { user -> BytePath? in
            guard case .mount(let point) = user.kind, point.components.starts(with: place) else { return nil }
            return point
        }
        guard let point = points.min() else { return users.first.map { error($0.words, $0.remedy) } }
        let others = points.count > 1 ? " (and \(points.count - 1) more)" : ""
        return error(
            "something is mounted at \"\(point)\"\(others)", .unmount(point, recursively: points.count > 1))
    }

    private func swapFile() throws -> VarveError? {
        let (place, files) = try attempt("look for swap files in", bundle) { () throws(Errno) in
            (try directory.path().components, try ActiveSwapFile.all())
        }
        guard let file = files.first(where: { $0.components.starts(with: place) }) else { return nil }
        return VarveError(
            .unsupported,
            "the bundle \"\(bundle)\" cannot be deleted: \"\(file)\" is a swap file in use",
            subject: bundle, remedy: .turnOffSwap(file)
        )
    }

    /// The default subvolume of the file system, where it lies in the bundle or is it. Only root may ask, and only root may have
    /// made it that.
    private func defaultSubvolume() throws -> VarveError? {
        let (isBtrfs, inode) = try attempt("look at", bundle) { () throws(Errno) in
            (try directory.fileSystem().isBtrfs, try directory.status().inode)
        }
        guard Privileges.isRoot, isBtrfs else { return nil }
        let info = try directory.subvolumeInfo()
        var search = TreeSearch(directory)
        let id: UInt64
        do throws(BtrfsError) { id = try search.defaultSubvolume() } catch {
            // Root without CAP_SYS_ADMIN, as in a container: the kernel refuses to delete it all the same.
            guard error.errno == .notPermitted else { throw error }
            return nil
        }
        guard id != TreeSearch.topLevel, let here = try search.names(toSubvolume: info.id, directory: inode),
            let names = try search.names(toSubvolume: id), names.starts(with: here)
        else { return nil }
        let path = names.dropFirst(here.count).reduce(bundle) { $0.appending($1) }
        return VarveError(
            .unsupported,
            "the bundle \"\(bundle)\" cannot be deleted: \"\(path)\" is the default subvolume of the file system",
            subject: bundle,
            remedy: .follow("make another one the default first (btrfs subvolume set-default)"))
    }

    /// What keeps a subvolume in the bundle, which is one itself, from being deleted: that it is being sent, or, for another caller
    /// than root, that it is another user's. Those that are read-only are made writable, which no send allows and none can begin after.
    ///
    /// - Returns: the numbers of those that were made writable.
    func checkNested() throws -> Set<UInt64> {
        var freed: Set<UInt64> = []
        do {
            let way = SubvolumeDescent(directory, .current, .deleteSubvolume)
            while let step = try way.next() {
                try cancellation.check()
                // The bundle itself lies in none.
                guard case .entered(let subvolume, in: let parent?) = step else { continue }
                // The path is made only for a message: deep down, it is long.
                try checkRights(in: parent.fd, subvolume.root.fd, bundle.appending(way.path))
                if subvolume.isReadOnly {
                    try subvolume.root.fd.setSubvolumeReadOnly(false)
                    freed.insert(subvolume.id)
                }
                extendLifetime(parent)
            }
            return freed
        } catch {
            makeReadOnly(freed)
            throw error
        }
    }

    /// Gives subvolumes back what `checkNested` took from them, as far as they are still there.
    func makeReadOnly(_ subvolumes: Set<UInt64>) {
        if subvolumes.isEmpty { return }
        let way = SubvolumeDescent(directory, .current, .setReadOnly)
        while let step = try? way.next() {
            guard case .left(let subvolume, in: _) = step, subvolumes.contains(subvolume.id) else { continue }
            try? subvolume.root.fd.setSubvolumeReadOnly(true)
        }
    }

    /// As `btrfs_ioctl_snap_destroy` and `btrfs_may_delete` (fs/btrfs/ioctl.c) ask of others than root.
    private func checkRights(
        in parent: FileDescriptor, _ subvolume: FileDescriptor, _ path: @autoclosure () -> BytePath
    ) throws {
        guard !Privileges.isRoot else { return }
        func refuse(_ file: ProtectedFile?, _ path: () -> BytePath) throws {
            guard var file else { return }
            file.path = path()
            throw VarveError.protected("the bundle \"\(bundle)\" cannot be deleted", bundle, by: file)
        }
        try refuse(ProtectedFile(.current, in: parent, path: .current)) { path().directory }
        try refuse(ProtectedFile(.current, in: subvolume, path: .current)) { path() }
        try attempt("delete the subvolume", path()) { () throws(Errno) in
            do throws(Errno) {
                try parent.checkWritable(.current)
                try subvolume.checkWritable(.current)
            } catch .readOnlyFileSystem {}
        }
    }

    /// Directories that cannot be listed or emptied, and files that flags keep.
    private func walk() throws {
        /// Runs `look` on the directory `name`; false if the caller may give itself the permission that it lacks.
        func look(
            _ name: BytePath, in parent: FileDescriptor, _ path: @autoclosure () -> BytePath,
            _ look: () throws(Errno) -> Void
        )
            throws -> Bool
        {
            do throws(Errno) {
                try look()
                return true
            } catch .permissionDenied {
                let status = try attempt("look at", path()) { () throws(Errno) in
                    try parent.status(of: name)
                }
                // The number that a name space shows for all users that it does not have may be the caller's own.
                if status.uid == geteuid(), AnotherUser(status.uid).isKnown { return false }
                throw VarveError(
                    .unsupported,
                    "the bundle \"\(bundle)\" cannot be deleted: the directory \"\(path())\" in it belongs to \(AnotherUser(status.uid))",
                    subject: bundle, remedy: .runAsRoot
                )
            } catch {
                throw VarveError.system("look into", path(), error)
            }
        }
        /// The entries of the directory that the way has reached. What is empty goes with its name alone.
        func entries(_ way: DirectoryDescent) throws(Errno) -> [DirectoryEntry] {
            let entries = try way.current.fd.entries()
            if !entries.isEmpty { try way.current.fd.checkWritable(.current) }
            return entries
        }
        func checkProtection(
            _ name: BytePath, in parent: FileDescriptor, _ path: @autoclosure () -> BytePath
        ) throws {
            // The path is made only for a message: deep down, it is long.
            guard var file = ProtectedFile(name, in: parent, path: .current) else { return }
            file.path = path()
            throw VarveError.protected("the bundle \"\(bundle)\" cannot be deleted", bundle, by: file)
        }
        try checkProtection(.current, in: directory, bundle)
        var way: DirectoryDescent?
        var pending: [[DirectoryEntry]] = []
        _ = try look(.current, in: directory, bundle) { () throws(Errno) in
            let first = SharedDescriptor(
                try directory.open(.current, [.directory, .noFollow], resolve: .noCrossing))
            let opened = try DirectoryDescent(first, resolve: .noCrossing)
            way = opened
            pending = [try entries(opened)]
        }
        guard let way else { return }
        while let top = pending.indices.last {
            try cancellation.check()
            guard let entry = pending[top].popLast() else {
                pending.removeLast()
                _ = try attempt("look into", bundle.appending(way.path)) { () throws(Errno) in try way.leave()
                }
                continue
            }
            let fd = way.current.fd
            // Made only for a message: deep down, the path is long.
            func path() -> BytePath { bundle.appending(way.path).appending(entry.name) }
            try checkProtection(entry.name, in: fd, path())
            let isDirectory =
                if let type = entry.type {
                    type == .directory
                } else {
                    try attempt("look at", path()) { () throws(Errno) in
                        try fd.status(of: entry.name).isDirectory
                    }
                }
            guard isDirectory else { continue }
            var isEntered = false
            // The way leads to the directory itself once it is entered.
            let isOpen = try look(entry.name, in: fd, isEntered ? bundle.appending(way.path) : path()) {
                () throws(Errno) in
                try way.enter(entry.name)
                isEntered = true
                pending.append(try entries(way))
            }
            if !isOpen, isEntered {
                _ = try attempt("look into", bundle.appending(way.path)) { () throws(Errno) in
                    try way.leave()
                }
            }
        }
    }
}
