import Glibc
import SystemPackage
import TestSupport
import VarveSystem

/// Debian's docker-registry on a port of the loopback device, with TLS and a password, for as long as the value lives.
final class Registry {
    let directory: TemporaryDirectory
    private var pid: pid_t = 0
    /// `127.0.0.1:PORT`.
    private(set) var host = ""

    /// The variables by which skopeo trusts it and knows the password.
    var variables: [String] { trust + ["REGISTRY_AUTH_FILE=\(directory.path)/auth.json"] }
    var trust: [String] { ["SSL_CERT_FILE=\(directory.path)/cert.pem", "HOME=\(directory.path)"] }

    init() throws {
        directory = try TemporaryDirectory()
        // The hash is that of `htpasswd -B` for the password "secret".
        try shell(
            """
            cd "$1"
            openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=127.0.0.1 \\
              -addext subjectAltName=IP:127.0.0.1 2>/dev/null
            echo 'user:$2y$05$iGkESuYG7sRBK.1VyA5JhuSOG9FAAoWkX.6eZeTj0sWsuc7HSynDi' > htpasswd
            cat > config.yml <<END
            version: 0.1
            log: {level: info}
            storage: {filesystem: {rootdirectory: $1/data}}
            http: {addr: '127.0.0.1:0', tls: {certificate: $1/cert.pem, key: $1/key.pem}}
            auth: {htpasswd: {realm: test, path: $1/htpasswd}}
            END
            """, directory.path)
        pid = try startProgram(
            ["/usr/bin/docker-registry", "serve", "\(directory.path)/config.yml"],
            output: "\(directory.path)/log")
        var found: Substring?
        while found == nil {
            usleep(10_000)
            let log = try Self.log(directory.path)
            if let start = log.firstRange(of: "listening on ") {
                found = log[start.upperBound...].prefix { $0 != "," }
            }
            guard kill(pid, 0) == 0, !log.contains("level=fatal") else {
                throw TestSupportError("the registry does not run: \(log)")
            }
        }
        host = String(found ?? "")
        try shell(
            "echo '{\"auths\":{\"\(host)\":{\"auth\":\"dXNlcjpzZWNyZXQ=\"}}}' > \"$1/auth.json\"",
            directory.path)
    }

    deinit {
        guard pid > 0 else { return }
        kill(pid, SIGKILL)
        var status: CInt = 0
        while unsafe waitpid(pid, &status, 0) < 0, errno == EINTR {}
    }

    private static func log(_ directory: BytePath) throws -> String {
        guard
            let bytes = try? FileDescriptor.workingDirectory.readFile(
                directory.appending("log"), limit: 1 << 26)
        else { return "" }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The requests so far, `GET /v2/…`.
    func requests() throws -> [String] {
        try Self.log(directory.path).split(separator: "\n").compactMap { line in
            guard line.hasPrefix("127.0.0.1 "), let start = line.firstRange(of: "] \"") else { return nil }
            return line[start.upperBound...].split(separator: " ").prefix(2).joined(separator: " ")
        }
    }
}
