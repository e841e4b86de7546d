import CLinux
import Glibc
package import SystemPackage

/// Flags of an inode that forbid to change or delete it, which only root sets and takes away (chattr(1), ioctl_iflags(2)).
package struct FileProtection: OptionSet, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `chattr +i`
    package static let immutable = FileProtection(rawValue: VARVE_FLAG_IMMUTABLE)
    /// `chattr +a`
    package static let appendOnly = FileProtection(rawValue: VARVE_FLAG_APPEND)
}

extension FileDescriptor {
    /// The protection of `name` in this directory, by statx(2): nothing is opened, no link followed.
    package func protection(of name: BytePath) throws(Errno) -> FileProtection {
        var flags: UInt32 = 0
        guard unsafe name.withCString({ unsafe varve_protection(rawValue, $0, &flags) }) == 0 else {
            throw Errno(rawValue: errno)
        }
        return FileProtection(rawValue: flags)
    }

    /// Takes the protection of this open file away.
    ///
    /// - Returns: whether it had one.
    @discardableResult
    package func clearProtection() throws(Errno) -> Bool {
        let result = varve_clear_protection(rawValue)
        guard result >= 0 else { throw Errno(rawValue: errno) }
        return result == 1
    }

    /// Takes the protection of `name` in this directory away. Only regular files and directories have one: nothing else is
    /// opened.
    ///
    /// - Returns: whether it had one.
    @discardableResult
    package func clearProtection(of name: BytePath) throws(Errno) -> Bool {
        guard try !protection(of: name).isEmpty else { return false }
        let place = try open(name, [.path, .noFollow])
        let status = try place.fd.status()
        guard status.isRegular || status.isDirectory else { return false }
        // By the place that was looked at, whatever has its name now.
        let opened = try place.fd.reopened([.readOnly, .nonBlocking])
        return try opened.fd.clearProtection()
    }
}
