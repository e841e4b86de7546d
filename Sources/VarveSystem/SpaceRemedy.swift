import SystemPackage

extension VarveError.Remedy {
    /// What helps against ENOSPC: to free space on the mount that holds `path`, or is to hold it.
    package static func freeSpace(near path: BytePath) -> VarveError.Remedy {
        .freeSpace(on: MountTable.point(near: path))
    }
}

extension MountTable {
    /// Where the file system is mounted that holds `path`, or is to hold it. Nil where that cannot be told: a name alone may be one in
    /// a directory that only the caller knows.
    package static func point(near path: BytePath) -> BytePath? {
        var place = path
        while !place.isEmpty {
            if let opened = try? FileDescriptor.workingDirectory.open(place, [.path]) {
                guard let id = try? opened.fd.mountID(), let mounts = try? read() else { return nil }
                return mounts.first { $0.id == id }?.point
            }
            if place == "/" { break }
            place = place.parent
        }
        return nil
    }
}
