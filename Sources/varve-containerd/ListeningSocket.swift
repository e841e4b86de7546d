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
            guard let address = UnixSocketAddress(place.bytes) else {
                throw DaemonError("the path \"\(path)\" is too long for a socket")
            }
            do throws(Errno) {
                try FileDescriptor.workingDirectory.makeDirectory(place.parent, mode: 0o700)
            } catch .fileExists {
            } catch {
                throw VarveError.system("make the directory", place.parent, error)
            }
            let parent: SharedDescriptor
            do throws(PlaceError) {
                parent = SharedDescriptor(try Place.directory(place.directory, .own))
            } catch {
                throw VarveError(error, "listen at", place)
            }
            let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
            guard descriptor >= 0 else {
                throw VarveError.system("make a socket for", place, Errno(rawValue: errno))
            }
            var result = bound(descriptor, address)
            if result == EADDRINUSE {
                // A connection to what is no socket is refused as well.
                let isSocket = (try? parent.fd.status(of: place.lastComponent))?.type == .socket
                guard isSocket, isLeft(address) else {
                    close(descriptor)
                    throw DaemonError(
                        isSocket
                            ? "another process listens at \"\(path)\""
                            : "there is something at \"\(path)\" that is no socket: name another address")
                }
                try? parent.fd.unlink(place.lastComponent)
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

        private static func bound(_ descriptor: Int32, _ address: UnixSocketAddress) -> Int32 {
            unsafe address.call { unsafe bind(descriptor, $0, $1) == 0 ? 0 : errno }
        }

        /// Whether nobody listens there any more.
        private static func isLeft(_ address: UnixSocketAddress) -> Bool {
            do throws(Errno) { try address.tryConnecting() } catch { return error == .connectionRefused }
            return false
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
            // A name in the abstract name space begins with NUL.
            let name = path.hasPrefix("@") ? [0] + Array(path.utf8.dropFirst()) : Array(path.utf8)
            guard let address = UnixSocketAddress(name) else { return }
            let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
            guard descriptor >= 0 else { return }
            defer { close(descriptor) }
            let bytes = Array(state.utf8)
            _ = unsafe address.call {
                unsafe sendto(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL), $0, $1)
            }
        }
    }
#endif
