import Glibc
package import SystemPackage

/// Why a place is not used: what stands on the way to it, and what is wrong with that.
package struct PlaceError: Error, Sendable, CustomStringConvertible {
    package enum Reason: Sendable, Hashable {
        /// Users other than its owner may write to a directory on the way, which has no sticky bit: they could put something
        /// else in the place of what is in it.
        case openToOthers(permissions: UInt32)
        /// A symbolic link on the way was made by another user, and leads to where that user wants.
        case linkOfAnother(uid: UInt32)
        /// It belongs to a user who is neither root nor the caller.
        case ownedByAnother(uid: UInt32)
        /// Others may write to the file or directory itself.
        case writableByOthers(permissions: UInt32)
        /// It is a device, a FIFO, a socket or a directory.
        case noRegularFile
        /// A system call failed: what it was for, as it reads on from "cannot".
        case system(operation: String, Errno)
    }

    /// The file, directory or link that is wrong.
    package var path: BytePath
    package var reason: Reason

    package init(path: BytePath, reason: Reason) {
        self.path = path
        self.reason = reason
    }

    /// Nil where it is not a system call that failed.
    package var errno: Errno? {
        if case .system(_, let errno) = reason { errno } else { nil }
    }

    package var description: String { VarveError.sentence(problem, remedy) }

    /// What is wrong, without the remedy.
    package var problem: String {
        switch reason {
        case .openToOthers(let permissions):
            "others may write to \"\(path)\" (mode \(String(permissions, radix: 8))) and could put something else in the place of what is in it"
        case .linkOfAnother(let uid): "\"\(path)\" is a symbolic link of \(AnotherUser(uid))"
        case .ownedByAnother(let uid):
            "\"\(path)\" belongs to \(AnotherUser(uid)), who can change it"
        case .writableByOthers(let permissions):
            "others may write to \"\(path)\" (mode \(String(permissions, radix: 8)))"
        case .noRegularFile: "\"\(path)\" is not a regular file"
        case .system(let operation, let errno): "cannot \(operation) \"\(path)\": \(errno)"
        }
    }

    package var remedy: VarveError.Remedy? {
        switch reason {
        case .openToOthers: .closeToOthers(path, orSticky: true)
        case .linkOfAnother: .name("what it leads to")
        case .ownedByAnother: .changeOwner(path)
        case .writableByOthers: .closeToOthers(path, orSticky: false)
        case .noRegularFile, .system: nil
        }
    }
}

/// Directories that were made for something that may yet fail.
package struct MadeDirectories: Sendable {
    private var made: [(parent: SharedDescriptor, name: BytePath)] = []

    package init() {}

    package mutating func add(_ name: BytePath, in parent: SharedDescriptor) { made.append((parent, name)) }

    /// Takes those away again that are still empty, the last made first.
    package func remove() {
        for (parent, name) in made.reversed() { try? parent.fd.removeDirectory(name) }
    }
}

