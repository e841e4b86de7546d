import SystemPackage
import TestSupport
import Testing
import VarveSystem

/// Docs/rootless.md: what root does once, and what a user with no privileges does from then on.
@Suite struct RootlessPageTests {
    /// The blocks of the page that are typed at a shell.
    private static func blocks() throws -> [String] {
        let bytes = try FileDescriptor.workingDirectory.readFile(
            BytePath(repositoryFile("Docs/rootless.md")), limit: 1 << 20)
        let parts = String(decoding: bytes, as: UTF8.self).split(
            separator: "```", omittingEmptySubsequences: false)
        return parts.enumerated().filter { $0.offset % 2 == 1 && $0.element.hasPrefix("sh\n") }.map {
            String($0.element.dropFirst(3))
        }
    }

    /// In a mount name space the host has a user alice, and /srv and /home are the test's own: all of it is gone with the name space.
    private static let host = """
        varve=$1; cd "$2"; mkdir srv bin; cp "$varve" bin/varve
        cp /etc/passwd /etc/group .; echo alice:x:54323:54323::/home/alice:/bin/sh >>passwd; echo alice:x:54323: >>group
        mount --bind passwd /etc/passwd; mount --bind group /etc/group
        mount -t tmpfs -o mode=755 tmpfs /home; mkdir /home/alice /home/bin; cp bin/varve /home/bin; chown alice:alice /home/alice
        mount --bind srv /srv; export PATH=/home/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
        as_alice() { setpriv --reuid=alice --regid=alice --init-groups --inh-caps=-all --no-new-privs \\
            env -i HOME=/home/alice PATH=/home/bin:/usr/bin:/bin sh -euc 'cd; . "$0"' "$1"; }
        """

    @Test("The lines of the page do as it says, for a user with no privileges")
    func page() throws {
        let blocks = try Self.blocks()
        #expect(
            blocks.count == 2 && blocks[0].contains("store init --for alice")
                && blocks[1].contains("store gc"))
        try #require(blocks.count == 2)
        let directory = try TemporaryDirectory()
        try runSuccessfully(
            ["tee", "\(directory.path)/root.sh"], input: Array(blocks[0].replacing("20G", with: "300M").utf8))
        // The image comes from a layout on this host.
        try runSuccessfully(
            ["tee", "\(directory.path)/alice.sh"],
            input: Array(
                blocks[1].replacing("docker://docker.io/library/debian:12", with: "oci:/srv/base:x").utf8))
        let result = try runCommand([
            "unshare", "--mount", "--propagation", "private", "sh", "-euc",
            Self.host + """

                cp root.sh alice.sh srv; . ./root.sh >root.out
                stat --format='%a %U:%G %n' /srv/varve/alice
                find /srv/varve/alice ! -user alice
                mkdir -p tree/etc tree/dev tree/bin; echo motd >tree/etc/motd; echo s >tree/etc/shadow; chmod 0 tree/etc/shadow
                mknod tree/dev/null c 1 3; echo x >tree/bin/su; chmod 4755 tree/bin/su; chown -R 0:42 tree/etc
                varve init --layout /srv/base; varve new --image /srv/base:x; varve insert --image /srv/base:x tree /
                as_alice /srv/alice.sh
                echo chains: $(ls /srv/varve/alice/chains) bundles: $(ls /srv/varve/alice/bundles) snapshots: $(ls /srv/varve/alice/snapshots)
                varve unpack --image /home/alice/images:web got; cat got/rootfs/etc/motd; stat --format='%a %u:%g' got/rootfs/etc/shadow
                """, "sh", try builtProgram("varve"), directory.path.description,
        ])
        #expect(result.status == 0, "\(result.errorText)")
        let lines = result.outputText.split(separator: "\n").map(String.init)
        #expect(lines.first == "700 alice:alice /srv/varve/alice", "\(lines)")
        #expect(lines.contains("M etc/motd"))
        // Both chains, that of the image and that of the layer that was added.
        #expect(lines.filter { $0.hasPrefix("sha256-") }.count == 2, "\(lines)")
        #expect(lines.suffix(3) == ["chains: bundles: snapshots:", "Hello", "0 0:42"], "\(lines)")
    }

    /// A user that every Debian has.
    private static let user = "daemon"

    private static func initialize(_ path: BytePath, for user: String = user) throws -> CommandResult {
        try runCommand([
            "env", "-i", try builtProgram("varve"), "store", "init", "--for", user, path.description,
        ])
    }

    @Test("store init --for makes a store that is that user's, with all that is in it, and makes it once")
    func storeForUser() throws {
        let volume = try LoopVolume(options: "user_subvol_rm_allowed")
        try shell("chmod 755 \"$1\"", volume.path)
        let store = volume.path.appending("stores/one")
        for _ in 1...2 {
            let made = try Self.initialize(store)
            #expect(made.status == 0 && made.output.isEmpty, "\(made.errorText)")
            #expect(try shell(asText: "stat --format='%a %U:%G' \"$1\"", store) == "700 daemon:daemon\n")
            #expect(
                try shell(
                    asText: "cd \"$1\"; find . ! -user daemon; find . -mindepth 1 -printf '%m %p\\n' | sort",
                    store)
                    == "600 ./store.json\n700 ./chains\n700 ./locks\n700 ./refreshed\n700 ./snapshots\n700 ./work\n"
            )
        }
        // What is above it is root's.
        #expect(try shell(asText: "stat --format='%a %U' \"$1\"", store.parent) == "755 root\n")
        // By its number too, on an empty directory or subvolume of root's.
        try shell("btrfs -q subvolume create \"$1\"", volume.path.appending("sub"))
        #expect(try Self.initialize(volume.path.appending("sub"), for: "1").status == 0)
        // Above it is a directory that the user cannot enter.
        try shell("mkdir -m 700 \"$1\"", volume.path.appending("closed"))
        let closed = try Self.initialize(volume.path.appending("closed/store"))
        #expect(
            closed.status == 0 && closed.errorText.contains("daemon cannot reach the store")
                && closed.errorText.contains("closed\" (mode 700)"), "\(closed.errorText)")
    }

    @Test("store init --for refuses places that are not safe, and leaves nothing behind")
    func refusals() throws {
        let volume = try LoopVolume(options: "user_subvol_rm_allowed")
        let other = try LoopVolume(options: "")
        try shell(
            """
            chmod 755 "$1"; cd "$1"; mkdir -m 777 open; mkdir theirs theirs/x full; echo x >full/f; chown daemon theirs
            mkdir place sticky; chmod 1777 sticky; ln -s ../place sticky/link; chown -h daemon sticky/link; mkdir root
            """, volume.path)
        let varve = try builtProgram("varve")
        try runSuccessfully(["env", "-i", varve, "store", "init", "\(volume.path)/root"])
        let before = try shell(asText: "cd \"$1\"; find . -printf '%m %u %p\\n' | sort", volume.path)
        func refuses(
            _ path: BytePath, for user: String = Self.user, _ code: Int32, _ message: String,
            sourceLocation: SourceLocation = #_sourceLocation
        ) throws {
            let result = try Self.initialize(path, for: user)
            #expect(
                result.status == code && result.errorText.contains(message),
                "\(result.status) \(result.errorText)",
                sourceLocation: sourceLocation)
        }
        let top = volume.path
        try refuses(top.appending("open/new"), 1, "others may write to")
        try refuses(top.appending("theirs/new"), 1, "belongs to another user (uid 1)")
        try refuses(top.appending("theirs"), 1, "belongs to daemon already")
        try refuses(top.appending("full"), 1, "it is not empty")
        try refuses(top.appending("sticky/link/new"), 1, "is a symbolic link of another user")
        try refuses(top.appending("root"), 1, "is a store of root's")
        try refuses(top.appending("new"), for: "no-such-user", 4, "this host has no user \"no-such-user\"")
        try refuses(top.appending("new"), for: "root", 2, "root is root")
        try refuses(other.path.appending("a/b"), 5, "only root may delete subvolumes on the btrfs of")
        try refuses("/dev/shm/varve-test-no-btrfs/store", 5, "only root may delete subvolumes")
        let ordinary = try runCommand([
            "setpriv", "--reuid=1", "--regid=1", "--clear-groups", "--inh-caps=-all", "env", "-i", "unshare",
            "--user",
            "--map-root-user", varve, "store", "init", "--for", "daemon", "\(top)/new",
        ])
        #expect(
            ordinary.status == 126 || ordinary.status == 127 || ordinary.status == 5,
            "\(ordinary.status) \(ordinary.errorText)")
        #expect(try shell(asText: "cd \"$1\"; find . -printf '%m %u %p\\n' | sort", top) == before)
        #expect(try shell(asText: "ls \"$1\"", other.path) == "")
        #expect(
            try FileDescriptor.workingDirectory.statusIfPresent(of: "/dev/shm/varve-test-no-btrfs") == nil)
    }
}

