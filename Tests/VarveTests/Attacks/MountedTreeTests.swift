import Glibc
import VarveStore
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// Trees of directory bundles in which something of the host is mounted, or put in place of a file while they are read.
@Suite(.serialized) struct MountedTreeTests {
    /// A layout and a bundle `b` with a directory `mnt` and a file `f`, and `host` with a file that is nobody's business.
    struct World: ~Copyable {
        let volume: LoopVolume
        var path: BytePath { volume.path }
        var bundle: BytePath { path.appending("b") }

        init() throws {
            let made = try LoopVolume(size: 256 << 20)
            let layout = made.path.appending("L")
            let bundle = made.path.appending("b")
            for words in [
                ["init", "--layout", layout], ["new", "--image", layout.appendingBytes(":e")],
                ["unpack", "--driver", "directory", "--image", layout.appendingBytes(":e"), bundle],
            ] as [[BytePath]] {
                let run = varve(words)
                #expect(run.code == 0 && run.errors.isEmpty, "\(run)")
            }
            try shell("cd \"$1/rootfs\"; mkdir mnt; echo plain > f", bundle)
            #expect(varve("repack", "--image", layout.appendingBytes(":a"), bundle).code == 0)
            #expect(varve("bundle", "rm", bundle).code == 0)
            #expect(
                varve("unpack", "--driver", "directory", "--image", layout.appendingBytes(":a"), bundle).code
                    == 0)
            try shell("mkdir \"$1/host\"; echo secret > \"$1/host/secret\"", made.path)
            volume = made
        }

        func image(_ tag: String) -> BytePath { path.appending(BytePath("L:\(tag)")) }

        func tags() throws -> [String] {
            varve("ls", "--layout", path.appending("L"), "-q").text.split(separator: "\n").map(String.init)
                .sorted()
        }

        /// Whether any layer of the layout, all of which are small, holds these bytes.
        func layersHold(_ text: String) throws -> Bool {
            let script =
                "cd \"$1/L/blobs/sha256\"; for b in *; do { gzip -dc $b 2>/dev/null || cat $b; } | grep -q '\(text)' && echo found; done; true"
            return try runSuccessfully(["sh", "-c", script, "sh", path.description]).outputText != ""
        }

