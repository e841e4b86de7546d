import VarveSystem
import SystemPackage

/// A directory of the tree, open while entries are put into it.
final class OpenDirectory {
    let descriptor: OwnedDescriptor
    let inode: UInt64
    /// The way to it from the root with no symbolic link in it, where that could be told.
    let place: PathTable.Place
    /// New files do not simply get the process's ids and the mode asked for: the directory has the set-group-ID bit
    /// or a default ACL, which new files inherit.
    let newFilesInherit: Bool

    var fd: FileDescriptor { descriptor.fd }

    init(
        _ descriptor: consuming OwnedDescriptor, inode: UInt64, place: PathTable.Place, newFilesInherit: Bool
    ) {
        self.descriptor = descriptor
        self.inode = inode
        self.place = place
        self.newFilesInherit = newFilesInherit
    }
}

/// The directories that entries went into lately, by their path in the archive.
///
/// A layer lists a directory's files one after another, so a few are enough. Whatever takes a directory or a symbolic
/// link away empties the cache: a path may then lead elsewhere.
struct DirectoryCache {
    private var directories: [BytePath: OpenDirectory] = [:]
    private var last: (path: BytePath, directory: OpenDirectory)?
    private let limit = 128

    mutating func find(_ path: BytePath) -> OpenDirectory? {
        if let last, last.path == path { return last.directory }
        guard let found = directories[path] else { return nil }
        last = (path, found)
        return found
    }

    mutating func insert(_ directory: OpenDirectory, _ path: BytePath) {
        if directories.count >= limit { directories.removeAll(keepingCapacity: true) }
        directories[path] = directory
        last = (path, directory)
    }

    mutating func removeAll() {
        directories.removeAll(keepingCapacity: true)
        last = nil
    }
}
