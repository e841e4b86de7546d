import VarveBtrfs
import VarveSystem
import SystemPackage

/// What keeps a place from being written to, of which the kernel says only that it is read-only (EROFS).
enum ReadOnlyPlace {
    /// What helps, for a path that exists or is to be made.
    static func remedy(near path: BytePath) -> VarveError.Remedy {
        guard let directory = nearest(to: path), let info = try? directory.fd.fileSystem(), !info.isReadOnly,
            let subvolume = subvolume(around: directory), (try? subvolume.fd.isReadOnlySubvolume()) == true,
            let name = try? subvolume.fd.path()
        else { return .mountWritable }
        return .makeSubvolumeWritable(name)
    }

    /// The directory at `path`, or the nearest one above it.
    private static func nearest(to path: BytePath) -> SharedDescriptor? {
        var path = path
        while true {
            let place = path.isEmpty ? BytePath.current : path
            if let opened = try? FileDescriptor.workingDirectory.open(place, [.directory]) {
                return SharedDescriptor(opened)
            }
            if path.isEmpty || path == "/" { return nil }
            path = path.parent
        }
    }

    /// The root of the subvolume that a directory lies in; nil elsewhere than on btrfs.
    private static func subvolume(around directory: SharedDescriptor) -> SharedDescriptor? {
        guard (try? directory.fd.isBtrfs()) == true else { return nil }
        var current = directory
        while true {
            guard let isRoot = try? current.fd.isSubvolume() else { return nil }
            if isRoot { return current }
            guard let status = try? current.fd.status(), let above = try? current.fd.openDirectory(".."),
                let next = try? above.fd.status(), !next.isSameFile(as: status)
            else { return nil }
            current = SharedDescriptor(above)
        }
    }
}
