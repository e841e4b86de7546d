package import VarveFormats
internal import VarveSystem

/// The conversion of an image configuration to that of a runtime (image-spec conversion.md): what
/// `config.json` of a bundle holds.
///
/// The shape is that of umoci 0.6.0, so that scripts find what they know. Where it departs from a specification or from
/// what `runc spec` has learnt since, the specification is followed:
/// * the version is 1.0.0, of which everything here is, so that older runtimes take it too;
/// * an annotation for something that the configuration does not say is left out;
/// * capabilities are not inheritable or ambient (CVE-2022-29162: programs with inheritable file capabilities
///   would gain them), and more paths of /proc are masked;
/// * a relative working directory or volume, which runtimes refuse, is taken from the root;
/// * a volume that is the root, or lies in /proc, /sys or /dev, is not mounted.
package enum RuntimeConfig {
    /// What the bundle is made for.
    package struct Options: Hashable, Sendable {
        package var uidMappings: [IDMapping] = []
        package var gidMappings: [IDMapping] = []
        /// For a runtime without privileges: no network namespace, no groups, /sys from the host.
        package var isRootless = false
        /// What the container calls itself.
        package var hostname = RuntimeConfig.hostname
        package init() {}
    }

    /// The name of a container of which nothing else is said.
    package static let hostname = "varve"

    /// Bytes of a passwd or group file that callers should read at most.
    package static let accountFileLimit = 8 << 20

    /// The document for a bundle whose root file system is `rootfs`, relative to it. `passwd` and `group` are
    /// the bytes of the image's /etc/passwd and /etc/group, nil where it has none.
    ///
    /// Throws `invalidInput` for a user that is not in them, a variable without a name or a value, an
    /// operating system other than Linux, and text with NUL, which no process can be given.
    package static func make(
        _ config: ImageConfig, passwd: [UInt8]?, group: [UInt8]?, rootfs: String = "rootfs",
        options: Options = Options()
    ) throws(OCIError) -> JSONValue {
        guard config.os.isEmpty || config.os == "linux" else {
            throw .invalid(
                "the image is for the operating system \"\(shown(config.os))\", but Varve makes bundles "
                    + "for linux"
            )
        }
        let execution = config.execution
        let user = try ContainerUser(execution.user, passwd: passwd, group: group)
        var arguments = execution.entrypoint + execution.command
        if arguments.isEmpty { arguments = ["sh"] }
        for text in arguments + [execution.workingDirectory] + execution.volumes { try checkText(text) }

        let needsUserNamespace =
            options.isRootless || !options.uidMappings.isEmpty || !options.gidMappings.isEmpty
        var userJSON: JSONObject = [
            "uid": .number(JSONNumber(user.uid)), "gid": .number(JSONNumber(user.gid)),
        ]
        if !user.additionalGIDs.isEmpty, !options.isRootless {
            userJSON["additionalGids"] = .array(user.additionalGIDs.map { .number(JSONNumber($0)) })
        }
        let process: JSONObject = [
            "terminal": true,
            "user": .object(userJSON),
            "args": strings(arguments),
            "env": strings(try environment(execution.environment, home: user.home)),
            "cwd": .string(absolute(execution.workingDirectory)),
            "capabilities": ["bounding": capabilities, "effective": capabilities, "permitted": capabilities],
            "rlimits": [["type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024]],
            "noNewPrivileges": true,
        ]

        var linux = JSONObject()
        if needsUserNamespace {
            linux["uidMappings"] = .array(options.uidMappings.map(\.json))
            linux["gidMappings"] = .array(options.gidMappings.map(\.json))
        }
        // Without privileges there is no control group to set devices in.
        if !options.isRootless { linux["resources"] = ["devices": [["allow": false, "access": "rwm"]]] }
        var namespaces =
            options.isRootless
            ? ["cgroup", "pid", "ipc", "uts", "mount"] : ["cgroup", "pid", "network", "ipc", "uts", "mount"]
        if needsUserNamespace { namespaces.append("user") }
        linux["namespaces"] = .array(namespaces.map { ["type": .string($0)] })
        linux["maskedPaths"] = strings([
            "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
        ])
        linux["readonlyPaths"] = strings([
            "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
        ])

        var document: JSONObject = [
            "ociVersion": "1.0.0",
            "process": .object(process),
            "root": ["path": .string(rootfs)],
            "hostname": .string(options.hostname),
            "mounts": .array(mounts(volumes: execution.volumeMounts.mounted, isRootless: options.isRootless)),
        ]
        document["annotations"] = .object(annotations(config))
        document["linux"] = .object(linux)
        return .object(document)
    }

    /// What to tell the user of an image whose labels or volumes are not all in the document; nil where they are.
    package static func warning(of config: ImageConfig) -> String? {
        if let label = config.execution.labels.first(where: { isOrder($0.key) }) {
            return
                "config.json does not have the label \"\(shown(label.key))\" of the image, which runtimes take for an order to them"
        }
        let leftOut = config.execution.volumeMounts.leftOut
        guard let first = leftOut.first else { return nil }
        let more = leftOut.count > 1 ? " and \(leftOut.count - 1) more" : ""
        return
            "config.json has no mount for the volume \"\(shown(first))\"\(more) of the image: it would hide the image itself, or "
            + "what a container has in /proc, /sys or /dev"
    }

    private static let capabilities = strings(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"])

    private static func strings(_ values: [String]) -> JSONValue { .array(values.map { .string($0) }) }

    private static func checkText(_ text: String) throws(OCIError) {
        guard !text.utf8.contains(0) else {
            throw .invalid(
                "the image configuration holds \"\(shown(text))\": text with a NUL byte cannot be "
                    + "given to a process"
            )
        }
    }

    /// The defaults, changed by the image's variables: each name stands once, where it came first.
    private static func environment(_ image: [String], home: String?) throws(OCIError) -> [String] {
        var result = Environment()
        func set(_ variable: String) throws(OCIError) {
            try checkText(variable)
            guard let name = Environment.name(of: variable), !name.text.isEmpty else {
                throw .invalid(
                    "the variable \"\(shown(variable))\" of the image configuration is not of the form "
                        + "NAME=VALUE"
                )
            }
            result.set(variable, name)
        }
        try set("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        try set("TERM=xterm")
        for variable in image { try set(variable) }
        // A home that the image names wins against that of the passwd file.
        if let home, !result.has(ByteText("HOME")) { try set("HOME=" + home) }
        return result.variables
    }

    /// From the root of the container. `..` is taken away with what stands before it, and never leads above the root.
    private static func absolute(_ path: String) -> String {
        let path = BytePath(path)
        let whole = path.isAbsolute ? path : BytePath("/").appending(path)
        guard whole.components.contains("..") else { return path.isEmpty ? "/" : whole.string ?? "/" }
        return BytePath("/").appending(whole.cleaned).string ?? "/"
    }

    private static func mount(_ destination: String, _ type: String, _ source: String, _ options: [String])
        -> JSONValue
    {
        var mount: JSONObject = [
            "destination": .string(destination), "type": .string(type), "source": .string(source),
        ]
        if !options.isEmpty { mount["options"] = strings(options) }
        return .object(mount)
    }

    private static func mounts(volumes: [String], isRootless: Bool) -> [JSONValue] {
        let guarded = ["nosuid", "noexec", "nodev"]
        var terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
        // Without privileges group 5 is not mapped.
        if !isRootless { terminals.append("gid=5") }
        var result = [
            mount("/proc", "proc", "proc", []),
            mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", terminals),
            mount("/dev/shm", "tmpfs", "shm", guarded + ["mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", guarded),
        ]
        if !isRootless {
            result.append(mount("/sys", "sysfs", "sysfs", guarded + ["ro"]))
            result.append(mount("/sys/fs/cgroup", "cgroup", "cgroup", guarded + ["relatime", "ro"]))
        }
        // In byte order a directory comes before what lies in it, and equal input gives equal bytes.
        for volume in volumes {
            result.append(mount(volume, "tmpfs", "none", ["rw", "nosuid", "nodev", "noexec", "relatime"]))
        }
        if isRootless {
            result.append(mount("/sys", "bind", "/sys", ["rbind"] + guarded + ["ro"]))
            // In a user namespace the kernel refuses to drop flags that the host's mount has; more may be
            // set.
            result.append(mount("/etc/resolv.conf", "bind", "/etc/resolv.conf", ["rbind"] + guarded + ["ro"]))
        }
        return result
    }

    /// The labels, and what has no place of its own in a runtime's configuration (conversion.md, "Annotation
    /// Fields").
    private static func annotations(_ config: ImageConfig) -> JSONObject {
        var annotations = JSONMembers()
        func annotate(_ key: String, _ value: String?) {
            if let value, !value.isEmpty {
                annotations.set("org.opencontainers.image." + key, .string(value))
            }
        }
        annotate("os", config.os)
        annotate("architecture", config.architecture)
        annotate("variant", config.variant)
        annotate("author", config.author)
        annotate("created", config.created)
        annotate("stopSignal", config.execution.stopSignal)
        let ports = config.execution.exposedPorts.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
        annotate("exposedPorts", ports.joined(separator: ","))
        for label in config.execution.labels where !isOrder(label.key) {
            annotations.set(label.key, .string(label.value))
        }
        return annotations.object
    }

    /// Whether a runtime takes an annotation of that name for an order: crun(1) loads libraries into its own process, runc(8) hands
    /// properties to systemd and options to CRIU, others choose kernels and hypervisors. An image gives no orders to the host.
    private static func isOrder(_ name: String) -> Bool {
        orders.contains { name.utf8.starts(with: $0.utf8) }
    }

    private static let orders = [
        "run.oci.", "org.criu.", "org.systemd.", "io.katacontainers.", "dev.gvisor.",
        "com.github.containers.",
        "io.podman.annotations.", "io.kubernetes.", "module.wasm.", "run.youki.",
    ]
}

/// Variables, `NAME=VALUE`: each name stands once, where it came first, with the value that came last.
struct Environment {
    private(set) var variables: [String] = []
    /// By the bytes of the names, of which a configuration may have very many.
    private var places: [ByteText: Int] = [:]

    init() {}

    func has(_ name: ByteText) -> Bool { places[name] != nil }

    mutating func set(_ variable: String, _ name: ByteText) {
        if let place = places[name] {
            variables[place] = variable
        } else {
            places[name] = variables.count
            variables.append(variable)
        }
    }

    /// What stands before the first equals sign; nil without one.
    static func name(of variable: String) -> ByteText? {
        guard let equals = variable.utf8.firstIndex(of: UInt8(ascii: "=")) else { return nil }
        return ByteText(String(variable[..<equals]))
    }
}
