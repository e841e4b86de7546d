import CLinux
import Glibc
public import SystemPackage

/// Flags of mount(2).
public struct MountFlags: OptionSet, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    public static let readOnly = MountFlags(rawValue: VARVE_MS_RDONLY)
    public static let noSetID = MountFlags(rawValue: VARVE_MS_NOSUID)
    public static let noDevices = MountFlags(rawValue: VARVE_MS_NODEV)
    public static let noExecution = MountFlags(rawValue: VARVE_MS_NOEXEC)
    public static let noAccessTime = MountFlags(rawValue: VARVE_MS_NOATIME)
    public static let remount = MountFlags(rawValue: VARVE_MS_REMOUNT)
    public static let bind = MountFlags(rawValue: VARVE_MS_BIND)
}

/// mount(2). `options` are those of the file system, with commas between them.
public func mount(
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
public func unmount(_ target: BytePath, detaching: Bool = false) throws(Errno) {
    let result = unsafe target.withCString { unsafe varve_umount($0, detaching ? VARVE_MNT_DETACH : 0) }
    if result != 0 { throw Errno(rawValue: errno) }
}
