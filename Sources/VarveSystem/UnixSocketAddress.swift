import CLinux
package import Glibc
package import SystemPackage

/// The address of a Unix socket (unix(7)).
package struct UnixSocketAddress {
    private var address = sockaddr_un()
    private let length: socklen_t

    /// - Parameter name: the path of the socket, or a name in the abstract name space, which begins with NUL. Nil for a longer one than the
    ///   kernel takes.
    package init?(_ name: some Collection<UInt8>) {
        guard name.count < MemoryLayout.size(ofValue: address.sun_path) else { return nil }
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { buffer in
            unsafe buffer.copyBytes(from: name)
        }
        // A path has its closing NUL.
        length = socklen_t(MemoryLayout<sa_family_t>.size + name.count + (name.first == 0 ? 0 : 1))
    }

    /// Calls `body` with the address: bind(2), connect(2), sendto(2).
    package func call<R>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> R) -> R {
        unsafe withUnsafePointer(to: address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe body($0, length) }
        }
    }

    /// Connects, and hangs up: whether somebody listens there.
    package func tryConnecting() throws(Errno) {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw Errno(rawValue: errno) }
        let result = unsafe call { unsafe connect(descriptor, $0, $1) == 0 ? 0 : errno }
        close(descriptor)
        guard result == 0 else { throw Errno(rawValue: result) }
    }
}
