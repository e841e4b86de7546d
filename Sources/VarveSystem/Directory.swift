import CLinux
import Glibc
package import SystemPackage

/// One entry of a directory as getdents64(2) gives it.
package struct DirectoryEntry: Sendable {
    package var name: BytePath
    /// The inode number in the directory item. For a nested subvolume or a mount point it is not the number that
    /// stat(2) gives.
    package var inode: UInt64
    /// Nil where the file system does not say.
    package var type: FileType?

    package init(name: BytePath, inode: UInt64, type: FileType?) {
        self.name = name
        self.inode = inode
        self.type = type
    }
}

extension FileDescriptor {
    /// The entries of this directory, `.` and `..` left out, in the order of the file system. The descriptor must be
    /// open for reading (not `O_PATH`) and stands at the end afterwards; its position is set to the start first.
    package func entries() throws(Errno) -> [DirectoryEntry] {
        guard Glibc.lseek(rawValue, 0, SEEK_SET) >= 0 else { throw Errno(rawValue: errno) }
        var result = [DirectoryEntry]()
        let outcome: Errno? = unsafe withUnsafeTemporaryAllocation(byteCount: 32_768, alignment: 8) {
            buffer in
            while true {
                let filled = unsafe varve_getdents64(rawValue, buffer.baseAddress, buffer.count)
                if filled < 0 {
                    if errno == EINTR { continue }
                    return Errno(rawValue: errno)
                }
                if filled == 0 { return nil }
                var offset = 0
                // struct linux_dirent64: u64 inode, i64 offset, u16 length, u8 type, name with NUL (getdents64(2)).
                while offset + 19 < filled {
                    let inode = unsafe buffer.load(fromByteOffset: offset, as: UInt64.self)
                    let length = Int(unsafe buffer.load(fromByteOffset: offset + 16, as: UInt16.self))
                    let type = unsafe buffer.load(fromByteOffset: offset + 18, as: UInt8.self)
                    guard length > 19, offset + length <= filled else { return .ioError }
                    let name = unsafe buffer[(offset + 19)..<(offset + length)].prefix { $0 != 0 }
                    offset += length
                    let isDot = unsafe name.count == 1 && name.first == 0x2e
                    let isDotDot = unsafe name.count == 2 && name.allSatisfy { $0 == 0x2e }
                    if isDot || isDotDot { continue }
                    guard let path = unsafe BytePath(name) else { return .ioError }
                    // DT_* is the type bits of the mode, shifted (dirent.h, DTTOIF).
                    result.append(
                        DirectoryEntry(name: path, inode: inode, type: FileType(rawValue: UInt32(type) << 12))
                    )
                }
            }
        }
        if let outcome { throw outcome }
        return result
    }
}
