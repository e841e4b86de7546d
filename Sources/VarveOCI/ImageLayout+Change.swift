internal import Glibc
internal import Synchronization
internal import VarveSystem
internal import SystemPackage

/// A blob that a value works with: it wrote it, or found it where it wanted to write it.
///
/// Every such blob's file is locked shared (flock(2)), from before it has its name or was found to be right, until the
/// `ImageLayout` goes away. Only who gets the exclusive lock of a blob's file takes the blob away. Anybody who may read the blob could keep
/// that lock for ever: it is not waited for any longer than a command needs it, and then the blob is written again.
struct HeldBlob {
    let digest: Digest
    let inode: UInt64
    /// Nil on file systems without such locks: there nobody can get the exclusive one, and nothing is taken away.
    let lock: HeldLock?
    /// It was not there before, and no tag was set since.
    var isNew: Bool
}

extension ImageLayout {
    /// Runs `body` with a value of its own for this layout, through which blobs are written and tagged. If it throws, the
    /// blobs that it added are taken away again, unless they were tagged before that, or another process has come to need
    /// them: they then stay until garbage is collected.
    ///
    /// That is safe while others write: whoever finds a blob that it was about to write holds a shared lock on its file
    /// until it has tagged what refers to it, and looks after locking whether the file still has its name
    /// (`hold`); here the exclusive lock is taken first, without waiting, and what a tag leads to by then stays. Tools
    /// without these locks may lose a blob by this just as by a garbage collection, and only one that both wrote at once.
    package func change<T, E: Error>(_ body: (ImageLayout) throws(E) -> T) throws(E) -> T {
        let own = ImageLayout(path: path, directory: directory, cancellation: cancellation)
        do throws(E) {
            return try body(own)
        } catch {
            own.removeNewBlobs()
            throw error
        }
    }

    private func removeNewBlobs() {
        let new = blobs.withLock { held in
            let new = held.filter(\.isNew).map { ($0.digest, $0.inode) }
            // Gives all shared locks back, those of blobs that were written twice as well.
            held = []
            return new
        }
        var locked: [LockedBlob] = []
        for (digest, inode) in new {
            guard let opened = try? openBlobFolder(digest.algorithm, for: .writing) else { continue }
            let folder = SharedDescriptor(opened)
            guard let lock = Self.lockFile(BytePath(digest.hex), in: folder.fd, inode: inode) else {
                continue
            }
            locked.append(LockedBlob(digest: digest, inode: inode, folder: folder, lock: lock))
        }
        // Where there is more to read than this, they stay for a collection.
        guard !locked.isEmpty, let reachable = try? reachableBlobs(nil, limit: 16 << 20) else { return }
        racePoint("remove-blobs")
        // The last first: what refers to others goes before them.
        remove(locked.reversed().filter { !reachable.contains($0.digest) })
    }

    /// A blob that nobody else works with.
    private struct LockedBlob {
        var digest: Digest
        var inode: UInt64
        var folder: SharedDescriptor
        var lock: HeldLock
    }

    private func remove(_ locked: [LockedBlob]) {
        // Whoever does not get the lock of a blob puts another in its place while they have that of the index.
        let index = lockIndexToRemove()
        for blob in locked {
            let name = BytePath(blob.digest.hex)
            guard (try? blob.folder.fd.status(of: name).inode) == blob.inode else { continue }
            try? blob.folder.fd.unlink(name)
        }
        extendLifetime(index)
        extendLifetime(locked)
    }

    /// Nil where there is no room for the lock, or somebody has it for long. It is waited for after a wish to stop as well.
    private func lockIndexToRemove() -> FileLock? {
        for _ in 0..<200 {
            do throws(Errno) {
                if let lock = try lockIndexIfFree() { return lock }
            } catch {
                return nil
            }
            usleep(10_000)
        }
        return nil
    }

    /// How a blob that is to be written is found.
    enum Presence {
        case absent
        /// Its content is not what its name says, it is no file, or somebody keeps a lock on it: it is to be replaced (`replaceBlob`).
        case damaged
        /// It is right, and stays for as long as this value lives.
        case held
    }

