import Glibc
import VarveBtrfs
import VarveLayers
import VarveSystem
import SystemPackage

/// `work/` of a store: subvolumes that are being built or deleted, each with a lock that says that somebody is at it.
///
/// A subvolume whose lock is free is a leftover of a process that died; `Sweeper` deletes it.
package struct WorkArea: Sendable {
    let directory: SubvolumeDirectory
    let locks: StoreLocks

    private static let lockPrefix: BytePath = "work-"

    /// The lock in `locks/` of a subvolume in `work/`.
    static func lockName(_ work: BytePath) -> BytePath { lockPrefix.appendingBytes(work) }

    /// The subvolume in `work/` that a lock in `locks/` is of; nil for any other lock.
    static func workName(ofLock name: BytePath) -> BytePath? {
        name.hasPrefix(lockPrefix.bytes) ? name.dropFirst(lockPrefix.count) : nil
    }

    /// Reserves a name in `work/` and makes a subvolume there with `make`. Its lock is taken first: what has no lock
    /// is a leftover, whoever looks.
    ///
    /// - Parameters:
    ///   - subject: what errors name in place of the subvolume, of which nobody knows.
    ///   - removes: the subvolume that `make` moves there to be deleted, which must also go where the disk is full.
    func make(
        for subject: BytePath, removes: SubvolumeInfo? = nil,
        _ make: (_ directory: FileDescriptor, _ name: BytePath) throws -> Void
    ) throws -> WorkSubvolume {
        for _ in 0..<100 {
            let random = BytePath(randomName())
            let name = removes.map { MovedAside.name(of: $0.id, random) } ?? random
            let lock = try attempt("lock a work area in", directory.store) { () throws(Errno) in
                try RemovalLock(Self.lockName(name), of: locks, isForRemoval: removes != nil)
            }
            // Somebody who cleans up holds it just now, between its making and its locking: another name.
            guard let lock else { continue }
            let work = WorkSubvolume(name: name, directory: directory, lock: lock)
            do { try make(directory.fd, name) } catch let error as BtrfsError {
                throw error.naming(subject, insteadOf: name)
            }
            return work
        }
        throw VarveError(
            .failed, "cannot lock a work area in \"\(directory.store)\"", subject: directory.store,
            remedy: .tryAgain)
    }

    /// A subvolume with nothing but an empty `rootfs/`.
    func makeEmptyTree(for subject: BytePath, owners: OwnerMapping) throws -> WorkSubvolume {
        let owner = try owners.root()
        return try make(for: subject) { directory, name in
            try directory.createSubvolume(name)
            try attempt("make the root directory of", subject) { () throws(Errno) in
                let subvolume = try directory.openDirectory(name)
                try subvolume.fd.changeMode(to: 0o755)
                try subvolume.fd.makeRootfs(owner: owners.isRootless ? nil : owner)
            }
        }
    }

    /// A snapshot of any subvolume. Taking it writes out what is still dirty in memory of the subvolume
    /// (`btrfs_start_delalloc_snapshot`, fs/btrfs/ioctl.c), so no sync is needed for the snapshot to hold all that was
    /// written before it.
    ///
    /// - Parameter subject: the path of the subvolume, for errors.
    func makeSnapshot(of subvolume: SharedDescriptor, readOnly: Bool, for subject: BytePath) throws
        -> WorkSubvolume
    {
        try make(for: subject) { directory, name in
            do throws(BtrfsError) {
                try subvolume.fd.snapshot(to: directory, name, readOnly: readOnly)
            } catch {
                throw ActiveSwapFile.explanation(of: error, in: subvolume.fd, subject) ?? error
            }
        }
    }

    /// Deletes a subvolume where it lies. Root does it by its number, so that nothing else can get its name meanwhile. Others can only
    /// name it, and what they may delete is theirs.
    private func deleteInPlace(
        _ name: BytePath, in parent: FileDescriptor, is subvolume: FileDescriptor
    ) throws(BtrfsError) {
        guard geteuid() == 0 else {
            try parent.removeSubvolumeTree(name, cancellation: locks.cancellation)
            return
        }
        do throws(BtrfsError) {
            _ = try subvolume.deleteOpenSubvolumeTree(cancellation: locks.cancellation)
        } catch  where error.errno == .diskQuotaExceeded {
            // As in `removeSubvolumeTree`.
            try? parent.synchronizeFileSystem()
            _ = try subvolume.deleteOpenSubvolumeTree(cancellation: locks.cancellation)
        }
    }

    /// Deletes a subvolume in which others may lie, a bundle: moved out of sight first, so that a crash leaves nothing that
    /// looks whole. If it cannot be deleted, it is put back.
    ///
    /// - Parameters:
    ///   - parent: the directory in which it lies.
    ///   - subvolume: what must have that name: whoever else may write to the directory can give the name to something else.
    /// - Throws: `BtrfsError` where `locks.cancellation` ended it: with ECANCELED if all is as it was, with EINTR if subvolumes in it
    ///   are gone. What was moved away is a leftover then, for `Sweeper`.
    func discard(_ name: BytePath, in parent: FileDescriptor, is subvolume: FileDescriptor) throws {
        let shown = (try? parent.path())?.appending(name) ?? name
        var work = try make(for: shown, removes: try subvolume.subvolumeInfo()) { workDirectory, workName in
            func move() throws(Errno) {
                try parent.rename(name, to: workDirectory, workName, replacing: false)
            }
            do throws(Errno) {
                racePoint("discard-bundle")
                do throws(Errno) {
                    try move()
                } catch .diskQuotaExceeded {
                    // What running transactions have set aside comes back; what is deleted in its place might stay in part.
                    try parent.synchronizeFileSystem()
                    try move()
                }
            } catch .noSuchFileOrDirectory {
                throw VarveError(.notFound, "\"\(name)\" is not there (any more)", subject: name)
            } catch .improperLink {
                // On another mount of the file system.
            } catch .readOnlyFileSystem {
                // Read-only, and so not to be moved; see `ChainBuilder.publish`.
            } catch .noSpace {
                // Deleting takes less room than moving: btrfs keeps some for it.
            } catch {
                throw VarveError.system("move away", shown, error)
            }
        }
        let workName = work.name
        // What is read-only, or on another mount, was not moved. Where nobody can tell what was moved, it is not deleted.
        let (isMoved, isRight): (Bool, Bool)
        do {
            isMoved = try attempt("look at", workName) { () throws(Errno) in
                try directory.fd.statusIfPresent(of: workName) != nil
            }
            racePoint("moved-aside")
            isRight = try attempt("look at", shown) { [isMoved] () throws(Errno) in
                let found = try isMoved ? directory.fd.status(of: workName) : parent.status(of: name)
                return try found.isSameFile(as: subvolume.status())
            }
        } catch {
            work.leave()
            throw error
        }
        guard isRight else {
            let place = isMoved ? MovedAside.putBack(workName, from: directory.fd, to: parent, name) : name
            if place == nil { work.leave() }
            throw VarveError.wasReplaced(shown, by: parent, place, otherwise: (directory.fd, workName))
        }
        if isMoved {
            do throws(BtrfsError) {
                try directory.fd.removeSubvolumeTree(
                    workName, isHidden: true, cancellation: locks.cancellation)
            } catch {
                if error.errno == .interrupted {
                    work.leave()
                } else if !isEmptied(workName) {
                    // Back to where it is looked for, or out of sight.
                    do throws(Errno) {
                        try directory.fd.rename(workName, to: parent, name, replacing: false)
                    } catch { work.leave() }
                }
                throw error.naming(shown, insteadOf: workName)
            }
        } else {
            racePoint("discard-in-place")
            try deleteInPlace(name, in: parent, is: subvolume)
        }
        extendLifetime(work)
    }

    /// Whether a deletion that failed has got as far as the root file system of what was moved away.
    private func isEmptied(_ name: BytePath) -> Bool {
        do throws(Errno) {
            return try directory.fd.statusIfPresent(of: name.appending(StoreLayout.rootfs)) == nil
        } catch {
            return false
        }
    }
}

