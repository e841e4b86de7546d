import VarveBtrfs
import Glibc
import VarveLayers
import VarveSystem
import SystemPackage

/// The named locks of a store, in `locks/`: one for each chain that is published or deleted, one for each subvolume in
/// `work/`. The kernel drops those of a process that dies.
package struct StoreLocks: Sendable {
    let directory: SharedDescriptor
    /// Ends waits.
    let cancellation: Cancellation

    /// The path of the file of a lock, for errors.
    func path(of name: BytePath) -> BytePath {
        ((try? directory.fd.path()) ?? StoreLayout.locks).appending(name)
    }

    /// The exclusive lock of that name; nil when somebody holds it.
    func tryLock(_ name: BytePath) throws(Errno) -> FileLock? {
        try FileLock.tryExclusive(name, in: directory, isShared: true)
    }

    /// The locks of all names at once, for which no file is made; nil when somebody holds one of them.
    func tryLockEverything() throws(Errno) -> HeldLock? { try FileLock.everything(in: directory) }

    /// Waits until this process alone may publish or delete a chain.
    ///
    /// - Parameter whileWaiting: called now and then, and throws to give up.
    func lock(_ name: ChainName, whileWaiting: () throws -> Void) throws -> FileLock {
        do {
            return try FileLock.exclusive(name.path, in: directory, isShared: true) {
                try cancellation.check()
                try whileWaiting()
            }
        } catch let error as Errno {
            throw VarveError.system("lock the chain by", path(of: name.path), error)
        }
    }

    /// Runs `body` while this process alone may publish or delete the chain, also where the disk is full.
    func withRemovalLock<R>(on name: ChainName, _ body: () throws -> R) throws -> R {
        while true {
            let lock = try attempt("lock the chain by", path(of: name.path)) { () throws(Errno) in
                try RemovalLock(name.path, of: self)
            }
            if let lock {
                let result = try body()
                extendLifetime(lock)
                return result
            }
            try cancellation.check()
            usleep(50_000)
        }
    }
}

/// What is held while something of a store is deleted: the lock of its name, or, where there is no room for the file of
/// that, those of all names at once. A full disk is no reason not to delete.
struct RemovalLock: ~Copyable {
    private var file: FileLock?
    private let everything: HeldLock?

    /// Nil when somebody else holds it.
    ///
    /// - Parameter isForRemoval: false for the lock of that name alone.
    init?(_ name: BytePath, of locks: StoreLocks, isForRemoval: Bool = true) throws(Errno) {
        do throws(Errno) {
            guard let lock = try locks.tryLock(name) else { return nil }
            file = consume lock
            everything = nil
        } catch  where isForRemoval && error.isOutOfSpace {
            // Not waited for: whoever holds one of them may hold it for long, and cannot have been told.
            guard let all = try locks.tryLockEverything() else { throw error }
            file = nil
            everything = all
        }
    }

    /// The file of the lock stays: what is to be deleted is still there.
    mutating func leave() { file?.leave() }
}

extension Errno {
    /// No room, or a quota is reached.
    var isOutOfSpace: Bool { self == .noSpace || self == .diskQuotaExceeded }
}

extension FileDescriptor {
    /// Deletes a subvolume with those nested in it. Where a quota is reached the kernel may refuse that, as its record of
    /// it counts too: what running transactions have set aside is given back first then.
    ///
    /// - Parameters:
    ///   - isHidden: nobody looks for it any more, so that the files in it, which the kernel deletes even then, may go without it.
    ///   - cancellation: see `deleteSubvolumeTree`.
    @discardableResult
    func removeSubvolumeTree(
        _ name: BytePath, isHidden: Bool = false, cancellation: Cancellation? = nil
    ) throws(BtrfsError) -> [UInt64] {
        do throws(BtrfsError) {
            return try deleteSubvolumeTree(name, cancellation: cancellation)
        } catch  where error.errno == .diskQuotaExceeded {
            try? synchronizeFileSystem()
        }
        do throws(BtrfsError) {
            return try deleteSubvolumeTree(name, cancellation: cancellation)
        } catch  where error.errno == .diskQuotaExceeded && isHidden {
            guard let root = try? openDirectory(name) else { throw error }
            if try root.fd.subvolumeInfo().isReadOnly { try root.fd.setSubvolumeReadOnly(false) }
            try? TreeRemoval.empty(root.fd, path: name, cancellation: cancellation)
            try? synchronizeFileSystem()
            return try deleteSubvolumeTree(name, cancellation: cancellation)
        }
    }
}
