package import VarveFormats
import VarveSystem

/// The runtime configuration of one command in a bundle: that of the bundle (runtime-spec config.md), with what the command wants changed.
package struct RunConfiguration: Sendable {
    /// A file or directory of the host that the command sees.
    package struct Bind: Hashable, Sendable {
        /// On the host, absolute.
        package var source: String
        /// In the container, absolute.
        package var destination: String
        package var isReadOnly: Bool

        package init(source: String, destination: String, isReadOnly: Bool = false) {
            self.source = source
            self.destination = destination
            self.isReadOnly = isReadOnly
        }
    }

    /// `NAME=VALUE`, after those of the bundle.
    package var environment: [String] = []
    package var binds: [Bind] = []
    /// Directories in which the command has an empty file system in memory; absolute.
    package var temporary: [String] = []
    /// The network of the host; none at all otherwise.
    package var hasNetwork = true
    /// As the user of an image configuration; nil for the bundle's.
    package var user: String?
    /// Absolute; nil for the bundle's.
    package var workingDirectory: String?
    /// Names with or without `CAP_`, in any case; `ALL` for all.
    package var addedCapabilities: [String] = []
    package var droppedCapabilities: [String] = []
    package var hasTerminal = false

    package init() {}

    /// What Docker gives a container: enough for package managers, too little to leave it (moby, oci/caps/defaults.go).
    package static let capabilities = [
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    ]

    /// All that Linux 6.12 has (linux/capability.h).
    private static let allCapabilities = [
        "AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "CHOWN",
        "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE",
        "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYSLOG", "SYS_ADMIN", "SYS_BOOT",
        "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG", "WAKE_ALARM",
    ]

    /// The capabilities of the command, as runtimes name them, sorted.
    package func capabilityNames() throws(OCIError) -> [String] {
        func known(_ name: String) throws(OCIError) -> [String] {
            var name = name.uppercased()
            if name == "ALL" { return Self.allCapabilities }
            if name.hasPrefix("CAP_") { name = String(name.dropFirst(4)) }
            guard Self.allCapabilities.contains(name) else {
                throw OCIError(.usage, "\"\(shown(name))\" is no capability of Linux")
            }
            return [name]
        }
        var names = Set(Self.capabilities)
        for name in addedCapabilities { names.formUnion(try known(name)) }
        for name in droppedCapabilities { names.subtract(try known(name)) }
        return names.sorted().map { "CAP_" + $0 }
    }

    /// - Parameters:
    ///   - arguments: the command.
    ///   - bundle: the configuration of the bundle.
    ///   - rootfs: the absolute path of its root file system.
    ///   - passwd: the bytes of the root file system's /etc/passwd, nil where it has none; `group` likewise.
    package func make(
        _ arguments: [String], in bundle: JSONObject, rootfs: String, passwd: [UInt8]?, group: [UInt8]?
    ) throws(OCIError) -> JSONObject {
        let what = "the runtime configuration of the bundle"
        var result = bundle
        var process = try bundle.object("process", of: what) ?? JSONObject()
        var environment = Environment()
        func set(_ variable: String) {
            if let name = Environment.name(of: variable) { environment.set(variable, name) }
        }
        for variable in try process.strings("env", of: what) ?? [] { set(variable) }
        process["terminal"] = .bool(hasTerminal)
        process["args"] = .array(arguments.map { .string($0) })
        if let user {
            let found = try ContainerUser(user, passwd: passwd, group: group)
            process["user"] = [
                "uid": .number(JSONNumber(found.uid)), "gid": .number(JSONNumber(found.gid)),
                "additionalGids": .array(found.additionalGIDs.map { .number(JSONNumber($0)) }),
            ]
            if let home = found.home { set("HOME=" + home) }
        }
        for variable in self.environment { set(variable) }
        process["env"] = .array(environment.variables.map { .string($0) })
        if let workingDirectory { process["cwd"] = .string(workingDirectory) }
        let names = JSONValue.array(try capabilityNames().map { .string($0) })
        process["capabilities"] = ["bounding": names, "effective": names, "permitted": names]
        // Package managers run programs with set-ID bits, and open more files than a service.
        process["noNewPrivileges"] = false
        process["rlimits"] = nil
        result["process"] = .object(process)
        result["root"] = ["path": .string(rootfs)]

        var mounts = try bundle.array("mounts", of: what) ?? []
        let taken = Set(mounts.compactMap { $0.object?["destination"]?.string })
        for destination in temporary {
            mounts.append([
                "destination": .string(destination), "type": "tmpfs", "source": "tmpfs",
                "options": ["rw", "nosuid", "nodev", "mode=1777"],
            ])
        }
        var binds = binds
        if hasNetwork {
            let own = ["/etc/resolv.conf", "/etc/hosts"].filter { file in
                !taken.contains(file) && !binds.contains { $0.destination == file }
            }
            binds = own.map { Bind(source: $0, destination: $0, isReadOnly: true) } + binds
        }
        for bind in binds {
            mounts.append([
                "destination": .string(bind.destination), "type": "bind", "source": .string(bind.source),
                "options": ["rbind", "rprivate", bind.isReadOnly ? "ro" : "rw"],
            ])
        }
        result["mounts"] = .array(mounts)

        var linux = try bundle.object("linux", of: what) ?? JSONObject()
        let spaces = try linux.array("namespaces", of: what) ?? []
        var kept = spaces.filter { $0.object?["type"]?.string != "network" }
        if !hasNetwork { kept.append(["type": "network"]) }
        linux["namespaces"] = .array(kept)
        result["linux"] = .object(linux)
        return result
    }
}
