package import VarveSystem
package import SystemPackage

extension FileDescriptor {
    /// Calls `body` with the root directory of each subvolume that lies below the one of which this descriptor is the root, however deep, and
    /// what is recorded of it. Needs no privilege; what the caller may not reach and read is passed over, as is what is deleted meanwhile.
    package func forEachVisibleSubvolume(
        _ body: (SharedDescriptor, SubvolumeInfo) throws(BtrfsError) -> Void
    ) throws(BtrfsError) {
        var pending: [SharedDescriptor] = []
        func look(in outer: FileDescriptor) throws(BtrfsError) {
            for nested in try outer.nestedSubvolumes(passingOverClosed: true) {
                // Something else may lie there by now, or a file system be mounted on it.
                guard let found = try outer.visible(nested.path),
                    let info = try found.fd.subvolumeInfoIfPresent(), info.id == nested.id
                else { continue }
                try body(found, info)
                pending.append(found)
            }
        }
        try look(in: self)
        while let next = pending.popLast() { try look(in: next.fd) }
    }

    /// The directory at a path below this one; nil for what is not there, lies on another mount, or may not be entered or read.
    private func visible(_ path: BytePath) throws(BtrfsError) -> SharedDescriptor? {
        do throws(Errno) {
            return SharedDescriptor(
                try open(path, [.directory, .noFollow], resolve: [.beneath, .noSymlinks, .noCrossing]))
        } catch {
            if [error.isAbsence, error == .improperLink, error == .permissionDenied].contains(true) {
                return nil
            }
            throw BtrfsError(.listSubvolumes, self, path, errno: error)
        }
    }

    /// The root directory of the outermost subvolume that holds this directory and is reached through the same mount; nil where the mount
    /// shows a part of a subvolume alone.
    package func outermostSubvolume() throws(Errno) -> SharedDescriptor? {
        let mount = try mountID()
        var current = SharedDescriptor(try open(.current, [.directory, .path]))
        var result: SharedDescriptor?
        while true {
            // The root directory of a subvolume has this number (BTRFS_FIRST_FREE_OBJECTID).
            let status = try current.fd.status()
            if status.inode == 256 { result = current }
            let above: SharedDescriptor
            do throws(Errno) {
                above = SharedDescriptor(try current.fd.open("..", [.directory, .path]))
            } catch .permissionDenied {
                break
            }
            guard try above.fd.mountID() == mount, try !above.fd.status().isSameFile(as: status) else {
                break
            }
            current = above
        }
        guard let result else { return nil }
        return SharedDescriptor(try result.fd.open(.current, [.directory]))
    }
}
