#if Containerd
    import Glibc
    import SystemPackage
    import VarveStore
    import VarveSystem

    /// The Unix socket that containerd connects to.
    enum ListeningSocket {
        private static let backlog: Int32 = 128

        /// The socket that systemd gave to this process (sd_listen_fds(3)); nil if it gave none.
        static func activated() throws -> Int32? {
            guard let process = variable("LISTEN_PID"), Int32(process) == getpid(),
                let count = variable("LISTEN_FDS")
            else { return nil }
            guard count == "1" else {
                throw DaemonError("the service manager gave \(count) sockets, and there is one to serve")
            }
            _ = fcntl(3, F_SETFD, FD_CLOEXEC)
            return 3
        }

        /// Makes the socket at `path`, which root alone may connect to. Its directory is made if it is not there. A socket
        /// that nobody listens at, as a process leaves it that was killed, is replaced.
        static func make(at path: String) throws -> Int32 {
            let place = BytePath(path)
            var address = sockaddr_un()
            guard place.count < MemoryLayout.size(ofValue: address.sun_path) else {
                throw DaemonError("the path \"\(path)\" is too long for a socket")
            }
            address.sun_family = sa_family_t(AF_UNIX)
            unsafe withUnsafeMutableBytes(of: &address.sun_path) { buffer in
                unsafe buffer.copyBytes(from: place.bytes)
            }
            do throws(Errno) {
                try FileDescriptor.workingDirectory.makeDirectory(place.parent, mode: 0o700)
            } catch .fileExists {
            } catch {
                throw VarveError.system("make the directory", place.parent, error)
            }
            let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
            guard descriptor >= 0 else {
                throw VarveError.system("make a socket for", place, Errno(rawValue: errno))
            }
            var result = bound(descriptor, address)
            if result == EADDRINUSE {
                guard connected(address) == ECONNREFUSED else {
                    close(descriptor)
                    throw DaemonError("another process listens at \"\(path)\"")
                }
                _ = unsafe unlink(path)
                result = bound(descriptor, address)
            }
            if result == 0, unsafe chmod(path, 0o600) != 0 || listen(descriptor, backlog) != 0 {
                result = errno
            }
            guard result == 0 else {
                close(descriptor)
                throw VarveError.system("listen at", place, Errno(rawValue: result))
            }
            return descriptor
        }

        private static func bound(_ descriptor: Int32, _ address: sockaddr_un) -> Int32 {
            unsafe call(address) { unsafe bind(descriptor, $0, $1) }
        }

        private static func connected(_ address: sockaddr_un) -> Int32 {
            let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
            guard descriptor >= 0 else { return errno }
            defer { close(descriptor) }
            return unsafe call(address) { unsafe connect(descriptor, $0, $1) }
        }

        /// Zero, or what went wrong.
        private static func call(
            _ address: sockaddr_un, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
        ) -> Int32 {
            unsafe withUnsafePointer(to: address) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                    unsafe body(pointer, socklen_t(MemoryLayout<sockaddr_un>.size)) == 0 ? 0 : errno
                }
            }
        }

        static func variable(_ name: String) -> String? {
            unsafe getenv(name).map { unsafe String(cString: $0) }
        }
    }

    /// What the service manager is told (sd_notify(3)).
    enum ServiceManager {
        static func notify(_ state: String) {
            guard let path = ListeningSocket.variable("NOTIFY_SOCKET"),
                path.hasPrefix("/") || path.hasPrefix("@")
            else {
                return
            }
            var address = sockaddr_un()
            address.sun_family = sa_family_t(AF_UNIX)
            // A name in the abstract name space begins with NUL.
            let name = path.hasPrefix("@") ? [0] + Array(path.utf8.dropFirst()) : Array(path.utf8)
            guard name.count < MemoryLayout.size(ofValue: address.sun_path) else { return }
            unsafe withUnsafeMutableBytes(of: &address.sun_path) { buffer in
                unsafe buffer.copyBytes(from: name)
            }
            let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
            guard descriptor >= 0 else { return }
            defer { close(descriptor) }
            let length = socklen_t(
                MemoryLayout<sa_family_t>.size + name.count + (path.hasPrefix("@") ? 0 : 1))
            let bytes = Array(state.utf8)
            _ = unsafe withUnsafePointer(to: address) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                    unsafe sendto(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL), pointer, length)
                }
            }
        }
    }
#endif
