import Glibc
package import SystemPackage

/// A user of this host.
package struct HostAccount: Hashable, Sendable {
    package let name: String
    package let uid: UInt32
    /// The group that the user's files get.
    package let gid: UInt32

    /// The user of that name, or of that number (getpwnam_r(3), getpwuid_r(3)); nil if the host has none.
    package static func find(_ text: String) throws(Errno) -> HostAccount? {
        if text.utf8.contains(0) { return nil }
        let named = try unsafe look { entry, buffer, size, found in
            unsafe getpwnam_r(text, entry, buffer, size, found)
        }
        if let named { return named }
        guard let uid = UInt32(text) else { return nil }
        return try unsafe look { entry, buffer, size, found in
            unsafe getpwuid_r(uid, entry, buffer, size, found)
        }
    }

    private static func look(
        _ call: (
            UnsafeMutablePointer<passwd>, UnsafeMutablePointer<CChar>, Int,
            UnsafeMutablePointer<UnsafeMutablePointer<passwd>?>
        ) -> CInt
    ) throws(Errno) -> HostAccount? {
        var size = 1024
        while true {
            let (failure, account): (CInt, HostAccount?) = unsafe withUnsafeTemporaryAllocation(
                of: CChar.self, capacity: size
            ) { buffer in
                guard let start = buffer.baseAddress else { return (ENOMEM, nil) }
                var entry = unsafe passwd()
                var found: UnsafeMutablePointer<passwd>?
                let failure = unsafe call(&entry, start, size, &found)
                guard failure == 0, let found = unsafe found, let name = unsafe found.pointee.pw_name else {
                    return (failure, nil)
                }
                return unsafe (
                    0,
                    HostAccount(
                        name: String(cString: name), uid: found.pointee.pw_uid, gid: found.pointee.pw_gid)
                )
            }
            switch failure {
            case ERANGE where size < 1 << 20: size *= 4
            // What these say where there is no such user (getpwnam(3)).
            case 0, ENOENT, ESRCH, EBADF, EPERM: return account
            default: throw Errno(rawValue: failure)
            }
        }
    }
}
