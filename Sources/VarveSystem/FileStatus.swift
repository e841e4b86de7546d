import CLinux
import Glibc

/// Seconds and nanoseconds since 1970-01-01T00:00:00Z; nanoseconds are 0 … 999,999,999, also before the epoch.
public struct Timestamp: Hashable, Comparable, Sendable {
    /// Seconds since 1970-01-01 00:00 UTC; negative before.
    public var seconds: Int64
    /// 0 to 999,999,999 nanoseconds after the second.
    public var nanoseconds: UInt32

    /// A time.
    public init(seconds: Int64, nanoseconds: UInt32 = 0) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }

    init(_ time: timespec) {
        self.init(seconds: Int64(time.tv_sec), nanoseconds: UInt32(truncatingIfNeeded: time.tv_nsec))
    }

    var timespec: timespec { Glibc.timespec(tv_sec: Int(seconds), tv_nsec: Int(nanoseconds)) }

    package static let epoch = Timestamp(seconds: 0)

    /// The time of day (clock_gettime(2), CLOCK_REALTIME).
    package static func now() -> Timestamp {
        var time = Glibc.timespec()
        unsafe clock_gettime(CLOCK_REALTIME, &time)
        return Timestamp(time)
    }

    public static func < (left: Timestamp, right: Timestamp) -> Bool {
        (left.seconds, left.nanoseconds) < (right.seconds, right.nanoseconds)
    }
}

/// The type bits of a mode, inode(7).
public enum FileType: UInt32, Sendable, CaseIterable {
    /// A regular file.
    case regular = 0o100000
    /// A directory.
    case directory = 0o040000
    /// A symbolic link.
    case symbolicLink = 0o120000
    /// A character device.
    case characterDevice = 0o020000
    /// A block device.
    case blockDevice = 0o060000
    /// A named pipe.
    case fifo = 0o010000
    /// A socket.
    case socket = 0o140000
}

/// What stat(2) says of a file.
package struct FileStatus: Hashable, Sendable {
    package var device: UInt64
    package var inode: UInt64
    /// Type and permission bits.
    package var mode: UInt32
    package var linkCount: UInt64
    package var uid: UInt32
    package var gid: UInt32
    /// Device number of a device node, as major and minor.
    package var deviceMajor: UInt32
    package var deviceMinor: UInt32
    /// Bytes; for a symbolic link, the length of its target.
    package var size: Int64
    /// Storage in use, in units of 512 bytes.
    package var blocks: Int64
    package var accessTime: Timestamp
    package var modificationTime: Timestamp
    package var changeTime: Timestamp

    /// What was written down of a file: all zero but for what the caller sets.
    package init(mode: UInt32) {
        self.mode = mode
        (device, inode, linkCount) = (0, 0, 1)
        (uid, gid, deviceMajor, deviceMinor) = (0, 0, 0, 0)
        (size, blocks) = (0, 0)
        (accessTime, modificationTime, changeTime) = (.epoch, .epoch, .epoch)
    }

    init(_ raw: Glibc.stat) {
        device = UInt64(raw.st_dev)
        inode = UInt64(raw.st_ino)
        mode = raw.st_mode
        linkCount = UInt64(raw.st_nlink)
        uid = raw.st_uid
        gid = raw.st_gid
        deviceMajor = varve_major(UInt64(raw.st_rdev))
        deviceMinor = varve_minor(UInt64(raw.st_rdev))
        size = Int64(raw.st_size)
        blocks = Int64(raw.st_blocks)
        accessTime = Timestamp(raw.st_atim)
        modificationTime = Timestamp(raw.st_mtim)
        changeTime = Timestamp(raw.st_ctim)
    }

    /// Nil for a type that inode(7) does not know.
    package var type: FileType? { FileType(rawValue: mode & 0o170000) }
    /// The low twelve bits: set-user-ID, set-group-ID, sticky and rwx.
    package var permissions: UInt32 { mode & 0o7777 }
    package var isDirectory: Bool { mode & 0o170000 == FileType.directory.rawValue }
    package var isRegular: Bool { mode & 0o170000 == FileType.regular.rawValue }
    package var isSymbolicLink: Bool { mode & 0o170000 == FileType.symbolicLink.rawValue }

    /// Whether both are of one and the same file.
    package func isSameFile(as other: FileStatus) -> Bool { inode == other.inode && device == other.device }
}

/// What statx(2) says of a name: the file that a look-up finds there, and the mount on which that lies.
package struct MountedStatus: Sendable {
    package var status: FileStatus
    /// `stx_mnt_id`, as the mount table has it.
    package var mount: UInt64
}
