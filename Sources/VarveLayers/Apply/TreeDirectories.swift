import VarveArchive
import VarveSystem
import SystemPackage

/// The directories of a tree that a layer is applied to: found by the paths of entries, made where they are missing, kept open while
/// entries go into them, and dated when the layer is done.
final class TreeDirectories {
    private let resolver: TreeResolver
    private let metadata: EntryMetadata
    private var cache = DirectoryCache()
    private var pendingTimes = PendingTimes()
    /// Ends what may take long between two entries: a deletion, and what is done when the layer is there.
    let cancellation: Cancellation
    /// The ways to directories, and to files of which something is kept, with no symbolic link in them.
    let paths = PathTable()

    /// Gets the inode number of each directory that is made on the way. Another file may have had it before: file systems give the numbers of
    /// files that are gone out again.
    var didMake: (UInt64) -> Void = { _ in }

    var root: FileDescriptor { resolver.root }

    /// - Parameter owner: root's ids, which directories get that no entry describes.
    init(
        root: FileDescriptor, owner: (uid: UInt32, gid: UInt32), _ metadata: EntryMetadata,
        _ cancellation: Cancellation
    ) {
        self.cancellation = cancellation
        resolver = TreeResolver(root: root, owner: owner)
        self.metadata = metadata
    }

    /// The directory at `path`, made if it is missing.
    func open(_ path: BytePath, entry: BytePath, from archive: TarReader) throws -> OpenDirectory {
        if let found = cache.find(path) { return found }
        let opened = try resolver.openCreating(path, entry: entry) {
            try archive.countUnlisted()
        } didMake: { inode in
            // What is known of a directory that is gone is not known of the new one with its number.
            pendingTimes.forget(inode)
            didMake(inode)
        }
        return try register(opened, path)
    }

    /// The directory at `path`; nil if there is none.
    func find(_ path: BytePath, entry: BytePath) throws -> OpenDirectory? {
        if let found = cache.find(path) { return found }
        guard let found = try resolver.open(path, entry: entry) else { return nil }
        return try register(found, path)
    }

    /// The directory in which a whiteout deletes something. Nil where there is none, or a file in its place: there is nothing to
    /// delete in that, and the layer may have put it there, or is yet to replace it.
    func findToEmpty(_ path: BytePath, entry: BytePath) throws -> OpenDirectory? {
        if let found = cache.find(path) { return found }
        guard let found = try resolver.open(path, entry: entry, orNoDirectory: true) else { return nil }
        return try register(found, path)
    }

    /// What the symbolic link at `path` leads to, if that is a directory.
    func openBehindLink(_ path: BytePath) throws -> OwnedDescriptor? { try resolver.openIfDirectory(path) }

    /// Takes a directory that an entry describes, and its times. Its files come next in every archive that was ever made: it is kept
    /// open, as it is now.
    ///
    /// - Parameter place: the way to it with no symbolic link in it; nil if it was reached by one.
    /// - Returns: that way.
    func keep(
        _ directory: consuming OwnedDescriptor, of entry: TarEntry, _ path: BytePath, inode: UInt64,
        place: PathTable.Place?, newFilesInherit: Bool
    ) throws -> PathTable.Place {
        let place =
            if let place { place } else {
                paths.insert(try resolver.truePath(of: directory.fd, at: path))
            }
        pendingTimes.set(entry, at: place, inode: inode)
        cache.insert(
            OpenDirectory(directory, inode: inode, place: place, newFilesInherit: newFilesInherit), path
        )
        return place
    }

    /// Takes the times of the root directory's entry.
    func keepTimesOfRoot(_ entry: TarEntry, inode: UInt64) {
        pendingTimes.set(entry, at: PathTable.root, inode: inode)
    }

    /// A directory or a symbolic link goes away, or what new files inherit may be another now: paths may lead elsewhere.
    func forget() { cache.removeAll() }

    /// Gives all directories their times, when the layer is done.
    func restoreTimes() throws { try pendingTimes.restore(in: root, paths, cancellation) }

    private func register(_ descriptor: consuming OwnedDescriptor, _ path: BytePath) throws -> OpenDirectory {
        let now = try metadata.status(of: descriptor.fd, path)
        let place = paths.insert(try resolver.truePath(of: descriptor.fd, at: path))
        pendingTimes.keep(now, at: place)
        let hasDefaultACL = try attempt("read the attributes of", path) { () throws(Errno) in
            do throws(Errno) {
                return try descriptor.fd.extendedAttribute(PosixACL.defaultName) != nil
            } catch .notSupported {
                return false
            }
        }
        let directory = OpenDirectory(
            descriptor, inode: now.inode, place: place,
            newFilesInherit: hasDefaultACL || now.mode & 0o2000 != 0)
        cache.insert(directory, path)
        return directory
    }
}
