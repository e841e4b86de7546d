import Glibc
import VarveLayers
import VarveSystem
import SystemPackage

/// A directory beside a bundle, in which it is built or deleted. It goes with this value, and what a dead process left goes
/// with the next one that is made there: whoever is at work holds a lock on it (flock(2)).
///
/// Nobody else can enter it (mode 0700), and what is in it is reached and moved relative to its descriptor: whatever others
/// do to its name, what is put in place is what was built here.
struct WorkDirectory: ~Copyable {
    private static let prefix: BytePath = ".varve-work-"

    private let name: BytePath
    let opened: SharedDescriptor
    private let parent: SharedDescriptor
    private var isDone = false

    /// Makes one in `parent`, with mode 0700.
    ///
    /// - Parameter cancellation: ends the deletion of what dead processes left, which is then left again.
    init(in parent: SharedDescriptor, path: BytePath, cancellation: Cancellation) throws(VarveError) {
        Self.clean(parent, cancellation)
        try cancellation.check()
        for _ in 0..<100 {
            let name = Self.prefix.appendingBytes(BytePath(randomName()))
            let opened = try attempt("make a work directory beside", path) {
                () throws(Errno) -> SharedDescriptor? in
                try parent.fd.makeDirectory(name, mode: 0o700)
                racePoint("work-directory")
                guard let opened = try? parent.fd.openDirectory(name) else { return nil }
                let shared = SharedDescriptor(opened)
                // Somebody who cleans up may hold it just now, and take it away, or another user may have put another in its
                // place: another name then.
                guard try shared.fd.tryLock(.exclusive), try Self.isOwn(shared.fd),
                    try shared.fd.entries().isEmpty, try parent.fd.statusIfPresent(of: name) != nil
                else { return nil }
                return shared
            }
            guard let opened else { continue }
            self.name = name
            self.opened = opened
            self.parent = parent
            return
        }
        throw VarveError(
            .failed, "cannot make a work directory beside \"\(path)\"", subject: path, remedy: .tryAgain)
    }

    /// Whether a directory is one that only this user can have made and can enter.
    private static func isOwn(_ directory: FileDescriptor) throws(Errno) -> Bool {
        let status = try directory.status()
        return status.uid == geteuid() && status.mode & 0o077 == 0
    }

    /// Its absolute path, for programs that are told paths.
    func path() throws(VarveError) -> BytePath {
        try attempt("find the path of", "a work directory") { () throws(Errno) in try opened.fd.path() }
    }

    /// Makes a directory in it, whatever the umask is, and whatever access control list the directory beside has for what is made there.
    func makeDirectory(_ name: BytePath, mode: UInt32) throws(Errno) -> SharedDescriptor {
        try opened.fd.makeDirectory(name, mode: mode)
        let made = SharedDescriptor(try opened.fd.openDirectory(name))
        // Not of the group of a directory with the set-group-ID bit.
        try made.fd.makeOwn()
        try made.fd.removeAccessControlLists()
        try made.fd.changeMode(to: mode)
        return made
    }

    /// Renames what has `name` in it to where it is seen. It is then whoever's place that is.
    func move(
        _ name: BytePath, to target: FileDescriptor, _ newName: BytePath, replacing: Bool = false
    ) throws(Errno) {
        try opened.fd.rename(name, to: target, newName, replacing: replacing)
    }

    /// Deletes it with all that is in it.
    mutating func remove(_ path: BytePath) throws {
        isDone = true
        try Self.remove(name, opened.fd, in: parent.fd, path: path)
    }

    /// Leaves it and what is in it to the next command that makes one in the same directory.
    mutating func leave() { isDone = true }

    deinit {
        if !isDone { try? Self.remove(name, opened.fd, in: parent.fd, path: name) }
    }

    /// Only what is empty goes by its name: something else that has it stays.
    private static func remove(
        _ name: BytePath, _ opened: FileDescriptor, in parent: FileDescriptor, path: BytePath,
        _ cancellation: Cancellation? = nil
    ) throws {
        try TreeRemoval.empty(opened, path: path, cancellation: cancellation)
        try attempt("remove the directory", name) { () throws(Errno) in try parent.removeDirectory(name) }
    }

    /// Whether nothing lies in a work directory that was moved there by mistake (`MovedAside`).
    private static func holdsOnlyOwn(_ directory: FileDescriptor) throws(Errno) -> Bool {
        for entry in try directory.entries() {
            guard let number = MovedAside.number(in: entry.name) else { continue }
            if try directory.status(of: entry.name).inode != number { return false }
        }
        return true
    }

    /// Deletes what processes of this user that are gone left in a directory that nobody else can change.
    static func clean(in path: BytePath, _ cancellation: Cancellation) {
        if let opened = try? Place.ownDirectory(path) { clean(SharedDescriptor(opened), cancellation) }
    }

    /// Deletes what processes of this user that are gone left in `parent`, if nobody but root and this user can have named it so: the
    /// owner of a directory can give the name to any other directory that lies in theirs.
    private static func clean(_ parent: SharedDescriptor, _ cancellation: Cancellation) {
        guard let status = try? parent.fd.status(), status.uid == 0 || status.uid == geteuid(),
            status.mode & 0o1000 != 0 || (try? parent.fd.isWritableByOthers(status)) == false
        else { return }
        guard let entries = try? parent.fd.entries() else { return }
        for entry in entries where entry.name.hasPrefix(prefix.bytes) {
            guard let opened = try? parent.fd.openDirectory(entry.name),
                (try? isOwn(opened.fd)) == true, (try? opened.fd.tryLock(.exclusive)) == true,
                (try? holdsOnlyOwn(opened.fd)) == true
            else { continue }
            try? remove(entry.name, opened.fd, in: parent.fd, path: entry.name, cancellation)
        }
    }
}
