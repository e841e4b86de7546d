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
        fileprivate init?(_ line: Line) {
            var fields = line.kept.split(separator: UInt8(ascii: " "))
            // The mount point behind a path that has no end is not known.
            if !line.isWhole, fields.count == 4 { fields.append([UInt8(ascii: "/")]) }
            guard fields.count > (line.isWhole ? 5 : 4),
                let id = UInt64(String(decoding: fields[0], as: UTF8.self)),
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
        let table = try FileDescriptor.workingDirectory.open("/proc/self/mountinfo", [.readOnly])
        var mounts: [Mount] = []
        try forEachMount(in: table.fd, Cancellation()) { mounts.append($0) }
        return mounts
    }

    /// The mounts of a table, the oldest first. Other users make some of them, in name spaces of their own: nothing limits the size of the table, so
    /// no more of it is held than one line, and of mounts of other file systems nothing is made.
    ///
    /// - Parameters:
    ///   - device: of whose file system; nil for all.
    ///   - cancellation: is asked at each piece that is read.
    /// - Throws: `Errno.canceled` if it was asked to stop.
    static func forEachMount(
        in table: FileDescriptor, device: String? = nil, _ cancellation: Cancellation, _ body: (Mount) -> Void
    ) throws(Errno) {
        let wanted = device.map { Array($0.utf8) }
        func give(_ line: Line) {
            if let wanted, !Self.device(of: line.kept[...]).elementsEqual(wanted) { return }
            if let mount = Mount(line) { body(mount) }
        }
        let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 1)
        defer { unsafe piece.deallocate() }
        var line = Line()
        while true {
            if cancellation.isCancelled { throw .canceled }
            let count = try unsafe table.readSome(into: piece)
            if count == 0 { break }
            var rest = unsafe ArraySlice(piece.prefix(count))
            while let newline = rest.firstIndex(of: UInt8(ascii: "\n")) {
                line.append(rest[..<newline])
                give(line)
                line = Line()
                rest = rest[(newline + 1)...]
            }
            line.append(rest)
        }
        give(line)
    }

    /// A line, as far as it is kept. A path may be of any length, for a directory may lie deeper than a path that the kernel takes reaches. Whether
    /// it leads into a tree is told by its beginning, since the tree was opened by its path.
    fileprivate struct Line {
        /// Bytes. A path that the kernel takes has at most 4096, each of which takes four here (`mangle_path`, fs/seq_file.c).
        static let limit = 1 << 18
        private(set) var kept: [UInt8] = []
        /// Else it ends within a path, before a slash.
        private(set) var isWhole = true

        mutating func append(_ bytes: ArraySlice<UInt8>) {
            guard isWhole else { return }
            isWhole = bytes.count <= Self.limit - kept.count
            kept += bytes.prefix(Self.limit - kept.count)
            if isWhole { return }
            if let slash = kept.lastIndex(of: UInt8(ascii: "/")) { kept.removeLast(kept.count - slash) }
        }
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