/// The way to a file or directory, gone one component at a time, each relative to the one before.
///
/// It can be asked that nobody but root, the caller and the owners of the directories on the way can change it: then a
/// directory that others may write to is refused, unless it has the sticky bit (with it, as in /tmp, nobody can move
/// what is another's), and so is a symbolic link that belongs neither to root nor to the caller nor to the owner of its
/// directory. That holds also for the directories to which symbolic links lead, and for those above the working directory.
package struct Place {
    /// What is asked of the way.
    package enum Trust: Sendable {
        /// Nothing.
        case any
        /// Others cannot change it.
        case closedToOthers
    }

    private let trust: Trust
    private var makes = false
    private var made = MadeDirectories()
    /// The directory reached so far (`O_PATH`), and its path as it is shown.
    private var current: SharedDescriptor
    private var shown: BytePath
    /// Components still to go, the next one last.
    private var pending: [BytePath]
    private var links = 0
    /// The last component is a link of procfs to an open file that is no directory.
    private var isMagic = false

    /// As many as the kernel follows (path_resolution(7)).
    private static let linkLimit = 40
    /// That of procfs (linux/magic.h): its links lead to open files, whatever their text says.
    private static let procMagic: UInt64 = 0x9fa0

    /// Finds a directory and opens it for listing.
    package static func directory(_ path: BytePath, _ trust: Trust) throws(PlaceError) -> OwnedDescriptor {
        var place = try Place(path, trust)
        return try place.directory()
    }

    /// Finds a directory, makes what is missing of the way to it (mode 0755), and opens it for listing.
    ///
    /// - Parameter made: gets what was made, also where this fails.
    package static func makeDirectory(
        _ path: BytePath, _ trust: Trust, noting made: inout MadeDirectories
    ) throws(PlaceError) -> OwnedDescriptor {
        var place = try Place(path, trust)
        place.makes = true
        place.made = made
        defer { made = place.made }
        return try place.directory()
    }

    /// Finds a file that is no directory and opens it.
    package static func file(_ path: BytePath, _ trust: Trust, _ flags: OpenFlags) throws(PlaceError)
        -> OwnedDescriptor
    {
        var place = try Place(path, trust)
        guard let name = try place.walk() else { throw Self.failed("open", path, .isDirectory) }
        let isMagic = place.isMagic
        return try place.attempt("open", path) { (current) throws(Errno) in
            try current.open(name, isMagic ? flags : flags.union(.noFollow))
        }
    }

    /// Finds a regular file that says what this process is to do, or that it is to run, and opens it: others can change
    /// neither the way to it nor the file, and it belongs to root or to the caller.
    package static func ownFile(_ path: BytePath, _ flags: OpenFlags) throws(PlaceError) -> OwnedDescriptor {
        // Not to wait for a writer, if it is a FIFO; O_PATH opens nothing, and takes no such flag.
        let file = try file(path, .closedToOthers, flags.contains(.path) ? flags : flags.union(.nonBlocking))
        try requireOwn(file.fd, path) { $0.isRegular }
        return file
    }

    /// Finds a directory that belongs to root or to the caller, and that others cannot write to or put another in the place
    /// of.
    package static func ownDirectory(_ path: BytePath) throws(PlaceError) -> OwnedDescriptor {
        let directory = try directory(path, .closedToOthers)
        try requireOwn(directory.fd, path) { _ in true }
        return directory
    }

    private static func requireOwn(
        _ fd: FileDescriptor, _ path: BytePath, isRight: (FileStatus) -> Bool
    ) throws(PlaceError) {
        let reason: PlaceError.Reason
        do throws(Errno) {
            let status = try fd.status()
            if !isRight(status) {
                reason = .noRegularFile
            } else if status.uid != 0, status.uid != geteuid() {
                reason = .ownedByAnother(uid: status.uid)
            } else if try fd.isWritableByOthers(status) {
                reason = .writableByOthers(permissions: status.permissions)
            } else {
                return
            }
        } catch {
            throw failed("look at", path, error)
        }
        throw PlaceError(path: path, reason: reason)
    }

    private init(_ path: BytePath, _ trust: Trust) throws(PlaceError) {
        self.trust = trust
        shown = path.isAbsolute ? "/" : .empty
        pending = path.components.reversed()
        do throws(Errno) {
            current = SharedDescriptor(
                try FileDescriptor.workingDirectory.open(
                    path.isAbsolute ? "/" : .current, [.directory, .path]))
        } catch {
            throw Self.failed("open the directory", shown, error)
        }
        if !path.isAbsolute { try checkAboveCurrent() }
    }

    private static func failed(_ operation: String, _ path: BytePath, _ errno: Errno) -> PlaceError {
        PlaceError(path: path, reason: .system(operation: operation, errno))
    }

    private func attempt<T: ~Copyable>(
        _ operation: String, _ path: BytePath, _ body: (FileDescriptor) throws(Errno) -> T
    ) throws(PlaceError) -> T {
        do throws(Errno) { return try body(current.fd) } catch { throw Self.failed(operation, path, error) }
    }

    private mutating func directory() throws(PlaceError) -> OwnedDescriptor {
        if let name = try walk() {
            throw Self.failed("open the directory", shown.appending(name), .notDirectory)
        }
        return try attempt("open the directory", shown) { (current) throws(Errno) in
            try current.open(.current, [.directory])
        }
    }

    /// Goes to the end of the way. Returns the last component, if it is no directory; `current` is then where it lies.
    private mutating func walk() throws(PlaceError) -> BytePath? {
        while let name = pending.popLast() {
            if name == .current { continue }
            try checkCurrent()
            if name == ".." {
                try enter(name)
                continue
            }
            let path = shown.appending(name)
            let status = try attempt("look at", path) { (current) throws(Errno) in
                try current.statusIfPresent(of: name)
            }
            switch status?.type {
            case .directory: try enter(name)
            case .symbolicLink:
                try follow(name, owner: status?.uid ?? 0)
                if isMagic { return name }
            case nil where status == nil:
                guard makes else { throw Self.failed("open", path, .noSuchFileOrDirectory) }
                let parent = current
                try attempt("make the directory", path) { (current) throws(Errno) in
                    do throws(Errno) { try current.makeDirectory(name, mode: 0o755) } catch .fileExists {
                        return
                    }
                    made.add(name, in: parent)
                }
                // Somebody else may have made something meanwhile: looked at like all that was there.
                pending.append(name)
            default:
                guard pending.isEmpty else { throw Self.failed("open", path, .notDirectory) }
                return name
            }
        }
        try checkCurrent()
        return nil
    }

    private mutating func enter(_ name: BytePath) throws(PlaceError) {
        let path = shown.appending(name)
        current = SharedDescriptor(
            try attempt("open the directory", path) { (current) throws(Errno) in
                try current.open(name, [.directory, .path, .noFollow])
            })
        shown = path
    }

    private mutating func follow(_ name: BytePath, owner: UInt32) throws(PlaceError) {
        let path = shown.appending(name)
        links += 1
        if links > Self.linkLimit { throw Self.failed("open", path, .tooManySymbolicLinkLevels) }
        let (fileSystem, directory) = try attempt("look at", path) { (current) throws(Errno) in
            (try current.fileSystem(), try current.status())
        }
        if fileSystem.magic == Self.procMagic {
            guard
                let opened = try? current.fd.open(name, [.directory, .path])
            else {
                guard pending.isEmpty else { throw Self.failed("open", path, .notDirectory) }
                isMagic = true
                return
            }
            current = SharedDescriptor(opened)
            shown = path
            return try checkAboveCurrent()
        }
        if trust == .closedToOthers, owner != 0, owner != geteuid() {
            // In a user name space all users that it does not have read as one and the same (user_namespaces(7), "Unmapped user and
            // group IDs"): equal owners then say nothing, unless nobody but the directory's owner can have made the link.
            let isUnknown = !AnotherUser(owner).isKnown
            let isOpen = try attempt("look at", path) { (current) throws(Errno) in
                isUnknown ? try current.isWritableByOthers(directory) : false
            }
            guard owner == directory.uid, !isOpen else {
                throw PlaceError(path: path, reason: .linkOfAnother(uid: owner))
            }
        }
        let target = try attempt("read the symbolic link", path) { (current) throws(Errno) in
            try current.readSymbolicLink(name)
        }
        if target.isAbsolute {
            current = SharedDescriptor(
                try attempt("open the directory", "/") { (current) throws(Errno) in
                    try current.open("/", [.directory, .path])
                })
            shown = "/"
        }
        pending += target.components.reversed()
    }

    private func checkCurrent() throws(PlaceError) {
        if trust == .closedToOthers { try Self.check(current.fd, shown.isEmpty ? .current : shown) }
    }

    /// Checks the directories above the current one, which no component named.
    private func checkAboveCurrent() throws(PlaceError) {
        guard trust == .closedToOthers else { return }
        var here = current
        while let above = try Self.parent(of: here, shown) {
            let path = (try? above.fd.path()) ?? ".."
            try Self.check(above.fd, path)
            here = above
        }
    }

    /// Nil for the root directory.
    private static func parent(of directory: SharedDescriptor, _ path: BytePath) throws(PlaceError)
        -> SharedDescriptor?
    {
        do throws(Errno) {
            let above = SharedDescriptor(try directory.fd.open("..", [.directory, .path]))
            let (lower, upper) = (try directory.fd.status(), try above.fd.status())
            return lower.device == upper.device && lower.inode == upper.inode ? nil : above
        } catch {
            throw failed("look above", path.isEmpty ? .current : path, error)
        }
    }

    private static func check(_ directory: FileDescriptor, _ path: BytePath) throws(PlaceError) {
        let permissions: UInt32
        do throws(Errno) {
            let status = try directory.status()
            if status.mode & 0o1000 != 0 { return }
            guard try directory.isWritableByOthers(status) else { return }
            permissions = status.permissions
        } catch {
            throw failed("look at", path, error)
        }
        throw PlaceError(path: path, reason: .openToOthers(permissions: permissions))
    }
}

extension FileDescriptor {
    /// Whether users other than root, its owner and the caller may write to this file or directory, whose status is `status`.
    /// The group of root and the caller's own are taken for ones that nobody else is in, as many hosts have it.
    package func isWritableByOthers(_ status: FileStatus) throws(Errno) -> Bool {
        if status.mode & 0o002 != 0 { return true }
        if status.mode & 0o020 == 0 { return false }
        if status.gid != 0, status.gid != getegid() { return true }
        // With an access control list, the bits of the group are the most that it gives to anybody (acl(5)).
        guard let opened = try? reopened([.readOnly, .nonBlocking]) else {
            return true
        }
        do throws(Errno) {
            return try opened.fd.extendedAttribute("system.posix_acl_access") != nil
        } catch .notSupported {
            return false
        }
    }
}