@Suite struct UnprivilegedCollectionTests {
    @Test(
        "As a user with no privileges, store gc deletes what no bundle or snapshot that can be seen descends from"
    )
    func collect() throws {
        let user = try OrdinaryUser()
        try user.makeImage()
        try user.text("varve store init; varve unpack --rootless --image L:two kept")
        // A second image; bundles in the store, beside it, and deep in a subvolume of the user's; a snapshot.
        try user.text(
            """
            varve init --layout M; varve new --image M:a; mkdir t; for n in 1 2 3 4; do echo $n >t/$n; varve insert --rootless --image M:a --tag $n t /; done
            mkdir store/bundles; varve unpack --rootless --image M:1 store/bundles/one
            btrfs -q subvolume create sub; mkdir sub/deep; varve unpack --rootless --image M:2 sub/deep/two
            varve unpack --rootless --image M:3 three; varve snapshot create three kept; varve bundle rm three
            varve unpack --rootless --image M:4 four
            """)
        // Of another user, where nobody else may look.
        try user.asRoot(
            "mkdir -m 700 closed; btrfs -q subvolume create closed/sub; chmod 711 . ; chown \(OrdinaryUser.id) ."
        )
        let all = try user.text("varve store ls -q").split(separator: "\n").count
        #expect(try user.text("varve store gc -q") == "")
        let needed = try user.text("varve store names --image M:4 --format json").split(separator: "\"").first
        { $0.hasPrefix("sha256-") }
        try user.text("varve bundle rm four")
        let dry = try user.text("varve store gc --dry-run")
        #expect(dry.hasPrefix("\(needed ?? "?")-rootless") && dry.split(separator: "\n").count == 1, "\(dry)")
        #expect(try user.text("varve store gc -q") == dry)
        #expect(try user.text("varve store ls -q").split(separator: "\n").count == all - 1)
        for bundle in ["kept", "store/bundles/one", "sub/deep/two"] {
            #expect(try user.text("varve diff \(bundle)") == "")
        }
        try user.text(
            "varve bundle rm kept; varve bundle rm store/bundles/one; varve bundle rm sub/deep/two; varve snapshot rm kept"
        )
        try user.text("varve store gc -q")
        #expect(try user.text("varve store ls -q") == "")
        // What only root can know.
        for option in ["--free 1G", "--sync"] {
            let refused = try user.run("varve store gc \(option)")
            #expect(refused.status == 5 && refused.errorText.contains("only root may see"), "\(refused)")
        }
    }
}
