import SystemPackage
import TestSupport
import Testing
import VarveFormats
import VarveOCI
import VarveStore
import VarveSystem

/// `varve run`.
@Suite struct RunTests {
    /// A shop whose bundle `b` holds a small Debian.
    private static func shop() throws -> Workshop {
        let shop = try Workshop()
        let first = shop.bundle("first")
        _ = shop.text("unpack", "--image", shop.image("empty"), first)
        try shell(RuntimeTests.filling, first.appending("rootfs"))
        _ = shop.text("repack", "--image", shop.image("filled"), first)
        try runSuccessfully([
            "sh", "-ec",
            "umoci config --image \(shop.image("filled")) --config.env WORD=image --config.workingdir /srv",
        ])
        _ = shop.text("unpack", "--image", shop.image("filled"), shop.bundle("b"))
        return shop
    }

    /// Runs a script in a bundle, as a shell on this host would.
    private static func run(
        _ runtime: ContainerRuntime, _ bundle: BytePath, _ script: String, options: String = "",
        input: String = ""
    ) throws -> CommandResult {
        let words =
            "\(try builtProgram("varve")) run --runtime \(runtime.rawValue) \(options) \"$1\" -- sh -c \"$2\""
        return try runCommand(
            ["sh", "-c", "exec \(ContainerRuntime.host) \(words)", "sh", "\(bundle)", script],
            input: Array(input.utf8))
    }

