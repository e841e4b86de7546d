import CLinux

/// How openat2(2) may walk a path (`resolve` in struct open_how).
package struct Resolution: OptionSet, Sendable {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    /// A list of flags is written wherever something is opened. The standard library makes a set of it in a generic way, which is not
    /// specialized in other modules.
    package init(arrayLiteral flags: Self...) {
        var all: UInt64 = 0
        for flag in flags { all |= flag.rawValue }
        self.init(rawValue: all)
    }

    /// The directory is the root: `..` and absolute symbolic links stay below it.
    package static let inRoot = Resolution(rawValue: VARVE_RESOLVE_IN_ROOT)
    /// Whatever would leave the directory fails with EXDEV.
    package static let beneath = Resolution(rawValue: VARVE_RESOLVE_BENEATH)
    /// A symbolic link anywhere in the path fails with ELOOP.
    package static let noSymlinks = Resolution(rawValue: VARVE_RESOLVE_NO_SYMLINKS)
    /// A link of /proc to something that is open, which no path may name, fails with ELOOP.
    package static let noMagicLinks = Resolution(rawValue: VARVE_RESOLVE_NO_MAGICLINKS)
    /// A mount point is not entered: EXDEV. A nested subvolume is none.
    package static let noCrossing = Resolution(rawValue: VARVE_RESOLVE_NO_XDEV)
}

/// Flags of open(2). `O_CLOEXEC` is always added.
package struct OpenFlags: OptionSet, Sendable {
    package let rawValue: Int32
    package init(rawValue: Int32) { self.rawValue = rawValue }

    /// A list of flags is written wherever something is opened. The standard library makes a set of it in a generic way, which is not
    /// specialized in other modules.
    package init(arrayLiteral flags: Self...) {
        var all: Int32 = 0
        for flag in flags { all |= flag.rawValue }
        self.init(rawValue: all)
    }

    package static let readOnly = OpenFlags([])
    package static let writeOnly = OpenFlags(rawValue: 0o1)
    package static let readWrite = OpenFlags(rawValue: 0o2)
    package static let create = OpenFlags(rawValue: 0o100)
    package static let exclusive = OpenFlags(rawValue: 0o200)
    package static let truncate = OpenFlags(rawValue: 0o1000)
    package static let append = OpenFlags(rawValue: 0o2000)
    package static let nonBlocking = OpenFlags(rawValue: 0o4000)
    package static let directory = OpenFlags(rawValue: 0o200000)
    package static let noFollow = OpenFlags(rawValue: 0o400000)
    package static let noAccessTime = OpenFlags(rawValue: 0o1000000)
    /// A handle to the place only: nothing is opened, no permission of the file is needed.
    package static let path = OpenFlags(rawValue: VARVE_O_PATH)
}
