import CBtrfs
import Glibc
import VarveSystem
package import SystemPackage

/// How a btrfs is filled, in bytes. Data and metadata lie in block groups of their own, which are made of what is unallocated: it is full when
/// either is.
package struct FileSystemUsage: Sendable {
    /// Block groups of one kind.
    package struct Part: Sendable {
        package var size: UInt64
        package var used: UInt64
        package var free: UInt64 { size > used ? size - used : 0 }
    }

    /// Of all devices.
    package var size: UInt64
    /// What no block group has.
    package var unallocated: UInt64
    package var data: Part
    package var metadata: Part
    /// Of the metadata, what the kernel keeps to be able to delete.
    package var reserve: UInt64
    package var devices: UInt64
    /// How often a device failed since the file system was made, or the counts were reset.
    package var errors: UInt64
}

extension FileDescriptor {
    /// `BTRFS_IOC_SPACE_INFO` and its like, of the btrfs that holds this descriptor.
    package func fileSystemUsage() throws(BtrfsError) -> FileSystemUsage {
        var raw = varve_btrfs_usage()
        guard unsafe varve_btrfs_usage(rawValue, &raw) == 0 else {
            throw BtrfsError(.identify, self, errno: Errno(rawValue: errno))
        }
        return FileSystemUsage(
            size: raw.size, unallocated: raw.unallocated,
            data: FileSystemUsage.Part(size: raw.data_total, used: raw.data_used),
            metadata: FileSystemUsage.Part(size: raw.metadata_total, used: raw.metadata_used),
            reserve: raw.reserve, devices: raw.devices, errors: raw.errors)
    }

    /// Gives the btrfs that holds this descriptor, and lies on one device, another size (`BTRFS_IOC_RESIZE`). ENOSPC where what is in it
    /// does not fit; EPERM without `CAP_SYS_ADMIN`.
    package func resizeFileSystem(to bytes: UInt64) throws(Errno) {
        guard varve_btrfs_resize(rawValue, bytes) == 0 else { throw Errno(rawValue: errno) }
    }
}
