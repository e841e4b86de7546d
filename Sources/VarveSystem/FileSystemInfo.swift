import CLinux
import Glibc
package import SystemPackage

/// What statfs(2) says of a file system.
package struct FileSystemInfo: Sendable {
    /// `f_type`, the magic number of statfs(2).
    package var magic: UInt64
    /// The mount's flags, `ST_*`.
    package var flags: UInt64

    package var isBtrfs: Bool { magic == VARVE_BTRFS_SUPER_MAGIC }
    /// Whether what is written to a mapped file gives it a change time again once its pages were written out: nothing is written out on tmpfs and
    /// ramfs (linux/magic.h), and overlayfs may lie on them.
    package var datesMappedWrites: Bool {
        ![0x0102_1994, 0x8584_58f6, 0x794c_7630].contains(magic)
    }
    /// Where pipes without a name lie (PIPEFS_MAGIC, linux/magic.h).
    package var isOfPipes: Bool { magic == 0x5049_5045 }
    /// ST_RDONLY: of the mount. A subvolume of btrfs may be read-only without it.
    package var isReadOnly: Bool { flags & 1 != 0 }
    package var isNoAccessTime: Bool { flags & VARVE_ST_NOATIME != 0 }
}

extension FileDescriptor {
    /// Bytes that the caller may still write to the file system on which this file lies (fstatvfs(3), `f_bavail`).
    package func freeBytes() throws(Errno) -> Int64 {
        var raw = statvfs()
        guard unsafe fstatvfs(rawValue, &raw) == 0 else { throw Errno(rawValue: errno) }
        let (bytes, overflows) = UInt64(raw.f_bavail).multipliedReportingOverflow(by: UInt64(raw.f_frsize))
        return overflows ? .max : Int64(clamping: bytes)
    }

    /// fstatfs(2).
    package func fileSystem() throws(Errno) -> FileSystemInfo {
        var magic: UInt64 = 0
        var flags: UInt64 = 0
        guard unsafe varve_fstatfs(rawValue, &magic, &flags) == 0 else { throw Errno(rawValue: errno) }
        return FileSystemInfo(magic: magic, flags: flags)
    }
}
