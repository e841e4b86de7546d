import Glibc
package import SystemPackage

/// A lock of flock(2) on an open file or directory, given back when its last owner goes away: at once, also where a child
/// process that was forked a moment ago has the descriptor until it executes its program.
package final class HeldLock: Sendable {
    private let descriptor: SharedDescriptor
    /// What goes with the last lock of a directory (`DirectoryLock`).
    private let file: DirectoryLock.File?
    private let beside: HeldLock?

    /// The descriptor has the lock already.
    package convenience init(on descriptor: SharedDescriptor) {
        self.init(on: descriptor, of: nil, beside: nil)
    }

    init(on descriptor: SharedDescriptor, of file: DirectoryLock.File?, beside: HeldLock?) {
        self.descriptor = descriptor
        self.file = file
        self.beside = beside
    }

    deinit {
        file?.removeIfLast(descriptor.fd)
        _ = flock(descriptor.fd.rawValue, LOCK_UN)
    }
}

/// flock(2) on what is open already: the lock goes with the last descriptor of the open file, and with the process.
extension FileDescriptor {
    package enum LockKind: Sendable {
        case shared
        case exclusive
    }

    /// False when somebody holds a lock that excludes this one.
    package func tryLock(_ kind: LockKind) throws(Errno) -> Bool {
        while flock(rawValue, (kind == .shared ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0 {
            if errno == EWOULDBLOCK { return false }
            if errno != EINTR { throw Errno(rawValue: errno) }
        }
        return true
    }

    /// Takes the lock, waiting for as long as it takes.
    /// - Throws: `Errno.canceled` if the wait was given up.
    package func lock(_ kind: LockKind, _ cancellation: Cancellation) throws(Errno) {
        while try !tryLock(kind) { try cancellation.pause(microseconds: 2_000) }
    }
}