    @Test(
        "A command gets what the image says and its own streams, and its status is passed on",
        arguments: ContainerRuntime.allCases)
    func command(_ runtime: ContainerRuntime) throws {
        let shop = try Self.shop()
        let bundle = shop.bundle("b")
        let before = try bundleFile(bundle)
        let result = try Self.run(
            runtime, bundle, "id -u; echo $PWD $WORD $MORE; cat; echo wrong >&2; exit 7",
            options: "--env MORE=more", input: "in")
        #expect(result.status == 7 && result.outputText == "0\n/srv image more\nin", "\(result)")
        #expect(result.errorText == "wrong\n")
        let other = try Self.run(
            runtime, bundle, "id -un; echo $HOME $PWD; grep CapEff /proc/self/status",
            options: "--user daemon --workdir /tmp --env HOME")
        #expect(other.outputText.hasPrefix("daemon\n/usr/sbin /tmp\n"), "\(other)")
        let root = try Self.run(runtime, bundle, "grep CapEff /proc/self/status")
        // As Docker's: `docker run debian grep CapEff /proc/self/status`.
        #expect(root.outputText == "CapEff:\t00000000a80425fb\n", "\(root)")
        let less = try Self.run(
            runtime, bundle, "grep CapEff /proc/self/status",
            options: "--cap-drop all --cap-add cap_kill")
        #expect(
            less.outputText == "CapEff:\t0000000000000000\n"
                || less.outputText == "CapEff:\t0000000000000020\n", "\(less)")
        #expect(shop.text("diff", bundle) == "")
        #expect(try bundleFile(bundle) == before)
    }

    @Test(
        "Two commands do not run in one bundle at once: the end of one would take the mounts of the other away"
    )
    func oneAtATime() throws {
        let shop = try Self.shop()
        let bundle = shop.bundle("b")
        let held = SharedDescriptor(
            try FileDescriptor.workingDirectory.open(
                bundle.appending(".varve-bundle.lock"), [.create, .readWrite], mode: 0o600))
        #expect(try held.fd.tryLock(.exclusive))
        let result = try Self.run(.crun, bundle, "true")
        #expect(
            result.status == 1 && result.errorText.contains("another command runs in the bundle"), "\(result)"
        )
        extendLifetime(held)
    }

    @Test("A runtime gets no annotations, and no mount that a link of the image leads into /proc")
    func ordersOfTheImage() throws {
        let shop = try Self.shop()
        let bundle = shop.bundle("b")
        let place = bundle.directory
        try shell(
            #"""
            cd "$1"; ln -s /proc rootfs/lk; ln -s / rootfs/top
            jq '.annotations["run.oci.handler"] = "krun" | .mounts += (["/lk/sys", "/top/sys/fs", "/var/data"] | map(
                {destination: ., type: "tmpfs", source: "tmpfs", options: ["nosuid"]}))' config.json > new; mv new config.json
            printf '%s\n' '#!/bin/sh' 'while [ "$1" != --bundle ]; do shift; done' "cat \"\$2/config.json\" > $PWD/../seen" > ../runtime
            chmod 755 ../runtime
            """#, bundle)
        let result = try runCommand([
            try builtProgram("varve"), "run", "--runtime", "\(place)/runtime", "\(bundle)", "--", "true",
        ])
        #expect(result.status == 0, "\(result)")
        let seen = try JSONValue(
            parsing: try FileDescriptor.workingDirectory.readFile(place.appending("seen"), limit: 1 << 20))
        let mounts = (seen.object?["mounts"]?.array ?? []).compactMap { $0.object?["destination"]?.string }
        #expect(seen.object?["annotations"] == nil)
        #expect(mounts.contains("/proc") && mounts.contains("/var/data"))
        #expect(!mounts.contains("/lk/sys") && !mounts.contains("/top/sys/fs"), "\(mounts)")
    }

    private func bundleFile(_ bundle: BytePath) throws -> [UInt8] {
        try FileDescriptor.workingDirectory.readFile(bundle.appending("config.json"), limit: 1 << 20)
    }

    @Test(
        "What a command writes is the delta, and no mount of the run is in it",
        arguments: ContainerRuntime.allCases)
    func delta(_ runtime: ContainerRuntime) throws {
        let shop = try Self.shop()
        let bundle = shop.bundle("b")
        // What is mounted lies on nothing, on a link to nothing, and below directories that are not there.
        try shell(
            """
            mkdir "$1/source"; echo text > "$1/source/file"
            cd "$1/b/rootfs"; rm -rf proc dev sys; ln -s ../run/none/resolv.conf etc/resolv.conf; mkdir some; touch -d @1000000000 some
            """, shop.volume.path)
        let before = shop.text("diff", bundle)
        let options =
            "--bind \(shop.volume.path)/source:/some/new/place:ro --bind \(shop.volume.path)/source/file:/some/file --tmpfs /scratch"
        let result = try Self.run(
            runtime, bundle,
            "cat /some/new/place/file /some/file; touch /scratch/x && touch /some/new/place/x || touch /srv/made",
            options: options)
        #expect(result.status == 0 && result.outputText == "text\ntext\n", "\(result)")
        let made = shop.text("diff", bundle)
        #expect(
            Set(made.split(separator: "\n")).subtracting(before.split(separator: "\n")) == [
                "M srv", "A srv/made",
            ], "\(made)")
        try shell(
            """
            cd "$1/b/rootfs"; test "$(stat -c %Y some)" = 1000000000; ! ls -d some/* run scratch proc 2>/dev/null
            test "$(ls -A "$1/source")" = file
            """, shop.volume.path)
        let none = try Self.run(runtime, bundle, "cat /proc/net/dev", options: "--network none")
        #expect(none.outputText.split(separator: "\n").count == 3, "\(none)")
    }

    @Test(
        "A signal is passed on, and a command that does not hear it is killed by the second",
        arguments: ContainerRuntime.allCases)
    func signals(_ runtime: ContainerRuntime) throws {
        let shop = try Self.shop()
        let script = """
            varve='\(try builtProgram("varve")) run --runtime \(runtime.rawValue)'
            exec \(ContainerRuntime.host) sh -c '
              started() { until [ -e "$1/rootfs/tmp/started" ]; do sleep 0.05; done; rm "$1/rootfs/tmp/started"; }
              $0 "$1" -- sh -c "trap \\"exit 3\\" TERM; : > /tmp/started; while :; do read -t 1 x || sleep 0.1; done" & p=$!
              started "$1"; kill -TERM $p; wait $p; echo $?
              $0 "$1" -- sh -c ": > /tmp/started; while :; do sleep 1; done" & p=$!
              started "$1"; kill -TERM $p; sleep 0.5; kill -TERM $p; wait $p; echo $?
            ' "$varve" "$1"
            """
        let result = try runCommand(["sh", "-c", script, "sh", "\(shop.bundle("b"))"])
        #expect(result.outputText == "3\n137\n", "\(result)")
        #expect(
            shop.text("diff", shop.bundle("b")).isEmpty || shop.text("diff", shop.bundle("b")) == "M tmp\n")
    }

    @Test("A configuration that another user can change is not run")
    func foreignConfiguration() throws {
        let shop = try Self.shop()
        let bundle = shop.bundle("b")
        try shell(
            """
            cd "$1"; jq '.hooks.prestart = [{path: "/bin/sh", args: ["sh", "-c", "touch \'"$1"'/hooked"]}]' config.json > c; cat c > config.json; rm c
            chown 12345 config.json
            """, bundle)
        let result = try Self.run(.runc, bundle, "true")
        #expect(
            result.status == 1 && result.errorText.contains("config.json\" belongs to another user"),
            "\(result)")
        try shell("! [ -e \"$1/hooked\" ]", bundle)
    }

    @Test(
        "Wrong words are said to be wrong, before anything runs",
        arguments: [
            ("", "no such", 4), ("--bind a:b", "b", 2), ("--tmpfs x", "b", 2), ("--env =x", "b", 2),
            ("--cap-add NOPE", "b", 2), ("--runtime /no/such", "b", 5), ("--bind /no/such:/x", "b", 4),
            ("--user nobody-here", "b", 3),
        ])
    func mistakes(_ options: String, _ bundle: String, _ status: Int32) throws {
        let shop = try Self.shop()
        let result = try runCommand([
            "sh", "-c", "exec \(try builtProgram("varve")) run \(options) \"$1\" touch /srv/x", "sh",
            "\(shop.bundle(bundle))",
        ])
        #expect(result.status == status, "\(result)")
        #expect(shop.text("diff", shop.bundle("b")) == "")
    }
}
