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

/// A file or directory whose flags of chattr(1) stand in the way.
package struct ProtectedFile: Hashable, Sendable {
    package var path: BytePath
    /// The flag as chattr(1) has it.
    package var flag: String

    /// Nil if nothing protects `name` in `directory`, or that cannot be told.
    ///
    /// - Parameter path: of it, for messages.
    package init?(_ name: BytePath, in directory: FileDescriptor, path: BytePath) {
        guard let protection = try? directory.protection(of: name), !protection.isEmpty else { return nil }
        self.path = path
        flag = protection.contains(.immutable) ? "i" : "a"
    }

    /// What forbids an operation on `path` that failed with EPERM: its own flags, or those of the directory that it lies in.
    package static func near(_ path: BytePath) -> ProtectedFile? {
        let here = FileDescriptor.workingDirectory
        return ProtectedFile(path, in: here, path: path)
            ?? ProtectedFile(path.directory, in: here, path: path.directory)
    }

    /// What is wrong, as a clause.
    package var problem: String { "\"\(path)\" bears the flag \(flag) of chattr(1)" }
    package var remedy: VarveError.Remedy { .clearFlag(flag, of: path) }
}

extension VarveError.Remedy {
    /// What helps this process against EPERM or EACCES for something that it did with `path`.
    package static func gainPermission(_ errno: Errno, on path: BytePath) -> VarveError.Remedy {
        (errno == .notPermitted ? ProtectedFile.near(path)?.remedy : nil) ?? .gainPermission
    }
}
