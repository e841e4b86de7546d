import Glibc
public import SystemPackage

/// An flock(2) on a file of its own, held until the value goes away. The kernel drops it when the process dies.
public struct FileLock: ~Copyable {
    private let file: OwnedDescriptor
    private let directory: SharedDescriptor
    private let name: BytePath

    private init(file: consuming OwnedDescriptor, directory: SharedDescriptor, name: BytePath) {
        self.file = file
        self.directory = directory
        self.name = name
    }

    /// Takes the exclusive lock `name` in `directory`, making its file if there is none; nil when somebody holds it.
    public static func tryExclusive(_ name: BytePath, in directory: SharedDescriptor) throws(Errno)
        -> FileLock?
    {
        while true {
            let file = try directory.fd.open(name, [.readWrite, .create, .noFollow], mode: 0o600)
            if flock(file.fd.rawValue, LOCK_EX | LOCK_NB) != 0 {
                guard errno == EWOULDBLOCK || errno == EINTR else { throw Errno(rawValue: errno) }
                return nil
            }
            // The last holder removed the file under its lock: the lock then protects nothing that others can see.
            let mine = try file.fd.status()
            if let current = try directory.fd.statusIfPresent(of: name), current.inode == mine.inode {
                return FileLock(file: file, directory: directory, name: name)
            }
        }
    }

    /// The same, waiting for whoever holds it. `whileWaiting` is called about 20 times a second meanwhile, so that a
    /// wait can be shown and be given up; what it throws ends the wait.
    public static func exclusive(
        _ name: BytePath, in directory: SharedDescriptor, whileWaiting: () throws -> Void
    ) throws -> FileLock {
        while true {
            if let lock = try tryExclusive(name, in: directory) { return lock }
            try whileWaiting()
            usleep(50_000)
        }
    }

    /// The same, waiting for as long as it takes.
    public static func exclusive(_ name: BytePath, in directory: SharedDescriptor) throws(Errno) -> FileLock {
        while true {
            if let lock = try tryExclusive(name, in: directory) { return lock }
            usleep(5_000)
        }
    }

    deinit {
        // Removed while still locked; whoever waits on this file sees that its name is gone and takes a new one.
        try? directory.fd.unlink(name)
        // Not left to close(2): a child process forked meanwhile has the descriptor until it executes its program.
        _ = flock(file.fd.rawValue, LOCK_UN)
    }
}

extension FileDescriptor {
    /// Takes an exclusive flock(2) on this open file or directory without waiting; false when somebody holds it. It goes
    /// with the last descriptor of this opening.
    public func tryLock() throws(Errno) -> Bool {
        while flock(rawValue, LOCK_EX | LOCK_NB) != 0 {
            if errno == EWOULDBLOCK { return false }
            if errno != EINTR { throw Errno(rawValue: errno) }
        }
        return true
    }
}