/// A subvolume in `work/`, and the lock that says that somebody is at it. Both go when this value does, unless the
/// subvolume was moved to its place.
struct WorkSubvolume: ~Copyable {
    let name: BytePath
    private var directory: SubvolumeDirectory
    private var lock: RemovalLock
    private var isDone = false

    fileprivate init(name: BytePath, directory: SubvolumeDirectory, lock: consuming RemovalLock) {
        self.name = name
        self.directory = directory
        self.lock = lock
    }

    /// Its root directory.
    ///
    /// - Parameter subject: what it is of, for errors.
    func open(for subject: BytePath? = nil) throws(VarveError) -> SharedDescriptor {
        try open(.current, subject)
    }

    /// The root file system in it.
    func openRootfs(for subject: BytePath? = nil) throws(VarveError) -> SharedDescriptor {
        try open(StoreLayout.rootfs, subject)
    }

    private func open(_ path: BytePath, _ subject: BytePath?) throws(VarveError) -> SharedDescriptor {
        do throws(Errno) {
            return SharedDescriptor(
                try directory.fd.openDirectory(path == .current ? name : name.appending(path)))
        } catch {
            throw VarveError.system("open the work area for", subject ?? name, error)
        }
    }

    /// What was to be deleted under its name elsewhere is still there: the next `Sweeper` finds it by the lock's file.
    mutating func leaveLock() { lock.leave() }

