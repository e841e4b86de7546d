internal import Synchronization
internal import VarveSystem
internal import SystemPackage

/// A blob that a value works with: it wrote it, or found it where it wanted to write it.
///
/// Every such blob's file is locked shared (flock(2)), from before it has its name or was found to be right, until the
/// `ImageLayout` goes away. Only who gets the exclusive lock of a blob's file takes the blob away.
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
        var locked: [(digest: Digest, folder: SharedDescriptor, lock: HeldLock)] = []
        for (digest, inode) in new {
            guard let opened = try? openBlobFolder(digest.algorithm, for: .writing) else { continue }
            let folder = SharedDescriptor(opened)
            guard let lock = Self.lockFile(BytePath(digest.hex), in: folder.fd, inode: inode) else {
                continue
            }
            locked.append((digest, folder, lock))
        }
        // Where there is more to read than this, they stay for a collection.
        guard !locked.isEmpty, let reachable = try? reachableBlobs(nil, limit: 16 << 20) else { return }
        racePoint("remove-blobs")
        // The last first: what refers to others goes before them.
        for (digest, folder, lock) in locked.reversed() where !reachable.contains(digest) {
            try? folder.fd.unlink(BytePath(digest.hex))
            extendLifetime(lock)
        }
    }

    /// How a blob that is to be written is found.
    enum Presence {
        case absent
        /// Its content is not what its name says, or it is no file.
        case damaged
        /// It is right, and stays for as long as this value lives.
        case held
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
                try file.fd.lock(.shared, cancellation)
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
