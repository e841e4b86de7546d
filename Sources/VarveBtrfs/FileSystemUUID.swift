import CBtrfs
import Glibc
package import BtrfsSendStream
import VarveSystem
package import SystemPackage

extension FileDescriptor {
    /// Bytes of a node or leaf of the trees of the btrfs that holds this descriptor (`BTRFS_IOC_FS_INFO`).
    package func nodeSize() throws(BtrfsError) -> Int {
        let size = varve_btrfs_node_size(rawValue)
        guard size > 0 else { throw BtrfsError(.identify, self, errno: Errno(rawValue: errno)) }
        return Int(size)
    }

    /// The UUID of the btrfs that holds this descriptor (`BTRFS_IOC_FS_INFO`): the same for all its subvolumes and
    /// mounts, which `st_dev` and `f_fsid` are not.
    package func fileSystemUUID() throws(BtrfsError) -> SubvolumeUUID {
        var bytes: (UInt64, UInt64) = (0, 0)
        let result = unsafe withUnsafeMutableBytes(of: &bytes) { raw in
            unsafe raw.baseAddress.map {
                unsafe varve_btrfs_filesystem_uuid(rawValue, $0.assumingMemoryBound(to: UInt8.self))
            } ?? -1
        }
        guard result == 0 else { throw BtrfsError(.identify, self, errno: Errno(rawValue: errno)) }
        return unsafe withUnsafeBytes(of: bytes) { unsafe SubvolumeUUID($0) } ?? .zero
    }
}

extension FileDescriptor {
    /// Whether the btrfs of this descriptor has room for data, so that it is metadata where something is full: its block groups for data
    /// have 16 MiB free. Space that no block group has is left for either.
    package func hasRoomForDataAlone() throws(BtrfsError) -> Bool {
        let usage = try fileSystemUsage()
        let least: UInt64 = 16 << 20
        return usage.unallocated < least && usage.data.free >= least
    }
}
