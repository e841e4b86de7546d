import Glibc
import VarveSystem
import SystemPackage

/// Docker's daemon, which keeps images of its own.
struct DockerDaemon {
    /// Where it listens, as Docker's own client finds it.
    let address: String

    private static let unixPrefix = "unix://"

    init() {
        let named = unsafe getenv("DOCKER_HOST").map { unsafe String(cString: $0) } ?? ""
        address = named.isEmpty ? Self.unixPrefix + "/var/run/docker.sock" : named
    }

    /// Throws if nobody listens there: skopeo would say of it that a pipe is closed. One on another host is not looked at.
    func requireListening() throws(VarveError) {
        guard address.hasPrefix(Self.unixPrefix) else { return }
        let path = BytePath(String(address.dropFirst(Self.unixPrefix.count)))
        guard let socket = UnixSocketAddress(path.bytes) else { return }
        do throws(Errno) { try socket.tryConnecting() } catch {
            throw VarveError(
                .unsupported, "Docker's daemon cannot be reached at \"\(path)\": \(error)", subject: path,
                remedy: .follow("start it, or say in DOCKER_HOST where it listens"))
        }
    }
}
