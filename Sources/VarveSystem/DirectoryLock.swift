import Glibc
package import SystemPackage

/// The lock of a directory, which keeps commands that work in it apart.
///
/// flock(2) asks for no more than a descriptor, so whoever may read a directory could keep a lock on it for as long as they like. Where others
/// than its owner may read the directory, a file in it is locked instead, which only those can open who may write to the directory: they could
/// do anything in it anyway. The file is there for as long as somebody holds the lock. The directory's own lock is taken as well then, if it can be
/// had: for who may not write to it, and for who came before its permissions were changed.
package enum DirectoryLock {
    /// What is done if only the directory's own lock cannot be had.
    package enum OwnLock {
        /// Nothing: anybody who may read the directory can hold it.
        case ignored
        /// The whole lock is not had: for what disturbs who may only read.
        case needed
    }

    /// The file that is locked in the place of its directory.
    struct File: Sendable {
        var directory: SharedDescriptor
        var name: BytePath

        /// Removes the file under its lock, which nobody else has: whoever waits for it sees that, and makes another one.
        func removeIfLast(_ file: FileDescriptor) {
            guard (try? file.tryLock(.exclusive)) == true, (try? isNamed(file)) == true else { return }
            try? directory.fd.unlink(name)
        }

        func isNamed(_ file: FileDescriptor) throws(Errno) -> Bool {
            let mine = try file.status()
            return try directory.fd.statusIfPresent(of: name)?.isSameFile(as: mine) == true
        }
    }

    /// Takes the lock; nil when somebody holds one that excludes it.
    ///
    /// - Parameters:
    ///   - opened: an open description of the directory that has no other lock.
    ///   - name: of the file.
    package static func attempt(
        _ kind: FileDescriptor.LockKind, on opened: SharedDescriptor, file name: BytePath,
        ownLock: OwnLock = .ignored
    ) throws(Errno) -> HeldLock? {
        try take(kind, opened, File(directory: opened, name: name), ownLock, attempts: patience)
    }

    /// Takes the lock, waiting for as long as it takes.
    /// - Throws: `Errno.canceled` if the wait was given up.
    package static func wait(
        _ kind: FileDescriptor.LockKind, on opened: SharedDescriptor, file name: BytePath,
        _ cancellation: Cancellation
    ) throws(Errno) -> HeldLock {
        while true {
            let file = File(directory: opened, name: name)
            if let lock = try take(kind, opened, file, .ignored, attempts: 1) { return lock }
            try cancellation.pause(microseconds: 2_000)
        }
    }

    /// Milliseconds for which a lock that excludes the wanted one is looked at again: the last one who had a shared lock has an exclusive one
    /// while they remove the file.
    private static let patience = 100

    private static func take(
        _ kind: FileDescriptor.LockKind, _ opened: SharedDescriptor, _ file: File, _ ownLock: OwnLock,
        attempts: Int
    ) throws(Errno) -> HeldLock? {
        let status = try opened.fd.status()
        let outcome = status.isReadableByOthers ? try lock(file, kind, status, attempts) : .unavailable
        if case .busy = outcome { return nil }
        let own = try opened.fd.tryLock(kind) ? HeldLock(on: opened) : nil
        guard case .held(let locked) = outcome else { return own }
        // Made in any case: what goes with it takes the file away.
        let lock = HeldLock(on: locked, of: file, beside: own)
        return own == nil && ownLock == .needed ? nil : lock
    }

    private enum Outcome {
        case held(SharedDescriptor)
        /// Somebody else has it.
        case busy
        /// The file can be neither opened nor made: the caller may not write to the directory, or nobody can. Or none is needed.
        case unavailable
    }

    private static func lock(
        _ file: File, _ kind: FileDescriptor.LockKind, _ directory: FileStatus, _ attempts: Int
    ) throws(Errno) -> Outcome {
        for attempt in 0..<attempts {
            if attempt > 0 { usleep(1_000) }
            let opened: SharedDescriptor
            do throws(Errno) {
                opened = SharedDescriptor(try file.directory.fd.openToLock(file.name, of: directory))
            } catch {
                switch error {
                case .permissionDenied, .notPermitted, .readOnlyFileSystem, .noSpace, .diskQuotaExceeded:
                    return .unavailable
                default: throw error
                }
            }
            guard try opened.fd.tryLock(kind) else { continue }
            if try file.isNamed(opened.fd) { return .held(opened) }
        }
        return .busy
    }
}

extension FileStatus {
    /// Whether others than the owner may read it. With an access control list, the bits of the group are the most that it gives to
    /// anybody (acl(5)).
    fileprivate var isReadableByOthers: Bool { mode & 0o044 != 0 }
}
