import CLinux
import Glibc
package import SystemPackage

/// Flags of mount(2).
package struct MountFlags: OptionSet, Sendable {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    package static let readOnly = MountFlags(rawValue: VARVE_MS_RDONLY)
    package static let noSetID = MountFlags(rawValue: VARVE_MS_NOSUID)
    package static let noDevices = MountFlags(rawValue: VARVE_MS_NODEV)
    package static let noExecution = MountFlags(rawValue: VARVE_MS_NOEXEC)
    package static let noAccessTime = MountFlags(rawValue: VARVE_MS_NOATIME)
    package static let remount = MountFlags(rawValue: VARVE_MS_REMOUNT)
    package static let bind = MountFlags(rawValue: VARVE_MS_BIND)
}

/// mount(2). `options` are those of the file system, with commas between them.
package func mount(
    _ source: BytePath, at target: BytePath, type: String, flags: MountFlags = [], options: String = ""
) throws(Errno) {
    let result = unsafe source.withCString { source in
        unsafe target.withCString { target in
            unsafe BytePath(type).withCString { type in
                unsafe BytePath(options).withCString { options in
                    unsafe varve_mount(source, target, type, flags.rawValue, options)
                }
            }
        }
    }
    if result != 0 { throw Errno(rawValue: errno) }
}

/// umount2(2). `detaching` (`MNT_DETACH`) takes the mount out of the tree at once, and away when nothing uses it.
package func unmount(_ target: BytePath, detaching: Bool = false) throws(Errno) {
    let result = unsafe target.withCString { unsafe varve_umount($0, detaching ? VARVE_MNT_DETACH : 0) }
    if result != 0 { throw Errno(rawValue: errno) }
}
