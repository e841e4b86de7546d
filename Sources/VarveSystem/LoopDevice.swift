import CLinux
import Glibc
package import SystemPackage

/// A file that the kernel shows as a block device, loop(4). It is taken apart when this value goes away, or, while a
/// file system on it is mounted, when that is unmounted.
package struct LoopDevice: ~Copyable, Sendable {
    private let device: OwnedDescriptor
    /// `/dev/loopN`.
    package let path: BytePath
    package var fd: FileDescriptor { device.fd }

    /// Attaches `image` to a free device (`LOOP_CTL_GET_FREE`, `LOOP_CONFIGURE` with `LO_FLAGS_AUTOCLEAR`; Linux 5.8).
    /// The descriptor is not needed afterwards. EPERM or EACCES without `CAP_SYS_ADMIN`; ENOENT where the kernel has
    /// no loop driver or a container hides `/dev/loop-control`.
    package init(image: FileDescriptor, readOnly: Bool = false) throws(Errno) {
        var number: CInt = 0
        let fd = unsafe varve_loop_attach(image.rawValue, readOnly ? 1 : 0, &number)
        guard fd >= 0 else { throw Errno(rawValue: errno) }
        device = OwnedDescriptor(owning: FileDescriptor(rawValue: fd))
        path = BytePath("/dev/loop\(number)")
    }
}
