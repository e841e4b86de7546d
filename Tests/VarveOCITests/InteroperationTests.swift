import VarveFormats
import VarveOCI
import VarveSystem
import SystemPackage
import Testing

/// With the tools whose layouts are read and which read ours. `Scripts/test` installs them.
@Suite struct InteroperationTests {
    let directory: TemporaryDirectory
    let path: String

    /// An image that umoci made of one hand-made layer.
    init() throws {
        directory = try TemporaryDirectory()
        path = directory.path + "/umoci"
        try shell(
            """
            set -e; cd \(directory.path); mkdir -p r/etc
            printf 'root:x:0:0:root:/root:/bin/sh\\nbob:x:1000:1000::/home/bob:/bin/sh\\n' > r/etc/passwd
            printf 'root:x:0:\\nbob:x:1000:\\nwheel:x:10:bob,alice\\nextra:x:20:bob\\n' > r/etc/group
            tar -C r -cf layer.tar .
            umoci init --layout umoci; umoci new --image umoci:base
            umoci raw add-layer --image umoci:base --tag one layer.tar
            umoci config --image umoci:one --tag full --config.user bob --config.env FOO=bar --config.env TERM=dumb \
                --config.entrypoint /bin/sh --config.entrypoint -c --config.cmd id --config.volume /data \
                --config.exposedports 80/tcp --config.workingdir /tmp --config.stopsignal SIGUSR1 \
                --config.label a=b --author 'Me <me@x>' --created 2020-01-02T03:04:05Z
            """)
    }

    private func open(_ name: String = "umoci") throws -> ImageLayout {
        try ImageLayout(opening: directory.bytes.appending(name))
    }

