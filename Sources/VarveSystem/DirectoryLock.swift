import Glibc
package import SystemPackage

/// The lock of a directory, which keeps commands that work in it apart.
///
/// flock(2) asks for no more than a descriptor, so whoever may read a directory could keep a lock on it for as long as they like. A file in it is
/// locked instead, which only those can open who may write to the directory: they could do anything in it anyway. The file is there for as long as
/// somebody holds the lock. Whoever may read the directory now and whoever may later make no difference: permissions can change meanwhile.
///
/// The directory's own lock is taken as well, if it can be had, and is all that those have who may not write to the directory: it tells them
/// that somebody is at work, and keeps out nobody but them.
package enum DirectoryLock {
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
        _ kind: FileDescriptor.LockKind, on opened: SharedDescriptor, file name: BytePath
    ) throws(Errno) -> HeldLock? {
        try take(kind, opened, name, attempts: patience)
    }

    /// Takes the lock, waiting for as long as it takes.
    /// - Throws: `Errno.canceled` if the wait was given up.
    package static func wait(
        _ kind: FileDescriptor.LockKind, on opened: SharedDescriptor, file name: BytePath,
        _ cancellation: Cancellation
    ) throws(Errno) -> HeldLock {
        while true {
            if let lock = try take(kind, opened, name, attempts: 1) { return lock }
            try cancellation.pause(microseconds: 2_000)
        }
    }

    /// Milliseconds for which a lock that excludes the wanted one is looked at again: the last one who had a shared lock has an exclusive one
    /// while they remove the file.
    private static let patience = 100

    private static func take(
        _ kind: FileDescriptor.LockKind, _ opened: SharedDescriptor, _ name: BytePath, attempts: Int
    ) throws(Errno) -> HeldLock? {
        let status = try opened.fd.status()
        var file = File(directory: opened, name: name)
        var outcome = try lock(file, kind, status, attempts)
        let nameOfRoot = BytePath("\(status.device)-\(status.inode)")
        var needsOwn = false
        if case .unavailable = outcome, let place = placeOfRoot(makes: true) {
            file = File(directory: place, name: nameOfRoot)
            outcome = try lock(file, kind, nil, attempts)
            needsOwn = !status.isWrittenByRootAlone
        } else if case .held(let locked) = outcome, let place = placeOfRoot(makes: false),
            try isLocked(nameOfRoot, in: place.fd, against: kind)
        {
            // Somebody came when no file could be made.
            _ = HeldLock(on: locked, of: file, beside: nil)
            return nil
        }
        if case .busy = outcome { return nil }
        let own = try opened.fd.tryLock(kind) ? HeldLock(on: opened) : nil
        guard case .held(let locked) = outcome else { return own }
        // Made in any case: what goes with it takes the file away.
        let lock = HeldLock(on: locked, of: file, beside: own)
        return needsOwn && own == nil ? nil : lock
    }

    private static func isLocked(
        _ name: BytePath, in place: FileDescriptor, against kind: FileDescriptor.LockKind
    ) throws(Errno) -> Bool {
        do throws(Errno) {
            let file = try place.open(name, [.readOnly, .noFollow])
            return try !file.fd.tryLock(kind)
        } catch .noSuchFileOrDirectory {
            return false
        }
    }

    /// Where root has the lock of a directory in which no file can be made: one on a file system that is full or read-only, or with flags of
    /// chattr(1). Nil for others, and where there is no such place.
    private static func placeOfRoot(makes: Bool) -> SharedDescriptor? {
        guard Privileges.isRoot, let run = try? FileDescriptor.workingDirectory.openDirectory("/run") else {
            return nil
        }
        // It may be there.
        if makes { try? run.fd.makeDirectory("varve-locks", mode: 0o700) }
        guard let place = try? run.fd.openDirectory("varve-locks"),
            (try? place.fd.status())?.isWrittenByRootAlone == true
        else { return nil }
        return SharedDescriptor(place)
    }

    private enum Outcome {
        case held(SharedDescriptor)
        /// Somebody else has it.
        case busy
        /// The file can be neither opened nor made: the caller may not write to the directory, or nobody can.
        case unavailable
    }

    private static func lock(
        _ file: File, _ kind: FileDescriptor.LockKind, _ directory: FileStatus?, _ attempts: Int
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
    /// Whether nobody but root may write to this directory. With an access control list, the bits of the group are the most that it gives to
    /// anybody (acl(5)).
    fileprivate var isWrittenByRootAlone: Bool { uid == 0 && mode & 0o022 == 0 }
}
