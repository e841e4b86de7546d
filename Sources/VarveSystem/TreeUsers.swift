package import SystemPackage

/// Who has a tree of files in use through a mount, or as a root directory: most of the time the processes of a container. The
/// locks of the tree do not tell, for a runtime takes none.
///
/// A mount belongs to a mount name space, and each process sees those of its own. A name space is there for as long as a process is in
/// it, so /proc leads to all (proc_pid_mountinfo(5)), as far as the caller may look into the processes: root into all of them. What
/// is not found: a name space that no process is in and a file keeps (`unshare --mount=FILE`), or that a thread alone is in, and
/// files that are open. What is mounted on a directory of the tree counts in this process's name space alone: another may be a copy, and
/// keep for as long as it is there what was unmounted here long ago.
package struct TreeUsers: Sendable {
    /// A process that sees the mount, or that has the tree as its root directory.
    package struct Process: Sendable {
        package var id: Int32
        /// The name of its program (proc_pid_comm(5)).
        package var name: BytePath

        /// As it reads in a sentence.
        package var words: String { "the process \(id) (\"\(name)\")" }
    }

    package enum Kind: Sendable {
        /// A mount in this process's own name space.
        case mount(at: BytePath)
        /// A mount in another name space: the mount point as the process sees it.
        case foreignMount(at: BytePath, Process)
        /// The root directory of a process.
        case root(Process)
    }

    package struct User: Sendable {
        package var kind: Kind
        /// What of the tree it has, or is mounted on: a path below the tree's directory, empty for that itself.
        package var place: [BytePath]
    }

    /// A directory in a tree that can be the root directory of a process.
    package struct Root: Sendable {
        package var status: FileStatus
        /// Below the tree's directory.
        package var place: BytePath

        package init(_ status: FileStatus, at place: BytePath) {
            self.status = status
            self.place = place
        }

        /// What `place` leads to; nil where nothing does.
        package init?(_ place: BytePath, in tree: FileDescriptor) throws(Errno) {
            do throws(Errno) {
                self.init(try tree.status(of: place), at: place)
            } catch  where error.isAbsence {
                return nil
            }
        }
    }

    package enum NameSpaces: Sendable {
        /// That of this process alone. It costs one look into the mount table.
        case own
        /// Those of all processes. It costs some microseconds for each process, and a look into the mount table for each name space.
        case all
    }

    /// The mounts of this process's name space first, the oldest first. Of what others have mounted, one mount for each entry of the tree's
    /// directory.
    package let all: [User]

    /// - Parameters:
    ///   - tree: its directory.
    ///   - nameSpaces: where mounts are looked for.
    ///   - roots: what processes may have as their root directory.
    ///   - cancellation: ends the look at a process and at a mount table: a container may have as many as it likes of the one, and a long one.
    /// - Throws: `Errno.canceled` if it was asked to stop.
    package init(
        of tree: FileDescriptor, in nameSpaces: NameSpaces, roots: [Root] = [], _ cancellation: Cancellation
    ) throws(Errno) {
        let table = try MountTable.read()
        let (id, path) = (try tree.mountID(), try tree.path())
        let components = path.components
        guard let mount = table.last(where: { $0.id == id }) else {
            // The root of this process is none of a mount.
            all = table.filter { $0.point.components.starts(with: components) }.map {
                User(
                    kind: .mount(at: $0.point), place: Array($0.point.components.dropFirst(components.count)))
            }
            return
        }
        let place = Place(
            device: mount.device,
            components: mount.root.components + components.dropFirst(mount.point.components.count))
        var users = table.compactMap { other -> User? in
            let point = other.point.components
            // What is mounted on something that is mounted in the tree too.
            let isBelow = point.starts(with: components)
            guard
                let found = isBelow
                    ? Array(point.dropFirst(components.count)) : place.part(of: other)
            else { return nil }
            return User(kind: .mount(at: other.point), place: found)
        }
        if nameSpaces == .all { users += try Self.others(place, roots, cancellation) }
        all = users
    }

    /// A directory in its file system, whatever is mounted where.
    private struct Place {
        let device: String
        let components: [BytePath]

        /// What of the directory is mounted; nil for a mount of something else.
        func part(of mount: MountTable.Mount) -> [BytePath]? {
            let root = mount.root.components
            return mount.device == device && root.starts(with: components)
                ? Array(root.dropFirst(components.count)) : nil
        }
    }

    /// A directory, as a process has it as its root.
    private struct RootID: Hashable {
        let device: UInt64
        let inode: UInt64

        init(_ status: FileStatus) { (device, inode) = (status.device, status.inode) }
    }

    /// A mount name space as one of its processes sees it.
    private struct View: Hashable {
        enum Root: Hashable {
            case known(RootID)
            /// That of this process, of which nobody can say what it is.
            case unknown(Int32)
        }

        let nameSpace: BytePath
        let root: Root
    }

    private static func others(
        _ place: Place, _ roots: [Root], _ cancellation: Cancellation
    ) throws(Errno) -> [User] {
        let processes = SharedDescriptor(try FileDescriptor.workingDirectory.openDirectory("/proc"))
        let own = try processes.fd.readSymbolicLink("self/ns/mnt")
        let ownRoot = try RootID(root("self", processes.fd))
        let parts = Dictionary(roots.map { (RootID($0.status), $0) }, uniquingKeysWith: { first, _ in first })
        var seen: Set<View> = []
        var mounted: Set<BytePath?> = []
        var users: [User] = []
        for entry in try processes.fd.entries() {
            if cancellation.isCancelled { throw .canceled }
            guard let id = entry.name.string.flatMap({ Int32($0) }),
                let nameSpace = try ofProcess({ () throws(Errno) in
                    try processes.fd.readSymbolicLink(entry.name.appending("ns/mnt"))
                })
            else { continue }
            let root = try Self.rootID(entry.name, processes.fd)
            let part = root == ownRoot ? nil : root.flatMap { parts[$0] }
            let view = View(nameSpace: nameSpace, root: root.map { .known($0) } ?? .unknown(id))
            let isNew = nameSpace != own && !seen.contains(view)
            guard part != nil || isNew else { continue }
            var process: Process {
                let name = try? processes.fd.readFile(entry.name.appending("comm"), limit: 256)
                return Process(id: id, name: BytePath(name?.prefix { $0 != 0x0a } ?? []) ?? .empty)
            }
            if let part { users.append(User(kind: .root(process), place: part.place.components)) }
            guard isNew else { continue }
            let isRead: Void? = try ofProcess { () throws(Errno) in
                let table = try processes.fd.open(entry.name.appending("mountinfo"), [.readOnly])
                try MountTable.forEachMount(in: table.fd, device: place.device, cancellation) { mount in
                    guard let found = place.part(of: mount), mounted.insert(found.first).inserted else {
                        return
                    }
                    users.append(User(kind: .foreignMount(at: mount.point, process), place: found))
                }
            }
            // Of one that has ended meanwhile, another process may still tell.
            if isRead != nil { seen.insert(view) }
        }
        return users
    }

    /// What /proc says of a process; nil for one that has ended meanwhile, or that the caller may not look into. Any other error may hide a user.
    private static func ofProcess<R>(_ body: () throws(Errno) -> R) throws(Errno) -> R? {
        do throws(Errno) { return try body() } catch {
            // EINVAL is that of a process which has given up its mount name space (mounts_open_common, fs/proc_namespace.c).
            let passed: [Errno] = [
                .noSuchFileOrDirectory, .noSuchProcess, .invalidArgument, .permissionDenied, .notPermitted,
            ]
            if passed.contains(error) { return nil }
            throw error
        }
    }

    /// What the root directory of a process is; nil where that cannot be said, and for a process that has ended meanwhile. One on a FUSE of another
    /// user's is closed to root too (`fuse_allow_current_process`, fs/fuse/dir.c), and may be out of order: it is none of a tree's, and what is
    /// mounted in that name space is told all the same.
    private static func rootID(_ process: BytePath, _ processes: FileDescriptor) throws(Errno) -> RootID? {
        do throws(Errno) { return RootID(try root(process, processes)) } catch {
            // Those of this process say nothing of the other.
            let own: [Errno] = [.tooManyOpenFiles, .tooManyOpenFilesInSystem, .noMemory]
            if own.contains(error) { throw error }
            return nil
        }
    }

    /// What the root directory of a process is.
    private static func root(_ process: BytePath, _ processes: FileDescriptor) throws(Errno) -> FileStatus {
        let opened = try processes.open(process.appending("root"), [.path, .directory])
        return try opened.fd.status()
    }
}

extension TreeUsers.User {
    /// What makes it known, as it reads on from "in use: ".
    package var words: String {
        switch kind {
        case .mount(let point): "it, or something of it, is mounted at \"\(point)\""
        case .foreignMount(let point, let process):
            "\(process.words) has it, or something of it, mounted at \"\(point)\" in another mount name space"
        case .root(let process): "\(process.words) has its root directory there"
        }
    }

    package var remedy: VarveError.Remedy {
        switch kind {
        case .mount(let point): .unmount(point, recursively: false)
        case .foreignMount, .root:
            .follow("end that process, or the container that it is of, and try again")
        }
    }
}
