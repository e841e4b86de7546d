package import SystemPackage

/// The mounts that this process sees (proc_pid_mountinfo(5)): those of its mount name space that lie below its root.
package enum MountTable {
    /// One mount: a line of `/proc/self/mountinfo`.
    package struct Mount: Sendable {
        /// As statx(2) gives it with `STATX_MNT_ID`.
        package var id: UInt64
        /// Which file system it is of: the number of its device, as `MAJOR:MINOR`. All subvolumes of a btrfs have the same.
        package var device: String
        /// The absolute path of the mount point. Several mounts may lie on one, the newest on top.
        package var point: BytePath
        /// What of the file system is mounted there: the path of its root directory in that.
        package var root: BytePath
        /// What was mounted, such as the path of a device.
        package var source: BytePath
        /// Those that hold for all mounts of the file system (the last field).
        package var fileSystemOptions: [String]
    }

    /// All mounts, the oldest first.
    package static func read() throws(Errno) -> [Mount] {
        parse(try FileDescriptor.workingDirectory.readFile("/proc/self/mountinfo", limit: sizeLimit))
    }

    /// Bytes of a table: more than a host can have.
    static let sizeLimit = 64 << 20

    /// The mounts of a table, as it was read.
    static func parse(_ bytes: [UInt8]) -> [Mount] {
        bytes.split(separator: UInt8(ascii: "\n")).compactMap { line in
            let fields = line.split(separator: UInt8(ascii: " "))
            guard fields.count > 5, let id = UInt64(String(decoding: fields[0], as: UTF8.self)),
                let root = BytePath(unescapingOctal: fields[3]),
                let point = BytePath(unescapingOctal: fields[4]),
                let source = BytePath(unescapingOctal: fields[fields.count - 2]), let options = fields.last
            else { return nil }
            return Mount(
                id: id, device: String(decoding: fields[2], as: UTF8.self), point: point,
                root: root, source: source,
                fileSystemOptions: String(decoding: options, as: UTF8.self).split(separator: ",").map {
                    String($0)
                })
        }
    }

    /// The mounts on the directory `path` itself and below it, the oldest first. `path` is absolute and holds no symbolic
    /// link, as `FileDescriptor.path()` gives it.
    package static func mounts(below path: BytePath) throws(Errno) -> [Mount] {
        let components = path.components
        return try read().filter { $0.point.components.starts(with: components) }
    }
}

extension FileDescriptor {
    /// The options of the file system on which this file lies: those that hold for all its mounts. Empty where the mount
    /// table does not have its mount.
    package func fileSystemOptions() throws(Errno) -> [String] {
        let id = try mountID()
        return try MountTable.read().first { $0.id == id }?.fileSystemOptions ?? []
    }
}
