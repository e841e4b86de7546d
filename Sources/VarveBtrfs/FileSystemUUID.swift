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