    /// Renames the subvolume to where it is seen. From then on it belongs to that place.
    mutating func move(to target: FileDescriptor, _ newName: BytePath, replacing: Bool = false) throws(Errno)
    {
        try directory.fd.rename(name, to: target, newName, replacing: replacing)
        isDone = true
    }

    /// Makes the subvolume's root directory the caller's and sets its permissions, and takes away what else it has from what it is a
    /// snapshot of: flags of chattr(1), with which it could not be moved, and access control lists. Who owns it decides what lies in it.
    func changeMode(to mode: UInt32) throws(Errno) {
        let opened = try directory.fd.openDirectory(name)
        _ = try? opened.fd.clearProtection()
        try opened.fd.makeOwn()
        try opened.fd.removeAccessControlLists()
        try opened.fd.changeMode(to: mode)
    }

    /// Keeps the subvolume, open as `subvolume`, read-only under another name in `target`, a directory of the store's.
    ///
    /// Only what is writable can be moved to another directory. So that it is never seen writable under `newName`, it is
    /// moved under the name that it has here and renamed when it is read-only again; until then it is a leftover once
    /// its lock is free (`Sweeper`).
    mutating func keep(
        _ subvolume: FileDescriptor, in target: SubvolumeDirectory, as newName: BytePath
    ) throws {
        try subvolume.setSubvolumeReadOnly(false)
        _ = try? subvolume.clearProtection()
        try directory.fd.rename(name, to: target.fd, name, replacing: false)
        directory = target
        try subvolume.setSubvolumeReadOnly(true)
        try move(to: target.fd, newName)
    }

    /// Leaves what lies there, as a process does that ends; the lock goes.
    mutating func leave() { isDone = true }

    deinit {
        if !isDone { _ = try? directory.fd.removeSubvolumeTree(name, isHidden: true) }
    }
}

/// A work subvolume shared by several owners, of whom the last one deletes it, on whatever thread that is.
final class SharedWork: @unchecked Sendable {
    private let work: WorkSubvolume
    init(_ work: consuming WorkSubvolume) { self.work = work }
}

extension FileDescriptor {
    /// Makes an empty `rootfs/` in this directory. The same layers give the same tree whatever the umask, the clock and
    /// the caller are: mode 0755, dated at the epoch, owned by the image's root (nil: the caller).
    func makeRootfs(owner: (uid: UInt32, gid: UInt32)?) throws(Errno) {
        try makeDirectory(StoreLayout.rootfs, mode: 0o755)
        // The directory in which a bundle is made may hand some down.
        let made = try openDirectory(StoreLayout.rootfs)
        try made.fd.removeAccessControlLists()
        if let owner { try changeOwner(of: StoreLayout.rootfs, uid: owner.uid, gid: owner.gid) }
        try changeMode(of: StoreLayout.rootfs, to: 0o755)
        try setTimes(of: StoreLayout.rootfs, access: .epoch, modification: .epoch)
    }
}

extension BtrfsError {
    /// The error with the path of `subject`, if it speaks of a work subvolume.
    func naming(_ subject: BytePath, insteadOf work: BytePath) -> BtrfsError {
        var error = self
        if path.lastComponent == work { error.path = subject }
        return error
    }
}