    @Test func readsWhatUmociWrote() throws {
        let layout = try open()
        #expect(try layout.listTags() == ["base", "one", "full"])
        #expect(try layout.resolve("base").layers.isEmpty)
        let image = try layout.resolve("full")
        #expect(image.config.author == "Me <me@x>")
        #expect(image.config.execution.user == "bob")
        #expect(
            image.diffIDs.first?.description == "sha256:"
                + (try shell("sha256sum < \(directory.path)/layer.tar").prefix(64)))
        // A layer blob passes its verifier.
        let file = try layout.openBlob(image.layers[0])
        var verifier = BlobVerifier(image.layers[0])
        let bytes = try file.fd.readAll(limit: 1 << 20)
        try unsafe bytes.withUnsafeBytes { try unsafe verifier.update($0) }
        try verifier.finish()
    }

    @Test func readsAnEmptyUmociLayout() throws {
        // Its index.json has "manifests": null.
        try shell("umoci init --layout \(directory.path)/empty")
        let layout = try open("empty")
        #expect(try layout.listTags().isEmpty)
        try layout.newImage(tag: "x", created: Timestamp(seconds: 0))
        #expect(try shell("umoci ls --layout \(directory.path)/empty") == "x\n")
    }

    private func history(of tag: String) throws -> JSONValue? {
        let stat = try ImageStat(ImageReference(path: BytePath(path), tag: tag))
        return try JSONValue(parsing: stat.json).object?["history"]
    }

    @Test func statIsThatOfUmoci() throws {
        let theirs = try json(try shell("umoci stat --image \(path):full --json"))
        // Debian's is a version that prints the history alone.
        #expect(try history(of: "full") == theirs.object?["history"])
    }

    /// Everything that both write is equal, but for what `RuntimeConfig` says of its differences.
    @Test(arguments: [
        ["full"], ["one"], ["full", "--rootless"],
        ["full", "--uid-map", "0:1000:10", "--gid-map", "0:1000:10"],
    ])
    func runtimeConfigurationIsThatOfUmoci(_ arguments: [String]) throws {
        let flags = arguments.dropFirst().joined(separator: " ")
        try shell("umoci unpack \(flags) --image \(path):\(arguments[0]) \(directory.path)/bundle")
        let theirs = try object(try shell("cat \(directory.path)/bundle/config.json"))
        let image = try open().resolve(arguments[0])
        var options = RuntimeConfig.Options()
        options.hostname = "umoci-default"
        if flags.contains("map") {
            options.uidMappings = [.init(containerID: 0, hostID: 1000, size: 10)]
            options.gidMappings = options.uidMappings
        }
        if flags.contains("rootless") {
            options.isRootless = true
            options.uidMappings = [.init(containerID: 0, hostID: 0, size: 1)]
            options.gidMappings = options.uidMappings
        }
        let root = directory.path + "/r/etc/"
        let ours = try #require(
            try RuntimeConfig.make(
                image.config, passwd: Array(try shell("cat \(root)passwd").utf8),
                group: Array(try shell("cat \(root)group").utf8), options: options
            ).object)

        for key in ["ociVersion", "root", "hostname"] { #expect(ours[key] == theirs[key], "\(key)") }
        // umoci takes the flags of this bind mount from the host.
        func mounts(_ document: JSONObject) -> [JSONValue] {
            (document["mounts"]?.array ?? []).filter { $0.object?["destination"] != "/etc/resolv.conf" }
        }
        #expect(mounts(ours) == mounts(theirs))
        #expect(ours["mounts"]?.array?.count == theirs["mounts"]?.array?.count)
        for key in ["terminal", "user", "args", "env", "cwd", "rlimits", "noNewPrivileges"] {
            #expect(ours["process"]?.object?[key] == theirs["process"]?.object?[key], "\(key)")
        }
        for key in ["uidMappings", "gidMappings", "resources"] {
            #expect(ours["linux"]?.object?[key] == theirs["linux"]?.object?[key], "\(key)")
        }
        // That of control groups came after Debian's version.
        let namespaces = ours["linux"]?.object?["namespaces"]?.array ?? []
        #expect(namespaces.first == ["type": "cgroup"])
        #expect(Array(namespaces.dropFirst()) == theirs["linux"]?.object?["namespaces"]?.array)
        for annotation in theirs["annotations"]?.object?.strings ?? [] where !annotation.value.isEmpty {
            #expect(ours["annotations"]?.object?[annotation.key]?.string == annotation.value)
        }
        let masked = Set(ours["linux"]?.object?["maskedPaths"]?.array ?? [])
        #expect(masked.isSuperset(of: theirs["linux"]?.object?["maskedPaths"]?.array ?? []))
    }

    @Test func readsWhatSkopeoWrote() throws {
        try shell(
            """
            set -e; cd \(directory.path); skopeo copy -q --format v2s2 oci:umoci:full dir:docker
            skopeo copy -q dir:docker oci:skopeo:x
            """)
        #expect(try open("skopeo").resolve("x").diffIDs == open().resolve("full").diffIDs)
        // And a Docker manifest as skopeo makes it, in a layout.
        let layout = try open()
        let manifest = try layout.put(
            Array(try shell("cat \(directory.path)/docker/manifest.json").utf8),
            mediaType: MediaType.dockerManifest)
        try layout.tag("docker", manifest)
        #expect(try layout.resolve("docker").layers.count == 1)
    }

    @Test func writesWhatOthersRead() throws {
        let layout = try open()
        let source = try layout.resolve("full")
        let bytes = Array(
            try shell(
                "mkdir \(directory.path)/n; echo new > \(directory.path)/n/file; tar -C \(directory.path)/n -cf - ."
            ).utf8)
        let layer = try layout.put(bytes, mediaType: LayerCompression.none.mediaType)
        let descriptor = try source.appendingLayer(
            layer, diffID: DiffID(layer.digest),
            history: HistoryEntry(created: "2021-01-01T00:00:00Z", createdBy: "varve"),
            created: Timestamp(seconds: 1_600_000_000))
        try layout.tag("full", descriptor)
        try layout.newImage(tag: "fresh", created: Timestamp(seconds: 0))
        #expect(try layout.collectGarbage().removed.isEmpty == false)
        let script = """
            set -e; cd \(directory.path)
            umoci unpack --image umoci:full bundle >&2; cat bundle/rootfs/file
            skopeo inspect oci:umoci:full | grep -c sha256 >&2
            skopeo copy -q oci:umoci:full dir:copy; skopeo copy -q oci:umoci:fresh dir:copy2
            umoci unpack --image umoci:fresh bundle2 >&2
            """
        #expect(try shell(script).contains("new\n"))
        #expect(
            try history(of: "full")
                == (try json(try shell("umoci stat --image \(path):full --json"))).object?["history"])
    }

    /// A runtime that cannot even run the configuration it writes itself, as in some sandboxes, says nothing.
    @Test(arguments: [
        ("runc", "runc"), ("crun", "crun"),
        // crun refuses hosts with both versions of control groups; it gets one that has only the first.
        (
            "crun",
            "unshare -m sh -c 'umount /sys/fs/cgroup/unified 2>&-; exec crun --cgroup-manager=disabled \"$@\"' crun"
        ),
    ])
    func runtimesRunTheConfiguration(_ program: String, _ runtime: String) throws {
        let image = try open().resolve("full")
        let folder = directory.path + "/bundle"
        try shell(
            """
            set -e; mkdir -p \(folder)/rootfs/etc; cd \(folder)/rootfs; mkdir -p proc dev sys tmp data bin
            cp -L /bin/sh bin/sh; ldd /bin/sh | grep -o '/[^ ]*' | while read f; do cp -L --parents "$f" .; done
            cp \(directory.path)/r/etc/* etc/
            """)
        let passwd = Array(try shell("cat \(folder)/rootfs/etc/passwd").utf8)
        let group = Array(try shell("cat \(folder)/rootfs/etc/group").utf8)
        var document = try #require(try RuntimeConfig.make(image.config, passwd: passwd, group: group).object)
        var process = try #require(document["process"]?.object)
        process["terminal"] = false
        process["args"] = [
            "/bin/sh", "-c", "echo $PWD $HOME $FOO; while read l; do echo \"$l\"; done < /proc/self/status",
        ]
        document["process"] = .object(process)

        let id = "varve-oci-test-" + randomName()
        let ours = JSONValue.object(document).serialized(pretty: true)
        let bundle = try FileDescriptor.workingDirectory.openDirectory(BytePath(folder))
        try bundle.fd.writeFileDurably(BytePath("config.json"), ours)
        do {
            let output = try shell("cd \(folder) && \(runtime) run \(id) < /dev/null")
            #expect(output.contains("/tmp /home/bob bar\n"))
            #expect(output.contains("Uid:\t1000\t1000\t1000\t1000\n"))
            #expect(output.contains("Groups:\t10 20"))
        } catch {
            try shell(
                """
                cd \(folder) && rm config.json && \(program) spec &&
                sed -i 's/"terminal": true/"terminal": false/; s#"sh"#"/bin/sh", "-c", "exit 0"#' config.json
                """)
            let baseline = Result { try shell("cd \(folder) && \(runtime) run \(id)b < /dev/null") }
            if case .success = baseline {
                Issue.record("\(runtime) runs its own configuration, but not ours: \(error)")
            }
        }
    }
}
