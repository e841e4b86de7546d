import VarveBtrfs
import VarveLayers
import Logging
import VarveSystem
import SystemPackage

/// A subvolume being built in `work/`, and the lock that says that somebody is at it. Both go when this value does,
/// unless the subvolume was moved to its place.
struct WorkSubvolume: ~Copyable {
    let name: BytePath
    private var directory: SharedDescriptor
    private let lock: RemovalLock
    private var isDone = false

    fileprivate init(name: BytePath, directory: SharedDescriptor, lock: consuming RemovalLock) {
        self.name = name
        self.directory = directory
        self.lock = lock
    }

    /// Renames the subvolume to where it is seen. It is then whoever's place that is.
    mutating func move(to target: FileDescriptor, _ newName: BytePath, replacing: Bool = false) throws(Errno)
    {
        try directory.fd.rename(name, to: target, newName, replacing: replacing)
        isDone = true
    }

    /// Sets the permissions of the subvolume's root directory.
    func changeMode(to mode: UInt32) throws(Errno) {
        let opened = try directory.fd.openDirectory(name)
        try opened.fd.changeMode(to: mode)
    }

    /// Keeps the subvolume, open as `subvolume`, read-only under another name in `target`, a directory of the store's.
    ///
    /// Only what is writable can be moved to another directory. So that it is never seen writable under `newName`, it is
    /// moved under the name that it has here and renamed when it is read-only again; until then it is a leftover once
    /// its lock is free (`cleanWorkArea`).
    mutating func keep(_ subvolume: FileDescriptor, in target: SharedDescriptor, as newName: BytePath) throws
    {
        try subvolume.setSubvolumeReadOnly(false)
        try directory.fd.rename(name, to: target.fd, name, replacing: false)
        directory = target
        try subvolume.setSubvolumeReadOnly(true)
        try move(to: target.fd, newName)
    }

    deinit {
        if !isDone { _ = try? directory.fd.removeSubvolumeTree(name, isHidden: true) }
    }
}

extension FileDescriptor {
    /// Makes an empty `rootfs/` in this directory. The same layers give the same tree whatever the umask, the clock and
    /// the caller are: mode 0755, dated at the epoch, owned by the image's root (nil: the caller).
    func makeRootfs(owner: (uid: UInt32, gid: UInt32)?) throws(Errno) {
        try makeDirectory(StoreLayout.rootfs, mode: 0o755)
        if let owner { try changeOwner(of: StoreLayout.rootfs, uid: owner.uid, gid: owner.gid) }
        try changeMode(of: StoreLayout.rootfs, to: 0o755)
        try setTimes(of: StoreLayout.rootfs, access: .epoch, modification: .epoch)
    }
}

extension SnapshotStore {
    private static let lockPrefix: BytePath = "work-"
    static func lockName(_ work: BytePath) -> BytePath { lockPrefix.appendingBytes(work) }

    /// Reserves a name in `work/` and makes a subvolume there with `make`. Its lock is taken first: what has no lock
    /// is a leftover, whoever looks.
    ///
    /// - Parameters:
    ///   - subject: what errors name in place of the subvolume, of which nobody knows.
    ///   - removes: what `make` moves there is to be deleted, which must also go where the disk is full.
    func makeWork(
        for subject: BytePath, removes: Bool = false,
        _ make: (_ directory: FileDescriptor, _ name: BytePath) throws -> Void
    ) throws -> WorkSubvolume {
        for _ in 0..<100 {
            let name = BytePath(randomName())
            let lock = try attempt("lock a work area in", path) { () throws(Errno) in
                try RemovalLock(Self.lockName(name), of: self, isForRemoval: removes)
            }
            // Somebody who cleans up holds it just now, between its making and its locking: another name.
            guard let lock else { continue }
            let work = WorkSubvolume(name: name, directory: workDirectory, lock: lock)
            do { try make(workDirectory.fd, name) } catch let error as BtrfsError {
                throw error.naming(subject, insteadOf: name)
            }
            return work
        }
        throw StoreError(.failed, "cannot lock a work area in \"\(path)\"", subject: path, remedy: .tryAgain)
    }

    /// A subvolume with nothing but an empty `rootfs/`.
    func makeEmptyTree(_ name: BytePath, in directory: FileDescriptor, owners: OwnerMapping) throws {
        let owner = try owners.root()
        try directory.createSubvolume(name)
        try attempt("make the root directory of", name) { () throws(Errno) in
            let subvolume = try directory.openDirectory(name)
            try subvolume.fd.changeMode(to: 0o755)
            try subvolume.fd.makeRootfs(owner: owners.isRootless ? nil : owner)
        }
    }

    /// Deletes what processes that are gone left in `work/` and `locks/`, and in `refreshed/` under a name of `work/`.
    /// Nothing that somebody is still at is touched.
    func cleanWorkArea() {
        guard let entries = try? workDirectory.fd.entries() else { return }
        for entry in entries {
            guard let lock = try? RemovalLock(Self.lockName(entry.name), of: self) else { continue }
            removeLeftover(entry.name, in: workDirectory, StoreLayout.work)
            extendLifetime(lock)
        }
        guard let locks = try? locksDirectory.fd.entries() else { return }
        // Whoever dies with a lock leaves its file; who gets it removes it by giving it back.
        for entry in locks {
            guard let lock = try? tryLock(entry.name) else { continue }
            if entry.name.hasPrefix(Self.lockPrefix.bytes) {
                let work = entry.name.dropFirst(Self.lockPrefix.count)
                removeLeftover(work, in: refreshedDirectory, StoreLayout.refreshed)
            }
            extendLifetime(lock)
        }
    }

    private func removeLeftover(_ name: BytePath, in directory: SharedDescriptor, _ place: BytePath) {
        let shown = path.appending(place).appending(name)
        do {
            if (try? directory.fd.removeSubvolumeStub(name)) == true { return }
            try directory.fd.removeSubvolumeTree(name, isHidden: true)
            logger.info("removed what an interrupted run had left in \"\(shown)\"")
        } catch  where error.errno == .noSuchFileOrDirectory {
            // Its owner was done with it just now, or it never lay there.
        } catch {
            logger.warning("cannot remove what an interrupted run left in \"\(shown)\": \(error)")
        }
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
