import VarveFormats
internal import Synchronization
package import VarveSystem
internal import SystemPackage

/// Locks keep processes that work on one layout apart.
///
/// The layout's directory is locked shared (`DirectoryLock`) by whoever writes blobs, from its first blob until its
/// `ImageLayout` goes away, and exclusively by garbage collection: a blob that no tag leads to yet is never
/// collected. A lock file of its own guards each change of `index.json`. What a command that failed takes away again is
/// guarded by locks on the blobs themselves (`change`).
extension ImageLayout {
    /// Is there while somebody writes into a layout or reads it.
    static let writersLock = BytePath(".varve-layout.lock")
    private static let indexLock = BytePath(".varve-index.lock")

    /// Takes the shared lock, waiting for a garbage collection to end. It is held by this value and by
    /// whoever keeps the result.
    ///
    /// Whoever makes a new image of another one takes it before that is looked at: until the new one has a tag, nothing else says that the
    /// blobs below are needed.
    @discardableResult
    package func beginWriting() throws(OCIError) -> HeldLock {
        let outcome: Result<HeldLock, OCIError> = writing.withLock { held in
            if let held { return .success(held) }
            return Result { () throws(OCIError) in
                let opened = try openForLocking()
                let lock = try attempt("lock the image layout", path) { () throws(Errno) in
                    try DirectoryLock.wait(.shared, on: opened, file: Self.writersLock, cancellation)
                }
                held = lock
                removeDeadTemporaries()
                return lock
            }
        }
        return try outcome.get()
    }

    /// Keeps garbage collections away from who reads, for as long as the result is kept, if they may write to the layout: who may only read it
    /// keeps nobody from anything. Nil where a collection is at work just now, which is not waited for, or where there are no such locks.
    package func beginReading() -> HeldLock? {
        guard let opened = try? openForLocking() else { return nil }
        return (try? DirectoryLock.attempt(.shared, on: opened, file: Self.writersLock)) ?? nil
    }

    /// A new open description of the layout's directory: one and the same has one lock.
    private func openForLocking() throws(OCIError) -> SharedDescriptor {
        SharedDescriptor(
            try attempt("open the image layout", path) { () throws(Errno) in
                try directory.fd.open(.current, [.directory])
            })
    }

    /// Runs `body` while nobody writes blobs. Throws `inUse` at once if somebody does; this value itself does
    /// not count.
    func exclusively<T>(_ body: () throws(OCIError) -> T) throws(OCIError) -> T {
        writing.withLock { $0 = nil }
        let opened = try openForLocking()
        let lock = try attempt("lock the image layout", path) { () throws(Errno) in
            try DirectoryLock.attempt(.exclusive, on: opened, file: Self.writersLock)
        }
        guard let lock else {
            let holders = LockHolders.described(of: Self.writersLock, in: opened.fd)
            throw OCIError(
                .inUse,
                "another process writes into the image layout \(path) or reads it, so nothing in it can be collected now"
                    + (holders.isEmpty ? "" : " (its lock is held by \(holders))"),
                subject: path, remedy: .tryAgainLater
            )
        }
        defer { extendLifetime(lock) }
        return try body()
    }

    /// Reads `index.json`, changes it and replaces it durably, alone among all processes that do so by this
    /// call. Nothing is written if `change` throws or leaves it as it was.
    @discardableResult
    package func updateIndex<T>(_ change: (inout ImageIndex) throws(OCIError) -> T) throws(OCIError) -> T {
        try whileIndexIsLocked { () throws(OCIError) in try updateLockedIndex(change) }
    }

    /// Runs `body` while nobody else changes `index.json`.
    func whileIndexIsLocked<T>(_ body: () throws(OCIError) -> T) throws(OCIError) -> T {
        let lock = try attempt("lock", path.appending(Self.indexLock)) { () throws(Errno) in
            try lockIndex()
        }
        defer { extendLifetime(lock) }
        return try body()
    }

    func lockIndex() throws(Errno) -> FileLock {
        try FileLock.exclusive(Self.indexLock, in: directory, isForWriters: true, cancellation)
    }

    /// Nil if somebody has it.
    func lockIndexIfFree() throws(Errno) -> FileLock? {
        try FileLock.tryExclusive(Self.indexLock, in: directory, isForWriters: true)
    }

    private func updateLockedIndex<T>(
        _ change: (inout ImageIndex) throws(OCIError) -> T
    ) throws(OCIError) -> T {
        var index = try index()
        let before = index
        let result = try change(&index)
        if index != before {
            // A document that says what it is cannot be taken for another (CVE-2021-41190).
            index.setMediaType()
            let bytes = JSONValue.object(index.json).serialized()
            removeDeadIndexes()
            try attempt("replace", path.appending(Self.indexName)) { () throws(Errno) in
                try directory.fd.writeFileDurably(Self.indexName, bytes, prepare: giveToOwner)
            }
            // Whatever fails from now on, the image is there.
            blobs.withLock { held in for index in held.indices { held[index].isNew = false } }
        }
        return result
    }

    /// Takes away what died while it replaced `index.json`. The lock of the index says that nobody else does so now.
    func removeDeadIndexes() {
        for entry in (try? directory.fd.entries()) ?? []
        where entry.name.hasPrefix(Array(".\(Self.indexName).".utf8)) {
            try? directory.fd.unlink(entry.name)
        }
    }

    /// Gives a descriptor the tag `name` in `index.json`; see `ImageIndex.tag`. Everything else there stays.
    ///
    /// - Parameter old: what the new image was made of, if that is what the tag named.
    /// - Throws: `OCIError` if another command has given the tag to something else since `old` was read: that would be lost.
    package func tag(_ name: String, _ descriptor: Descriptor, replacing old: Descriptor? = nil)
        throws(OCIError)
    {
        try ImageReference.checkTag(name)
        try beginWriting()
        try requireHeld(descriptor)
        try updateIndex { (index) throws(OCIError) in
            if let old, !index.holds(old.digest, tagged: name) {
                throw OCIError(
                    .inUse,
                    "another command has changed the tag \"\(name)\" of \(path) meanwhile; it stays as it is",
                    subject: BytePath(name), remedy: .tryAgain)
            }
            try requireWhole(descriptor, for: index)
            index.tag(name, descriptor)
        }
    }

    /// Throws if a garbage collection has taken an image away since it was looked at. While this value writes, none does.
    package func requireHeld(_ image: Descriptor) throws(OCIError) {
        guard holdsBlob(image.digest) else {
            throw OCIError(
                .notFound, "the image layout \(path) does not hold \(image.digest) (any more)",
                subject: BytePath("\(image.digest)"), remedy: .copyImageAgain)
        }
    }

    /// Removes a tag from `index.json`; its blobs stay until they are collected. False if it is not there; a
    /// tag inside a nested index cannot be removed, since that is content with a digest.
    package func removeTag(_ name: String) throws(OCIError) -> Bool {
        try updateIndex { (index) throws(OCIError) in index.removeTag(name) }
    }
}
