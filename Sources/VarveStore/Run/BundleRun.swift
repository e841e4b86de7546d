import Glibc
package import VarveOCI
package import VarveSystem
import SystemPackage
import VarveFormats
import VarveLayers

/// One command in a bundle, run by a container runtime.
///
/// The runtime gets a configuration of its own in a directory of its own: the bundle's `config.json` stays as it is. The changes of the
/// command are those of the bundle, and nothing of the run is among them.
package struct BundleRun: Sendable {
    private let bundle: BytePath
    private let configuration: RunConfiguration
    private let runtime: BytePath?

    /// The runtimes that are looked for where none is named.
    package static let runtimes: [BytePath] = ["crun", "runc"]

    /// - Parameter runtime: crun or runc, by its path or by a name to be found in `PATH`.
    package init(
        in bundle: BytePath, _ configuration: RunConfiguration, runtime: BytePath? = nil
    ) {
        self.bundle = bundle
        self.configuration = configuration
        self.runtime = runtime
    }

    /// Runs a command to its end, with the standard streams of this process.
    ///
    /// - Parameters:
    ///   - cancellation: ends it before the command runs.
    ///   - passOn: called when the command is about to run: from then on signals are the command's. It returns what tells how many have come, and
    ///     the first of them. Ten seconds after that, or when a second comes, the command is killed.
    /// - Returns: its exit status; 128 and the number of the signal that killed it.
    /// - Throws: `VarveError` if it cannot be run.
    package func run(
        _ arguments: [String], cancellation: Cancellation = Cancellation(),
        passOn: () -> () -> (count: Int, first: Int32) = { { (0, 0) } }
    ) throws -> Int32 {
        let opened = try OpenBundle(bundle)
        let lock = try BundleLock(.run, in: opened.directory.fd, bundle)
        defer { extendLifetime(lock) }
        let root = try opened.openRootfs()
        let document = try runtimeConfiguration()
        func account(_ name: BytePath) -> [UInt8]? {
            root.fd.contentInTree(of: name, limit: RuntimeConfig.accountFileLimit)
        }
        let rootfs = try attempt("find the path of", bundle) { () throws(Errno) in try root.fd.path() }
        guard let rootfsText = rootfs.string else {
            throw VarveError(
                .unsupported, "the path of \"\(bundle)\" is not UTF-8, which a runtime's configuration is",
                subject: bundle)
        }
        for bind in configuration.binds { try check(bind) }
        var made = try configuration.make(
            arguments, in: document, rootfs: rootfsText, passwd: account("etc/passwd"),
            group: account("etc/group"))
        // Runtimes take some for orders: crun loads what they name into its own process, on the host.
        made["annotations"] = nil
        made = try withoutMountsBehindLinks(made, in: root)
        let program = try program()

        let place = try workPlace()
        let work = try WorkDirectory(in: place, path: bundle, cancellation: cancellation)
        let path = try work.path()
        try attempt("write", path.appending("config.json")) { () throws(Errno) in
            let file = try work.opened.fd.open("config.json", [.writeOnly, .create, .exclusive], mode: 0o600)
            try file.fd.writeFull(JSONValue.object(made).serialized())
        }
        let points = MountPoints(in: root)
        try makeMountPoints(points, made, cancellation)

        let id = BytePath("varve").appendingBytes(path.lastComponent)
        let state = path.appending("state")
        let runs = ForegroundProgram(
            arguments: [program.path, "--root", state] + program.options + ["run", "--bundle", path, id])
        let end = { (verb: [BytePath]) in
            let killing = SupervisedProgram(
                arguments: [program.path, "--root", state] + verb, input: [], outputLimit: 1 << 16,
                timeLimit: .seconds(10))
            _ = try? killing.run()
        }
        let signals = passOn()
        try cancellation.check()
        let status = try attempt("run", program.path) { () throws(Errno) in
            try runs.run(signals: signals) { end(["kill", id, "KILL"]) }
        }
        // Whatever the runtime left of it.
        if (try? work.opened.fd.statusIfPresent(of: BytePath("state").appending(id))) != nil {
            end(["delete", "--force", id])
        }
        points.remove()
        extendLifetime(work)
        return status
    }

    private func runtimeConfiguration() throws -> JSONObject {
        // It names programs that the runtime runs on the host (its hooks), and files of the host that are mounted.
        let file = bundle.appending("config.json")
        var own: OwnedDescriptor?
        do throws(PlaceError) { own = try Place.ownFile(file, [.readOnly]) } catch {
            if error.errno != .noSuchFileOrDirectory { throw VarveError(error, "\"\(file)\" is not used") }
        }
        guard let own else {
            throw VarveError(
                .notFound, "the bundle \"\(bundle)\" has no config.json", subject: file,
                remedy: .follow("make the runtime configuration of its image again"))
        }
        let bytes = try attempt("read", file) { () throws(Errno) in
            try own.fd.readAll(limit: BundleMetadata.limit)
        }
        do {
            if let object = try JSONValue(parsing: bytes).object { return object }
            throw VarveError(.invalidInput, "\"\(file)\" is not a runtime configuration", subject: file)
        } catch let error as JSONSyntaxError {
            throw VarveError(.invalidInput, "\"\(file)\" is not JSON: \(error)", subject: file, cause: error)
        }
    }

    private func check(_ bind: RunConfiguration.Bind) throws(VarveError) {
        let source = BytePath(bind.source)
        do throws(Errno) { _ = try FileDescriptor.workingDirectory.open(source, [.path]) } catch {
            throw VarveError.system("find what is to be mounted,", source, error)
        }
    }

    private func program() throws -> (path: BytePath, options: [BytePath]) {
        for name in runtime.map({ [$0] }) ?? usableRuntimes() {
            let path: BytePath
            do throws(PlaceError) { path = try SupervisedProgram.ownProgram(name) } catch {
                if error.errno == .noSuchFileOrDirectory { continue }
                throw VarveError(error, "\"\(name)\" is not run")
            }
            // Without root there are no control groups to be made. As root there are, by the file system: no systemd need run.
            let isCrun = path.lastComponent == "crun"
            return (path, isCrun && geteuid() != 0 ? ["--cgroup-manager=disabled"] : [])
        }
        throw VarveError(
            .unsupported,
            runtime.map { "the runtime \"\($0)\" is not there" }
                ?? "there is no container runtime: neither crun nor runc",
            subject: runtime, remedy: .install("crun"))
    }

    /// crun takes no host that has both versions of control groups at once, as systemd's hybrid hierarchy.
    private func usableRuntimes() -> [BytePath] {
        let isHybrid = (try? FileDescriptor.workingDirectory.status(of: "/sys/fs/cgroup/unified")) != nil
        return isHybrid ? Self.runtimes.reversed() : Self.runtimes
    }

    /// Where the runtime's files are for as long as it runs: not on the store, which they would be a change of.
    private func workPlace() throws -> SharedDescriptor {
        let own = unsafe getenv("XDG_RUNTIME_DIR").flatMap { unsafe BytePath(String(cString: $0)) }
        let place = geteuid() == 0 ? "/run" : own ?? "/tmp"
        do throws(PlaceError) { return SharedDescriptor(try Place.directory(place, .closedToOthers)) } catch {
            throw VarveError(error, "use the directory", place)
        }
    }

    /// A link of the image may lead a volume into what every container has mounted, and hide a part of that.
    private func withoutMountsBehindLinks(_ configuration: JSONObject, in root: SharedDescriptor) throws
        -> JSONObject
    {
        func isKept(_ mount: JSONValue) throws -> Bool {
            guard let destination = mount.object?["destination"]?.string else { return true }
            let path = BytePath(destination).cleaned
            let end = try PathWalk.end(of: path, in: root.fd, resolve: .noCrossing)
            return end == path || !ImageConfig.isMountedByRuntimes(end)
        }
        var kept = configuration
        if let mounts = configuration["mounts"]?.array { kept["mounts"] = .array(try mounts.filter(isKept)) }
        return kept
    }

    /// Where a mount lies on another mount, that is no part of the bundle.
    private func makeMountPoints(
        _ points: MountPoints, _ configuration: JSONObject, _ cancellation: Cancellation
    ) throws {
        var covered: [[BytePath]] = []
        for mount in configuration["mounts"]?.array ?? [] {
            guard let destination = mount.object?["destination"]?.string,
                destination.utf8.first == UInt8(ascii: "/")
            else { continue }
            try cancellation.check()
            let path = BytePath(destination).cleaned
            let components = path.components
            if covered.contains(where: { components.count > $0.count && components.starts(with: $0) }) {
                continue
            }
            covered.append(components)
            var isDirectory = true
            if mount.object?["type"]?.string == "bind", let source = mount.object?["source"]?.string {
                isDirectory =
                    (try? FileDescriptor.workingDirectory.open(BytePath(source), [.directory, .path])) != nil
            }
            // A runtime gives a new file system in memory the mode of what it lies on.
            let mode: UInt32 = mount.object?["type"]?.string == "tmpfs" ? 0o1777 : 0o755
            do throws(LayerError) {
                try points.make(path, isDirectory: isDirectory, mode: mode)
            } catch {
                guard case .system(_, _, let errno) = error else { throw error }
                throw VarveError.system("make the mount point \"\(destination)\" in", bundle, errno)
            }
        }
    }
}
