package import SystemPackage
import VarveFormats

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
        /// Source and options of the file system, the last two fields.
        private let ofFileSystem: [ArraySlice<UInt8>]

        /// Nil for what is no such line.
        fileprivate init?(_ line: ArraySlice<UInt8>) {
            let fields = line.split(separator: UInt8(ascii: " "))
            guard fields.count > 5, let id = UInt64(String(decoding: fields[0], as: UTF8.self)),
                let root = BytePath(unescapingOctal: fields[3]),
                let point = BytePath(unescapingOctal: fields[4])
            else { return nil }
            self.id = id
            device = String(decoding: fields[2], as: UTF8.self)
            self.point = point
            self.root = root
            ofFileSystem = fields.suffix(2)
        }

        /// What was mounted, such as the path of a device.
        package var source: BytePath? { ofFileSystem.first.flatMap { BytePath(unescapingOctal: $0) } }

        /// Those that hold for all mounts of the file system.
        package var fileSystemOptions: [String] {
            let options = ofFileSystem.last ?? []
            return String(decoding: options, as: UTF8.self).split(separator: ",").map { String($0) }
        }
    }

    /// All mounts, the oldest first.
    package static func read() throws(Errno) -> [Mount] {
        parse(try FileDescriptor.workingDirectory.readFile("/proc/self/mountinfo", limit: sizeLimit))
    }

    /// Bytes of a table: more than a host can have.
    static let sizeLimit = 64 << 20

    /// The mounts of a table, as it was read. A container may have very many: of those of other file systems nothing is made.
    ///
    /// - Parameter device: of whose file system; nil for all.
    static func parse(_ bytes: [UInt8], device: String? = nil) -> [Mount] {
        let wanted = device.map { Array($0.utf8) }
        var mounts: [Mount] = []
        var rest = bytes[...]
        while let line = rest.removeLine() {
            if let wanted, !Self.device(of: line).elementsEqual(wanted) { continue }
            if let mount = Mount(line) { mounts.append(mount) }
        }
        return mounts
    }

    /// The third field of a line.
    private static func device(of line: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        func afterField(_ line: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
            line.drop { $0 != UInt8(ascii: " ") }.dropFirst()
        }
        return afterField(afterField(line)).prefix { $0 != UInt8(ascii: " ") }
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
