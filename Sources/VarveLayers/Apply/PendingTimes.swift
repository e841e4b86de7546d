import VarveArchive
import VarveSystem
import SystemPackage

/// The times that directories are to have when the layer is done: those of their own entries, or else those that they
/// had before the layer put something into them.
struct PendingTimes {
    private struct Times {
        /// Free of symbolic links, which the layer may yet replace.
        var place: PathTable.Place
        var access: Timestamp
        var modification: Timestamp
    }

    /// By inode number: several paths may lead to one directory.
    private var directories: [UInt64: Times] = [:]

    /// Remembers what a directory has now, unless something is known of it already.
    mutating func keep(_ status: FileStatus, at place: PathTable.Place) {
        if directories[status.inode] == nil {
            directories[status.inode] = Times(
                place: place, access: status.accessTime, modification: status.modificationTime)
        }
    }

    /// A new directory has this inode number.
    mutating func forget(_ inode: UInt64) { directories[inode] = nil }

    /// Takes the times of a directory's own entry.
    mutating func set(_ entry: TarEntry, at place: PathTable.Place, inode: UInt64) {
        directories[inode] = Times(
            place: place, access: entry.accessTime ?? entry.modificationTime,
            modification: entry.modificationTime)
    }

    /// - Parameter paths: the table of the places.
    /// - Throws: also `LayerError.cancelled`.
    func restore(
        in root: FileDescriptor, _ paths: PathTable, _ cancellation: Cancellation
    ) throws(LayerError) {
        for (inode, times) in directories {
            if cancellation.isCancelled { throw .cancelled }
            let path = paths.path(of: times.place)
            try attempt("set the times of", path) { () throws(Errno) in
                let directory: OwnedDescriptor
                do throws(Errno) {
                    directory = try root.open(
                        path.isEmpty ? .current : path, [.directory], resolve: .inRoot)
                } catch  where error.isAbsence {
                    return
                }
                // Gone since, and something else has its path.
                guard try directory.fd.status().inode == inode else { return }
                try directory.fd.setTimes(access: times.access, modification: times.modification)
            }
        }
    }
}
