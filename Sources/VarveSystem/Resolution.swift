import CLinux

/// How openat2(2) may walk a path (`resolve` in struct open_how).
public struct Resolution: OptionSet, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The directory is the root: `..` and absolute symbolic links stay below it.
    public static let inRoot = Resolution(rawValue: VARVE_RESOLVE_IN_ROOT)
    /// Whatever would leave the directory fails with EXDEV.
    public static let beneath = Resolution(rawValue: VARVE_RESOLVE_BENEATH)
    /// A symbolic link anywhere in the path fails with ELOOP.
    public static let noSymlinks = Resolution(rawValue: VARVE_RESOLVE_NO_SYMLINKS)
    /// A link of /proc to something that is open, which no path may name, fails with ELOOP.
    public static let noMagicLinks = Resolution(rawValue: VARVE_RESOLVE_NO_MAGICLINKS)
    /// A mount point is not entered: EXDEV. A nested subvolume is none.
    public static let noCrossing = Resolution(rawValue: VARVE_RESOLVE_NO_XDEV)
}

/// Flags of open(2). `O_CLOEXEC` is always added.
public struct OpenFlags: OptionSet, Sendable {
    public let rawValue: Int32
    public init(rawValue: Int32) { self.rawValue = rawValue }

    public static let readOnly = OpenFlags([])
    public static let writeOnly = OpenFlags(rawValue: 0o1)
    public static let readWrite = OpenFlags(rawValue: 0o2)
    public static let create = OpenFlags(rawValue: 0o100)
    public static let exclusive = OpenFlags(rawValue: 0o200)
    public static let truncate = OpenFlags(rawValue: 0o1000)
    public static let append = OpenFlags(rawValue: 0o2000)
    public static let nonBlocking = OpenFlags(rawValue: 0o4000)
    public static let directory = OpenFlags(rawValue: 0o200000)
    public static let noFollow = OpenFlags(rawValue: 0o400000)
    public static let noAccessTime = OpenFlags(rawValue: 0o1000000)
    /// A handle to the place only: nothing is opened, no permission of the file is needed.
    public static let path = OpenFlags(rawValue: VARVE_O_PATH)
}
