import SystemPackage

/// What helps against ENOSPC, for messages: which mount is full that holds `path`, or is to hold it.
package func spaceRemedy(near path: BytePath) -> String {
    let unknown = "free space on this file system or enlarge it"
    var place = path
    // A name alone may be one in a directory that only the caller knows.
    while !place.isEmpty {
        if let opened = try? FileDescriptor.workingDirectory.open(place, [.path]) {
            guard let id = try? opened.fd.mountID(), let mounts = try? MountTable.read(),
                let mount = mounts.first(where: { $0.id == id })
            else { return unknown }
            return "free space on the file system that is mounted at \"\(mount.point)\", or enlarge it"
        }
        if place == "/" { break }
        place = place.parent
    }
    return unknown
}
