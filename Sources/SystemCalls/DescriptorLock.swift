import Glibc
public import SystemPackage

/// flock(2) on what is open already: the lock goes with the last descriptor of the open file, and with the process.
extension FileDescriptor {
    public enum LockKind: Sendable {
        case shared
        case exclusive
    }

    /// False when somebody holds a lock that excludes this one.
    public func tryLock(_ kind: LockKind) throws(Errno) -> Bool {
        while flock(rawValue, (kind == .shared ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0 {
            if errno == EWOULDBLOCK { return false }
            if errno != EINTR { throw Errno(rawValue: errno) }
        }
        return true
    }

    /// The same, waiting for as long as it takes.
    public func lock(_ kind: LockKind) throws(Errno) {
        while try !tryLock(kind) { usleep(2_000) }
    }
}
