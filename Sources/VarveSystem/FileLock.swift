import Glibc
package import SystemPackage

/// An flock(2) on a file of its own, held until the value goes away. The kernel drops it when the process dies.
///
/// A lock can be one of many in its directory that all share a lock of the directory itself: where there is no room for
/// their files, `everything` takes the place of all of them.
package struct FileLock: ~Copyable {
    private let file: OwnedDescriptor
    private let directory: SharedDescriptor
    private let name: BytePath
    private let shared: HeldLock?
    private var isLeft = false

    private init(
        file: consuming OwnedDescriptor, directory: SharedDescriptor, name: BytePath, shared: HeldLock?
    ) {
        self.file = file
        self.directory = directory
        self.name = name
        self.shared = shared
    }

    /// Takes the exclusive lock `name` in `directory`, making its file if there is none; nil when somebody holds it.
    ///
    /// - Parameters:
    ///   - isShared: nil also when somebody holds `everything` in `directory`.
    ///   - isForWriters: whoever may write to `directory` may take the lock after this one, also if it belongs to another user, and this process
    ///     is killed.
    package static func tryExclusive(
        _ name: BytePath, in directory: SharedDescriptor, isShared: Bool = false, isForWriters: Bool = false
    ) throws(Errno) -> FileLock? {
        var shared: HeldLock?
        if isShared {
            shared = try lock(directory, .shared)
            if shared == nil { return nil }
        }
        let owner = isForWriters ? try directory.fd.status() : nil
        while true {
            let file = try directory.fd.openToLock(name, of: owner)
            if flock(file.fd.rawValue, LOCK_EX | LOCK_NB) != 0 {
                guard errno == EWOULDBLOCK || errno == EINTR else { throw Errno(rawValue: errno) }
                return nil
            }
            // The last holder removed the file under its lock: the lock then protects nothing that others can see.
            let mine = try file.fd.status()
            if let current = try directory.fd.statusIfPresent(of: name), current.inode == mine.inode {
                return FileLock(file: file, directory: directory, name: name, shared: shared)
            }
        }
    }

    /// Takes the lock, and waits while somebody else holds it. `whileWaiting` is called about 20 times a second meanwhile, so that a
    /// wait can be shown and be given up; what it throws ends the wait.
    package static func exclusive(
        _ name: BytePath, in directory: SharedDescriptor, isShared: Bool = false,
        whileWaiting: () throws -> Void
    ) throws -> FileLock {
        while true {
            if let lock = try tryExclusive(name, in: directory, isShared: isShared) { return lock }
            try whileWaiting()
            usleep(50_000)
        }
    }

    /// Takes the exclusive lock, waiting for as long as it takes.
    /// - Throws: `Errno.canceled` if the wait was given up.
    package static func exclusive(
        _ name: BytePath, in directory: SharedDescriptor, isForWriters: Bool = false,
        _ cancellation: Cancellation
    ) throws(Errno) -> FileLock {
        while true {
            if let lock = try tryExclusive(name, in: directory, isForWriters: isForWriters) { return lock }
            try cancellation.pause(microseconds: 5_000)
        }
    }

    /// Takes the place of all shared locks in `directory` at once, without making a file; nil when somebody holds one.
    package static func everything(in directory: SharedDescriptor) throws(Errno) -> HeldLock? {
        try lock(directory, .exclusive)
    }

    /// On an open description of its own: one and the same has one lock.
    private static func lock(
        _ directory: SharedDescriptor, _ kind: FileDescriptor.LockKind
    ) throws(Errno) -> HeldLock? {
        let opened = SharedDescriptor(try directory.fd.openDirectory(.current))
        return try opened.fd.tryLock(kind) ? HeldLock(on: opened) : nil
    }

    /// From now on the file stays when the lock is given back: somebody is to find it.
    package mutating func leave() { isLeft = true }

    deinit {
        // Removed while still locked; whoever waits on this file sees that its name is gone and takes a new one.
        if !isLeft { try? directory.fd.unlink(name) }
        // Not left to close(2): a child process forked meanwhile has the descriptor until it executes its program.
        _ = flock(file.fd.rawValue, LOCK_UN)
    }
}

extension FileDescriptor {
    /// Opens the regular file `name` in this directory for reading and writing, as flock(2) needs it on some file systems, and makes
    /// it (mode 0600) if there is none. Whatever else has the name is not opened: the owner of the directory may be another user,
    /// and the open alone of a device does something to some, that of a FIFO waits. Nor is a file that has another name, which may
    /// be a lock of somebody else's.
    ///
    /// - Parameter directory: what this directory is, to make a file that whoever may write to it can open, and nobody else; nil for one that only
    ///   the caller can open.
    /// - Throws: `notRegularFile`, `hasOtherNames`.
    func openToLock(_ name: BytePath, of directory: FileStatus? = nil) throws(Errno) -> OwnedDescriptor {
        while true {
            let found: OwnedDescriptor
            do throws(Errno) {
                found = try open(name, [.path, .noFollow])
            } catch .noSuchFileOrDirectory {
                let made: OwnedDescriptor
                do throws(Errno) {
                    made = try open(name, [.readWrite, .create, .exclusive, .noFollow], mode: 0o600)
                } catch .fileExists {
                    continue
                }
                guard let directory else { return made }
                if geteuid() == 0, directory.uid != 0 || directory.gid != getegid() {
                    // Root of a user name space may not give it to everybody.
                    try? made.fd.changeOwner(uid: directory.uid, gid: directory.gid)
                }
                // Whatever the umask is.
                let writers = directory.mode & 0o222
                try made.fd.changeMode(to: writers | writers << 1)
                return made
            }
            let status = try found.fd.status()
            guard status.isRegular else { throw .notRegularFile }
            guard status.linkCount <= 1 else { throw .hasOtherNames }
            do throws(Errno) {
                return try found.fd.reopened([.readWrite, .nonBlocking])
            } catch .readOnlyFileSystem {
                // Such a mount of what is locked by way of another one.
                return try found.fd.reopened([.readOnly, .nonBlocking])
            }
        }
    }
}
