import Glibc
package import SystemPackage

/// Why a place is not used: what stands on the way to it, and what is wrong with that.
package struct PlaceError: Error, Sendable, CustomStringConvertible {
    package enum Reason: Sendable, Hashable {
        /// Users other than its owner may write to a directory on the way, which has no sticky bit: they could put something
        /// else in the place of what is in it.
        case openToOthers(permissions: UInt32)
        /// A symbolic link on the way was made by another user, and leads to what need not be theirs.
        case linkOfAnother(uid: UInt32)
        /// A symbolic link on the way lies where others may write: anybody who gets hold of such a link can have moved it there.
        case linkAmongOthers
        /// A directory on the way belongs to a user who is neither root nor the caller, and who can put something else in the place
        /// of what is in it.
        case directoryOfAnother(uid: UInt32)
        /// It belongs to a user who is neither root nor the caller.
        case ownedByAnother(uid: UInt32)
        /// Others may write to the file or directory itself.
        case writableByOthers(permissions: UInt32)
        /// It is a device, a FIFO, a socket or a directory.
        case noRegularFile
        /// It lies where others may make names: whoever made this one, by link(2) or rename(2), need not own the file.
        case isAmongOthers
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
        case .linkAmongOthers:
            "the symbolic link \"\(path)\" lies in a directory that others may write to, who can have put it there"
        case .ownedByAnother(let uid):
            "\"\(path)\" belongs to \(AnotherUser(uid)), who can change it"
        case .directoryOfAnother(let uid):
            "the directory \"\(path)\" belongs to \(AnotherUser(uid)), who could put something else in the place of what is in it"
        case .writableByOthers(let permissions):
            "others may write to \"\(path)\" (mode \(String(permissions, radix: 8)))"
        case .noRegularFile: "\"\(path)\" is not a regular file"
        case .isAmongOthers:
            "\"\(path)\" is in a directory that others may write to, who can have put it there"
        case .system(let operation, let errno): "cannot \(operation) \"\(path)\": \(errno)"
        }
    }

    package var remedy: VarveError.Remedy? {
        switch reason {
        case .openToOthers: .closeToOthers(path, orSticky: true)
        case .linkOfAnother, .linkAmongOthers: .name("what it leads to")
        case .ownedByAnother: .changeOwner(path)
        case .writableByOthers: .closeToOthers(path, orSticky: false)
        case .directoryOfAnother, .isAmongOthers: .moveToOwnDirectory
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
/// What is asked of the way holds also for the directories to which symbolic links lead, and for those above the working directory.
/// What was found is open (`O_PATH`) before it is checked, so what was checked is what is used.
package struct Place {
    /// What is asked of the way.
    package enum Trust: Sendable {
        /// No other user leads it astray by a symbolic link. A link of a user who is neither root nor the caller counts only in a
        /// directory of that user's own, and only if what is found in the end is theirs as well: they can do with that what they
        /// like anyway. One of root's or the caller's in a directory of another user's counts as theirs: who owns a link is not
        /// asked when it is moved (rename(2)), and images have links of root's. So it does not count where others may write.
        case safeLinks
        /// In addition, a directory that others may write to is refused, unless it has the sticky bit: with it, as in /tmp, nobody
        /// can move what is another's. The owners of directories may still put something of their own in the place of what they
        /// hold.
        case closedToOthers
        /// Nobody but root and the caller can change anything of it: each directory and link on it belongs to one of them, and
        /// others may write to none, except to directories with the sticky bit, in which no link and no file counts: a directory is
        /// moved to another one only by who may write to it (`vfs_rename`, fs/namei.c). So a path that was checked can be used again by
        /// name: nobody who is not trusted can have changed what it leads to.
        case own
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
    /// The symbolic links of other users that were followed.
    private var linksOfOthers: [(owner: UInt32, path: BytePath)] = []
    /// What is wrong with the way, where that is said only if there is something at its end.
    private var fault: PlaceError?
    /// Links of procfs to open files are followed.
    private var followsMagicLinks = true
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

    /// Finds whatever is no directory; it is not opened (`O_PATH`), so that it can be looked at before.
    package static func handle(_ path: BytePath, _ trust: Trust) throws(PlaceError) -> OwnedDescriptor {
        var place = try Place(path, trust)
        return try place.handle(path)
    }

    /// Finds what is no directory from a directory on; links of procfs to open files are not followed.
    ///
    /// - Parameter trust: of what is above the directory nothing is asked.
    package static func handle(
        _ path: BytePath, in directory: SharedDescriptor, _ trust: Trust
    ) throws(PlaceError) -> OwnedDescriptor {
        var place = Place(path, trust, from: directory)
        place.followsMagicLinks = false
        return try place.handle(path)
    }

    /// Finds a regular file that says what this process is to do, or that it is to run, and opens it: only root and the caller
    /// can change the way to it and the file.
    ///
    /// - Parameter amongOthers: it may lie in a directory that others may write to: root gives the path of what it made there itself.
    package static func ownFile(
        _ path: BytePath, _ flags: OpenFlags, amongOthers: Bool = false
    ) throws(PlaceError) -> OwnedDescriptor {
        var place = try Place(path, .own)
        let file = try place.handle(path)
        let isAmongOthers = try place.attempt("look at", path) { (directory) throws(Errno) in
            try directory.isWritableByOthers(try directory.status())
        }
        try requireOwn(file.fd, path) { status in
            if !status.isRegular { return .noRegularFile }
            return isAmongOthers && (!amongOthers || status.linkCount > 1) ? .isAmongOthers : nil
        }
        if flags.contains(.path) { return file }
        do throws(Errno) { return try file.fd.reopened(flags.union(.nonBlocking)) } catch {
            throw failed("open", path, error)
        }
    }

    /// Finds a directory that belongs to root or to the caller, and that only they can write to or put another in the place of.
    package static func ownDirectory(_ path: BytePath) throws(PlaceError) -> OwnedDescriptor {
        let directory = try directory(path, .own)
        try requireOwn(directory.fd, path) { _ in nil }
        return directory
    }

    private static func requireOwn(
        _ fd: FileDescriptor, _ path: BytePath, fault: (FileStatus) -> PlaceError.Reason?
    ) throws(PlaceError) {
        let reason: PlaceError.Reason
        do throws(Errno) {
            let status = try fd.status()
            if let fault = fault(status) {
                reason = fault
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

    /// Whether a user cannot be told from others: in a user name space, all users that it does not have read as one and the same
    /// (user_namespaces(7), "Unmapped user and group IDs").
    private static func isUnknown(_ user: UInt32) -> Bool {
        !AnotherUser(user).isKnown
    }

    /// The same of the owner of a directory, also where the name space has a user of that number as well.
    private static func isUnknown(_ user: UInt32, of directory: FileDescriptor) -> Bool {
        isUnknown(user) || AnotherUser(user).isShownFor(directory)
    }

    private init(_ path: BytePath, _ trust: Trust, from directory: SharedDescriptor) {
        self.trust = trust
        shown = .empty
        pending = path.components.reversed()
        current = directory
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
        do throws(PlaceError) {
            if let name = try walk() {
                throw Self.failed("open the directory", shown.appending(name), .notDirectory)
            }
            let found = try attempt("open the directory", shown) { (current) throws(Errno) in
                try current.open(.current, [.directory])
            }
            try checkEnd(found.fd, shown)
            return found
        } catch {
            throw saidOfLinks(error)
        }
    }

    /// What is at the end, where it is no directory.
    private mutating func handle(_ path: BytePath) throws(PlaceError) -> OwnedDescriptor {
        do throws(PlaceError) {
            guard let name = try walk() else { throw Self.failed("open", path, .isDirectory) }
            let found = try attempt("open", path) { [isMagic] (current) throws(Errno) in
                try current.open(name, isMagic ? [.path] : [.path, .noFollow])
            }
            let type = try attempt("look at", path) { (_) throws(Errno) in try found.fd.status().type }
            // Put there since it was looked at.
            if type == .symbolicLink { throw Self.failed("open", path, .tooManySymbolicLinkLevels) }
            if type == .directory { throw Self.failed("open", path, .isDirectory) }
            try checkEnd(found.fd, path)
            return found
        } catch {
            throw saidOfLinks(error)
        }
    }

    /// What was found at the end must belong to whoever's links led to it.
    private func checkEnd(_ found: FileDescriptor, _ path: BytePath) throws(PlaceError) {
        if let fault { throw fault }
        if linksOfOthers.isEmpty { return }
        let owner: UInt32
        do throws(Errno) { owner = try found.status().uid } catch {
            throw Self.failed("look at", path, error)
        }
        for link in linksOfOthers where link.owner != owner {
            throw PlaceError(path: link.path, reason: .linkOfAnother(uid: link.owner))
        }
    }

    /// Where a link of another user leads, nothing is said of what is there, not even that nothing is.
    private func saidOfLinks(_ error: PlaceError) -> PlaceError {
        guard error.errno != nil, let link = linksOfOthers.first else { return error }
        return PlaceError(path: link.path, reason: .linkOfAnother(uid: link.owner))
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
            if let opened = try? current.fd.open(name, [.directory, .path, .noFollow]) {
                current = SharedDescriptor(opened)
                shown = path
                continue
            }
            let status = try attempt("look at", path) { (current) throws(Errno) in
                try current.statusIfPresent(of: name)
            }
            switch status?.type {
            case .directory: try enter(name)
            case .symbolicLink:
                racePoint("follow-link")
                try follow(name)
                if isMagic { return name }
            case nil where status == nil:
                guard makes else { throw Self.failed("open", path, .noSuchFileOrDirectory) }
                let parent = current
                try checkEnd(parent.fd, shown)
                let isMade = try attempt("make the directory", path) { (current) throws(Errno) in
                    do throws(Errno) { try current.makeDirectory(name, mode: 0o755) } catch .fileExists {
                        return false
                    }
                    return true
                }
                if isMade {
                    made.add(name, in: parent)
                    // The links led to a directory of their owner's; what is made in it is the caller's.
                    linksOfOthers = []
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

    private mutating func follow(_ name: BytePath) throws(PlaceError) {
        let path = shown.appending(name)
        links += 1
        if links > Self.linkLimit { throw Self.failed("open", path, .tooManySymbolicLinkLevels) }
        let (fileSystem, directory) = try attempt("look at", path) { (current) throws(Errno) in
            (try current.fileSystem(), try current.status())
        }
        if fileSystem.magic == Self.procMagic {
            guard followsMagicLinks else {
                throw Self.failed("open", path, .tooManySymbolicLinkLevels)
            }
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
        // The link that is checked is the one that is read: whoever may write to the directory can put another in its place.
        let link = try attempt("open the symbolic link", path) { (current) throws(Errno) in
            try current.open(name, [.path, .noFollow])
        }
        let owner = try attempt("look at", path) { (_) throws(Errno) in try link.fd.status().uid }
        try checkLink(path, owner: owner, in: directory)
        racePoint("read-link")
        let target = try attempt("read the symbolic link", path) { (_) throws(Errno) in
            try link.fd.readSymbolicLink(.empty)
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

    /// Checks a symbolic link in the current directory, which is `directory`.
    private mutating func checkLink(_ path: BytePath, owner: UInt32, in directory: FileStatus)
        throws(PlaceError)
    {
        var owner = owner
        if owner == 0 || owner == geteuid() {
            let isOpen = try attempt("look at", path) { (current) throws(Errno) in
                try current.isWritableByOthers(directory)
            }
            if isOpen {
                // Images of root's have links of root's; of those of other callers only they make any, as fs.protected_symlinks has it.
                if owner == geteuid(), !Privileges.isRoot { return }
                return try refuse(PlaceError(path: path, reason: .linkAmongOthers))
            }
            let keeper = directory.uid
            if keeper == 0 || keeper == geteuid() || Self.isUnknown(keeper, of: current.fd) { return }
            owner = keeper
        }
        // Equal owners that are unknown say nothing, unless nobody but the directory's owner can have made the link.
        if Self.isUnknown(owner), owner == directory.uid {
            let isOpen = try attempt("look at", path) { (current) throws(Errno) in
                try current.isWritableByOthers(directory)
            }
            if !isOpen { return }
        }
        let error = PlaceError(path: path, reason: .linkOfAnother(uid: owner))
        if trust == .own { return try refuse(error) }
        guard owner == directory.uid, !Self.isUnknown(owner) else { throw error }
        linksOfOthers.append((owner, path))
    }

    /// Refuses the way now, or at its end if there is something.
    private mutating func refuse(_ error: PlaceError) throws(PlaceError) {
        // Whether there is a file need not be said to whoever has none.
        guard trust == .own, !makes else { throw error }
        if fault == nil { fault = error }
    }

    private mutating func checkCurrent() throws(PlaceError) {
        let shown = shown
        try check(current.fd, nil, shown.isEmpty ? .current : shown)
    }

    /// Checks the directories above the current one, which no component named.
    private mutating func checkAboveCurrent() throws(PlaceError) {
        guard trust == .closedToOthers || trust == .own else { return }
        var (directory, status): (SharedDescriptor, FileStatus?) = (current, nil)
        while true {
            let (above, upper): (SharedDescriptor, FileStatus)
            do throws(Errno) {
                above = SharedDescriptor(try directory.fd.open("..", [.directory, .path]))
                upper = try above.fd.status()
                let lower = if let status { status } else { try directory.fd.status() }
                // The root directory lies in itself.
                if upper.isSameFile(as: lower) { return }
            } catch {
                throw Self.failed("look above", shown.isEmpty ? .current : shown, error)
            }
            try check(above.fd, upper, (try? above.fd.path()) ?? "..")
            (directory, status) = (above, upper)
        }
    }

    private mutating func check(
        _ directory: FileDescriptor, _ known: FileStatus?, _ path: @autoclosure () -> BytePath
    ) throws(PlaceError) {
        guard trust == .closedToOthers || trust == .own else { return }
        let reason: PlaceError.Reason
        do throws(Errno) {
            let status = if let known { known } else { try directory.status() }
            let isOwn =
                status.uid == 0 || status.uid == geteuid() || Self.isUnknown(status.uid, of: directory)
            if trust == .own, !isOwn {
                reason = .directoryOfAnother(uid: status.uid)
            } else if status.mode & 0o1000 == 0, try directory.isWritableByOthers(status) {
                reason = .openToOthers(permissions: status.permissions)
            } else {
                return
            }
        } catch {
            throw Self.failed("look at", path(), error)
        }
        try refuse(PlaceError(path: path(), reason: reason))
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
