import CLinux
import Glibc
package import SystemPackage

/// What this process may do, as the kernel sees it.
package enum Privileges {
    /// Root of the host, not of a user name space: the first name space maps all ids (user_namespaces(7)).
    package static var isRoot: Bool { geteuid() == 0 && hasAllUsers }

    /// Whether the user name space of this process has all users, as the first one has.
    package static var hasAllUsers: Bool {
        guard let map = try? FileDescriptor.workingDirectory.readFile("/proc/self/uid_map", limit: 4096)
        else {
            return true
        }
        return map.split(whereSeparator: { $0 == 0x20 || $0 == 0x0a }).elementsEqual(
            [Array("0".utf8), Array("0".utf8), Array("4294967295".utf8)], by: { $0.elementsEqual($1) })
    }

    /// Puts a process without privileges, while it has one thread, into a user name space of its own: its own files can
    /// then be read and changed whatever their modes are, as root can with all files. Nothing else changes for it.
    package static func enterUserNamespace() throws(Errno) {
        if varve_enter_user_namespace() != 0 { throw Errno(rawValue: errno) }
    }
}

extension VarveError.Remedy {
    /// What helps this process against EPERM and EACCES.
    package static var gainPermission: VarveError.Remedy {
        if geteuid() != 0 { return .runAsRootOrRootless }
        // Root of the host is let do all that no flag forbids, and no security module.
        return Privileges.hasAllUsers
            ? .follow(
                "see whether a flag of chattr(1) protects the file, or a directory that is written to (lsattr -d), and take it away"
            )
            : .runAsRootOfHost
    }
}
