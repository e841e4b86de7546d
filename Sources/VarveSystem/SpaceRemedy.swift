import SystemPackage

extension VarveError.Remedy {
    /// What helps against ENOSPC: to free space on the mount that holds `path`, or is to hold it.
    package static func freeSpace(near path: BytePath) -> VarveError.Remedy {
        .freeSpace(on: fullMount(near: path))
    }
}

private func fullMount(near path: BytePath) -> BytePath? {
    var place = path
    // A name alone may be one in a directory that only the caller knows.
    while !place.isEmpty {
        if let opened = try? FileDescriptor.workingDirectory.open(place, [.path]) {
            guard let id = try? opened.fd.mountID(), let mounts = try? MountTable.read(),
                let mount = mounts.first(where: { $0.id == id })
            else { return nil }
            return mount.point
        }
        if place == "/" { break }
        place = place.parent
    }
    return nil
}