    /// Milliseconds for which a lock on a blob is waited for. Whoever takes blobs away that are new has it for no longer, or lets another be put in
    /// its place.
    private static let patience = 2_000

    /// Gives a blob that is damaged another file.
    func replaceBlob(by temporary: BytePath, in folder: FileDescriptor, _ name: BytePath) throws(Errno) {
        let lock = try lockIndex()
        try directory.fd.rename(temporary, to: folder, name)
        extendLifetime(lock)
    }

    /// Takes the shared lock of a blob; false if somebody keeps it from being had.
    private func lockBlob(_ file: SharedDescriptor) throws(Errno) -> Bool {
        while try !file.fd.tryLock(.shared) {
            let isOver = waited.withLock { waited in
                waited += 2
                return waited > Self.patience
            }
            if isOver { return false }
            if cancellation.isCancelled { throw .canceled }
            usleep(2_000)
        }
        return true
    }

    /// Looks for a blob that is about to be written, and waits while somebody is about to take it away.
    /// - Throws: `Errno.canceled` if the wait was given up.
    func hold(_ descriptor: Descriptor) throws(Errno) -> Presence {
        while true {
            guard let opened = try? openBlob(descriptor) else {
                let status = try? blobStatus(descriptor.digest)
                return status == .some(nil) ? .absent : .damaged
            }
            let file = SharedDescriptor(opened)
            var lock: HeldLock?
            do throws(Errno) {
                guard try lockBlob(file) else { return .damaged }
                lock = HeldLock(on: file)
            } catch .canceled {
                throw .canceled
            } catch {
                // A file system without flock(2).
            }
            guard let status = try? file.fd.status() else { return .damaged }
            // Taken away or replaced between the opening and the lock.
            if status.linkCount == 0 { continue }
            guard isIntact(file, descriptor) else { return .damaged }
            blobs.withLock {
                $0.append(
                    HeldBlob(digest: descriptor.digest, inode: status.inode, lock: lock, isNew: false))
            }
            return .held
        }
    }

    /// Whether the content of an open blob is right.
    private func isIntact(_ file: SharedDescriptor, _ descriptor: Descriptor) -> Bool {
        var verifier = BlobVerifier(descriptor)
        let isIntact: Bool? = try? unsafe withUnsafeTemporaryAllocation(byteCount: 1 << 18, alignment: 4096) {
            buffer in
            while true {
                let filled = try unsafe file.fd.readFull(into: buffer)
                if filled == 0 { break }
                try unsafe verifier.update(UnsafeRawBufferPointer(rebasing: buffer[..<filled]))
            }
            try verifier.finish()
            return true
        }
        return isIntact ?? false
    }

    /// Takes away the temporary files of writers that died. Those that live hold a lock on theirs.
    func removeDeadTemporaries() {
        for entry in (try? directory.fd.entries()) ?? []
        where entry.name.hasPrefix(Array(BlobWriter.temporaryPrefix.utf8)) {
            guard let lock = Self.lockFile(entry.name, in: directory.fd) else { continue }
            try? directory.fd.unlink(entry.name)
            extendLifetime(lock)
        }
    }

    /// Takes the exclusive lock of a regular file, without waiting; nil if somebody has it, or something else has the name. What is no
    /// regular file is not opened: the owner of a layout decides what lies there.
    ///
    /// - Parameter inode: that the file must have.
    private static func lockFile(_ name: BytePath, in folder: FileDescriptor, inode: UInt64? = nil)
        -> HeldLock?
    {
        guard let place = try? folder.open(name, [.path, .noFollow]), let status = try? place.fd.status(),
            status.isRegular, inode == nil || status.inode == inode
        else { return nil }
        // Some file systems give no exclusive lock on what is open for reading (flock(2), "NFS details").
        for flags in [.readOnly, .readWrite] as [OpenFlags] {
            guard let opened = try? place.fd.reopened([flags, .nonBlocking]) else { return nil }
            let file = SharedDescriptor(opened)
            do throws(Errno) {
                return try file.fd.tryLock(.exclusive) ? HeldLock(on: file) : nil
            } catch .badFileDescriptor {
                continue
            } catch {
                return nil
            }
        }
        return nil
    }
}