        /// Starts the command, which stops itself at the points of that name.
        func start(_ words: [BytePath], stopAt point: String) throws -> pid_t {
            try startProgram(
                ["/usr/bin/env", "VARVE_STOP_AT=\(point)", "HOME=\(path)", try builtProgram("varve")]
                    + words.map(\.description))
        }
    }

    /// Waits until a process has stopped itself (nil) or ended (its exit code).
    private static func wait(_ pid: pid_t) -> CInt? {
        var status: CInt = 0
        while unsafe waitpid(pid, &status, WUNTRACED) < 0, errno == EINTR {}
        // WIFSTOPPED and WEXITSTATUS of wait(2).
        return status & 0xff == 0x7f ? nil : (status >> 8) & 0xff
    }

    struct Mounting: Sendable, CustomTestStringConvertible {
        var testDescription: String
        /// In the bundle.
        var place: BytePath
        /// Run in the world's directory.
        var script: String
        init(_ place: BytePath, _ script: String) {
            (testDescription, self.place, self.script) = (script, place, script)
        }
    }

    @Test(
        "What is mounted in a tree is refused, whatever file system it is of",
        arguments: [
            Mounting("rootfs/mnt", "mount --bind host b/rootfs/mnt"),
            Mounting("rootfs/f", "mount --bind host/secret b/rootfs/f"),
            // The same directory over itself: device and inode number are those that the bundle has there.
            Mounting("rootfs/mnt", "mount --bind b/rootfs/mnt b/rootfs/mnt"),
            Mounting("rootfs/mnt", "mount -t tmpfs none b/rootfs/mnt"),
            Mounting("rootfs", "mount --bind host b/rootfs"),
            Mounting("rootfs/new/deep", "mkdir -p b/rootfs/new/deep; mount --bind host b/rootfs/new/deep"),
        ])
    func isRefused(_ mounting: Mounting) throws {
        let world = try World()
        try shell("cd \"$1\"; \(mounting.script)", world.path)
        let place = world.bundle.appending(mounting.place)
        defer { try? unmount(place, detaching: true) }
        for words in [
            ["diff", world.bundle], ["diff", "--paranoid", world.bundle],
            ["repack", "--image", world.image("x"), world.bundle],
            ["repack", "--refresh-bundle", "--image", world.image("x"), world.bundle],
        ] as [[BytePath]] {
            let run = varve(words)
            #expect(
                run.code == 5 && run.text == ""
                    && run.errorText.hasPrefix("varve: \"\(place)\" is a mount point")
                    && run.errorText.hasSuffix("umount \(place.shellWord)\n"), "\(words): \(run)")
        }
        #expect(try world.tags() == ["a", "e"])
        #expect(try !world.layersHold("secret"))
        try unmount(place)
        #expect(varve("diff", world.bundle).code == 0)
    }

    @Test("The users of a root file system are not read from a file of the host that is mounted in it")
    func accounts() throws {
        let world = try World()
        try shell(
            """
            cd "$1"; mkdir b/rootfs/etc; echo u:x:7:8::/:/bin/sh > b/rootfs/etc/passwd; : > b/rootfs/etc/group
            echo u:x:77:88::/:/bin/sh > host/passwd
            """, world.path)
        #expect(varve("config", "--image", world.image("a"), "--config.user", "u").code == 0)
        let words: [BytePath] = [
            "raw", "runtime-config", "--image", world.image("a"), "--rootfs",
            world.bundle.appending("rootfs"),
            world.path.appending("out"),
        ]
        #expect(varve(words).code == 0)
        for (place, script) in [
            ("rootfs/etc/passwd", "mount --bind host/passwd b/rootfs/etc/passwd"),
            ("rootfs/etc", "mount --bind host b/rootfs/etc"),
        ] {
            try shell("cd \"$1\"; \(script)", world.path)
            let place = world.bundle.appending(BytePath(place))
            defer { try? unmount(place, detaching: true) }
            try shell("rm \"$1/out\"", world.path)
            let run = varve(words)
            #expect(run.code == 5 && run.errorText.contains("\"\(place)\" is a mount point"), "\(run)")
            try shell("[ ! -e \"$1/out\" ]; echo > \"$1/out\"", world.path)
        }
    }

    @Test("A path that a hook tells is none if something is mounted on it")
    func toldByAHook() throws {
        let world = try World()
        let rootfs = world.bundle.appending("rootfs")
        let root = SharedDescriptor(try FileDescriptor.workingDirectory.openDirectory(rootfs))
        let failure = HookFailure(name: .deltaList, program: "hook")
        func check(_ path: String) throws {
            let answer = #"{"changes":[{"change":"modified","path":"\#(path)"}]}"#
            let changes = try HookChanges(try HookAnswer(parsing: Array(answer.utf8), failure: failure))
            _ = try changes.checked(against: root.fd)
        }
        for (path, script) in [
            ("f", "mount --bind host/secret b/rootfs/f"), ("mnt", "mount --bind host b/rootfs/mnt"),
        ] {
            try check(path)
            try shell("cd \"$1\"; \(script)", world.path)
            defer { try? unmount(rootfs.appending(BytePath(path)), detaching: true) }
            let error = #expect(throws: VarveError.self) { try check(path) }
            #expect(error?.code == .unsupported, "\(String(describing: error))")
        }
    }

    @Test("A mount that appears on a directory that was just looked at is not walked into")
    func appearsMeanwhile() throws {
        let world = try World()
        let place = world.bundle.appending("rootfs/mnt")
        try shell("echo x > \"$1/rootfs/f\"", world.bundle)
        let pid = try world.start(
            ["repack", "--image", world.image("x"), world.bundle], stopAt: "enter-directory")
        defer { try? unmount(place, detaching: true) }
        // The root's own descriptor, the root as the first directory, and then `mnt`.
        var stops = 0
        var code = Self.wait(pid)
        while code == nil {
            stops += 1
            if stops == 3 { try shell("mount --bind \"$1/host\" \"$1/b/rootfs/mnt\"", world.path) }
            kill(pid, SIGCONT)
            code = Self.wait(pid)
        }
        #expect(stops >= 3)
        #expect(code == 5)
        #expect(try !world.layersHold("secret"))
    }

    struct Swap: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var words: [String]
        init(_ words: String) {
            testDescription = words
            self.words = words.split(separator: " ").map { String($0) }
        }
    }

    @Test(
        "A file that becomes a block device when it has been looked at is not opened",
        arguments: [Swap("repack --image L:x b"), Swap("diff --paranoid b")],
        ["device", "file", "fifo", "link"])
    func becomesADevice(_ swap: Swap, _ what: String) throws {
        let world = try World()
        // As long as before, so that only its content tells.
        try shell("cd \"$1/rootfs\"; t=$(stat -c %y f); echo PLAIN > f; touch -d \"$t\" f", world.bundle)
        let image = world.path.appending("disk")
        try shell("yes secret | head -c 1048576 > \"$1/disk\"", world.path)
        let file = try FileDescriptor.workingDirectory.open(image, [.readWrite])
        let device = try LoopDevice(image: file.fd)
        let words = swap.words.map { word in
            word == "b" || word.hasPrefix("L:") ? world.path.appending(BytePath(word)) : BytePath(word)
        }
        let pid = try world.start(words, stopAt: "open-file")
        let make =
            switch what {
            case "device": "mknod f b $(stat -c '0x%t 0x%T' \(device.path))"
            case "file": "cp \"$1/host/secret\" f"
            case "fifo": "mkfifo f"
            default: "ln -s \"$1/host/secret\" f"
            }
        var stops = 0
        var code = Self.wait(pid)
        while code == nil {
            stops += 1
            if stops == 1 { try shell("cd \"$1/b/rootfs\"; mv f away; \(make)", world.path) }
            kill(pid, SIGCONT)
            code = Self.wait(pid)
        }
        #expect(stops == 1)
        #expect(code == 1, "\(swap) \(what)")
        #expect(try !world.layersHold("secret"))
        #expect(try world.tags() == ["a", "e"])
        extendLifetime(device)
    }

    @Test(
        "Files of an image or a bundle that are devices or FIFOs are not opened",
        arguments: ["etc/passwd", "etc/group"])
    func accountFiles(_ name: String) throws {
        let world = try World()
        // A device that nobody has: an open is ENXIO or ENODEV, a look is nothing.
        try shell(
            "cd \"$1\"; mkdir -p b/rootfs/etc; mknod b/rootfs/\(name) c 1 3; touch tracer", world.path)
        #expect(varve("repack", "--image", world.image("x"), world.bundle).code == 0)
        let trace = world.path.appending("trace")
        let result = try runCommand([
            "strace", "-f", "-e", "trace=open,openat,openat2", "-o", trace.description,
            try builtProgram("varve"), "unpack", "--driver", "directory", "--image",
            world.image("x").description, world.path.appending("c").description,
        ])
        #expect(result.status == 0, "\(result.errorText)")
        let lines = String(
            decoding: try FileDescriptor.workingDirectory.readFile(trace, limit: 64 << 20), as: UTF8.self
        ).split(separator: "\n").filter { $0.contains("\"\(name)\"") }
        #expect(!lines.isEmpty)
        for line in lines { #expect(line.contains("O_PATH"), "\(line)") }
    }
}
