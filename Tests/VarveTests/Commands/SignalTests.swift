import Glibc
import VarveStore
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// The command as a process, with its standard error in a file.
struct VarveProcess: ~Copyable {
    let pid: pid_t
    private let errors: BytePath

    /// - Parameter stopAt: the durability point at which it stops itself; see `durabilityPoint`. Or the name of a moment; see
    ///   `racePoint`.
    ///   - starter: a program and its first arguments, which becomes the command.
    init(
        _ arguments: [String], in directory: BytePath, variables: [String] = [], starter: [String] = [],
        stopAt: (some CustomStringConvertible)? = Int?.none
    ) throws {
        errors = directory.appending("errors")
        // `exec` keeps the process: what is spawned becomes the command.
        let script =
            "exec env VARVE_STORE=\"$1/store\" HOME=\"$1\" \"${@:2}\" </dev/null >/dev/null 2>\"$1/errors\""
        var words = ["/bin/bash", "-c", "cd \"$1\"; " + script, "bash", directory.description] + variables
        if let stopAt { words.append("VARVE_STOP_AT=\(stopAt)") }
        pid = try startProgram(words + starter + [try builtProgram("varve")] + arguments)
    }

    /// Waits until it has stopped itself (true) or ended (false).
    func hasStopped(_ status: inout CInt) -> Bool {
        while unsafe waitpid(pid, &status, WUNTRACED) < 0, errno == EINTR {}
        // WIFSTOPPED of wait(2).
        return status & 0xff == 0x7f
    }

    /// Waits until a signal that was sent has been taken.
    func waitUntilTaken() throws {
        while true {
            let status = try FileDescriptor.workingDirectory.readFile(
                BytePath("/proc/\(pid)/status"), limit: 1 << 16)
            let pending = String(decoding: status, as: UTF8.self).split(separator: "\n").filter {
                $0.hasPrefix("SigPnd") || $0.hasPrefix("ShdPnd")
            }
            if pending.allSatisfy({ $0.hasSuffix("\t0000000000000000") }) { return }
            usleep(1_000)
        }
    }

    /// Waits until it has slept for a while in the calls that a wait for a lock is made of: it sleeps again and again, and has
    /// nothing else to do.
    func waitUntilWaiting() throws {
        var naps = 0
        while naps < 20 {
            let text = try FileDescriptor.workingDirectory.readFile(
                BytePath("/proc/\(pid)/syscall"), limit: 1 << 12)
            // clock_nanosleep and nanosleep of x86-64, arm64 and riscv64.
            let number =
                String(decoding: text, as: UTF8.self).split(separator: " ").first.map(String.init) ?? ""
            naps = ["230", "35", "115", "101"].contains(number) ? naps + 1 : naps
            let state = try FileDescriptor.workingDirectory.readFile(
                BytePath("/proc/\(pid)/stat"), limit: 1 << 12)
            if String(decoding: state, as: UTF8.self).contains(") Z ") {
                throw TestSupportError("it does not wait, but has ended: \(try errorText())")
            }
            usleep(5_000)
        }
    }

    /// The exit code, or 128 and the number of the signal.
    func end() -> CInt { Self.code(EngineKillTests.wait(pid)) }

    static func code(_ status: CInt) -> CInt {
        status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f)
    }

    func errorText() throws -> String {
        String(
            decoding: try FileDescriptor.workingDirectory.readFile(errors, limit: 1 << 20), as: UTF8.self)
    }
}

/// Ctrl-C and its like, at processes.
@Suite(.serialized) struct SignalTests {
    static let cleaned = "varve: interrupted; nothing half-done was left behind\n"

    struct Command: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var arguments: [String]
        /// Makes room for the next round, whatever the last one did.
        var undo: String
        /// False for what only deletes, and has deleted or not, or does next to nothing.
        var hasWayBack: Bool
        init(_ words: String, undo: String, hasWayBack: Bool = true) {
            testDescription = words
            self.hasWayBack = hasWayBack
            arguments = words.split(separator: " ").map(String.init)
            self.undo = undo
        }
    }

    /// As from a thread of Swift's concurrency: what it starts inherits what it blocks.
    @Test(
        "Signals that whoever started the command had blocked end it all the same",
        arguments: [SIGINT, SIGTERM])
    func blocked(_ signal: CInt) throws {
        let world = try StoreWorld()
        // It waits for a skopeo that never ends.
        try world.shell(
            ": > archive.tar; mkdir bin; printf '#!/bin/sh\\nwhile :; do sleep 1; done\\n' > bin/skopeo; chmod +x bin/skopeo"
        )
        let script =
            "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32)); os.execv(sys.argv[1], sys.argv[1:])"
        let process = try VarveProcess(
            ["pull", "oci-archive:archive.tar", "new:x"], in: world.path,
            variables: ["PATH=\(world.path)/bin:/usr/bin:/bin"], starter: ["python3", "-c", script])
        while try runCommand(["pgrep", "-P", "\(process.pid)", "skopeo"]).status != 0 { usleep(10_000) }
        kill(process.pid, signal)
        #expect(process.end() == 128 + signal)
        #expect(try process.errorText() == Self.cleaned)
    }

    private static let forget = "varve rm --image layout:new || true; varve gc --layout layout"
    private static let remove = "[ ! -e new ] || varve bundle rm new; varve store gc"

    /// Makes `varve` a command of the shell, for the world that it is in.
    private static func shellCommand() throws -> String {
        "export VARVE_STORE=$PWD/store HOME=$PWD; varve() { '\(try builtProgram("varve"))' \"$@\"; }\n"
    }

    /// Everything but chains, which may be there if they are whole, with the content of the layout.
    private static let inventory = """
        find . -path ./store/chains -prune -o -path ./store/published -prune -o -path ./errors -prune -o -print | sort
        find layout -type f | sort | xargs sha256sum; losetup --list --noheadings --output BACK-FILE | grep -F "$PWD" || true
        """

    @Test(
        "SIGINT at each durability point: 130 and nothing left, or the command had come to its end",
        arguments: [
            Command("unpack --image layout:a new", undo: remove),
            Command("unpack --driver directory --image layout:a new", undo: remove, hasWayBack: false),
            Command("raw unpack --image layout:a new", undo: "rm -rf new", hasWayBack: false),
            Command("repack --image layout:new bundle", undo: forget),
            Command("insert --image layout:a --tag new bundle/rootfs/edit /x", undo: forget),
            Command("store init new", undo: "rm -rf new", hasWayBack: false),
            Command(
                "store init new --loopback 256M",
                undo: "if mountpoint -q new; then varve store unmount new; fi; rm -rf new new.btrfs"),
            Command(
                "store gc", undo: "varve unpack --image layout:a new; varve bundle rm new",
                hasWayBack: false),
        ])
    func atEachPoint(_ command: Command) throws {
        let world = try StoreWorld()
        try world.addImage("a", try storeSampleLayers())
        // Another, so that no bundle keeps the chains of the first.
        try world.addImage(
            "b", [try StoreLayer([.directory("etc/"), .file("etc/passwd", "root:x:0:0::/:/bin/sh\n")])])
        let varve = try Self.shellCommand()
        try world.shell(
            varve
                + """
                varve unpack --image layout:b bundle; echo edited > bundle/rootfs/edit
                """)
        var interrupted = 0
        var point = 0
        while true {
            point += 1
            #expect(point < 200)
            try world.shell(varve + command.undo)
            let before = try world.shell(Self.inventory)
            let process = try VarveProcess(command.arguments, in: world.path, stopAt: point)
            var status: CInt = 0
            guard process.hasStopped(&status) else {
                let errors = try process.errorText()
                #expect(VarveProcess.code(status) == 0, "\(errors)")
                break
            }
            // One at a moment, so that others need no more than one.
            kill(process.pid, point % 2 == 0 ? SIGINT : SIGTERM)
            kill(process.pid, SIGCONT)
            let code = process.end()
            let errors = try process.errorText()
            if code == 0 {
                #expect(errors == "", "point \(point)")
                continue
            }
            #expect(
                code == (point % 2 == 0 ? 130 : 143) && errors == Self.cleaned, "\(point): \(code) \(errors)")
            interrupted += 1
            if command.hasWayBack {
                #expect(try world.shell(Self.inventory) == before, "point \(point)")
            }
            try world.expectClean()
            #expect(try world.shell(varve + "varve store check") == "", "point \(point)")
        }
        if command.hasWayBack { #expect(interrupted > 0, "it was never interrupted in \(point - 1) points") }
        try world.shell(varve + command.undo)
    }

    /// What it keeps of the bundle is for a moment in its place and not yet read-only.
    @Test("A repack that refreshes its bundle, killed at each durability point, leaves nothing to repair")
    func refreshKilled() throws {
        let world = try StoreWorld()
        try world.addImage("a", try storeSampleLayers())
        let varve = try Self.shellCommand()
        try world.shell(varve + "varve unpack --image layout:a bundle")
        var point = 0
        while true {
            point += 1
            #expect(point < 200)
            try world.shell("echo \(point) > bundle/rootfs/edit")
            let process = try VarveProcess(
                ["repack", "--refresh-bundle", "--image", "layout:new", "bundle"], in: world.path,
                stopAt: point)
            var status: CInt = 0
            guard process.hasStopped(&status) else {
                let errors = try process.errorText()
                #expect(VarveProcess.code(status) == 0, "\(errors)")
                break
            }
            kill(process.pid, SIGKILL)
            #expect(process.end() == 137)
            #expect(try world.shell(varve + "varve store check") == "", "point \(point)")
            #expect(try world.names(in: "store/refreshed").allSatisfy { $0.count > 36 }, "point \(point)")
            // The image that the bundle came from may not be forgotten, however often that happens.
            try world.shell(varve + "varve diff bundle")
            try world.expectClean()
        }
        #expect(point > 20)
        #expect(try world.names(in: "store/refreshed").count == 1)
        #expect(try world.shell(varve + "varve diff bundle") == "")
    }

    /// While a layer is applied, which no durability point falls into.
    @Test(
        "SIGINT in the middle of an extraction",
        arguments: ["unpack", "unpack --driver directory", "raw unpack"])
    func whileExtracting(_ words: String) throws {
        let world = try StoreWorld()
        try world.addImage(
            "a", [try StoreLayer([.directory("d/")] + (0..<8000).map { .file(BytePath("d/\($0)"), "x") })])
        let before = try world.shell(Self.inventory)
        // The command may come to its end before the signal comes: again then.
        while true {
            let process = try VarveProcess(
                words.split(separator: " ").map(String.init) + ["--image", "layout:a", "new"], in: world.path)
            var status: CInt = 0
            var ended: pid_t = 0
            while try ended == 0 && world.names(in: "store/work").isEmpty
                && !world.names(in: ".").contains(where: { $0.hasPrefix(".varve-work-") })
            {
                ended = unsafe waitpid(process.pid, &status, WNOHANG)
            }
            kill(process.pid, SIGINT)
            let code = ended == 0 ? process.end() : VarveProcess.code(status)
            let errors = try process.errorText()
            if code != 0 {
                #expect(code == 130 && errors == Self.cleaned)
                break
            }
            try world.shell("rm -rf new/rootfs/d; btrfs -q subvolume delete new store/chains/* || rm -rf new")
        }
        #expect(try world.shell(Self.inventory) == before)
        #expect(try world.chains == [])
        try world.expectClean()
    }

    @Test("The first SIGTERM ends a command that waits for what is written to a FIFO")
    func fifoThatStaysOpen() throws {
        let world = try StoreWorld()
        try world.addImage("a", try storeSampleLayers())
        try world.shell("mkfifo archive")
        let process = try VarveProcess(
            ["raw", "add-layer", "--image", "layout:a", "--tag", "new", "archive"], in: world.path)
        // Opening it for writing succeeds once the command reads it.
        let archive = try FileDescriptor.workingDirectory.open(world.path.appending("archive"), [.writeOnly])
        while try !world.names(in: "layout").contains(where: { $0.hasPrefix(".varve-blob-") }) {
            usleep(1_000)
        }
        kill(process.pid, SIGTERM)
        #expect(process.end() == 143)
        extendLifetime(archive)
        #expect(try world.names(in: "layout") == ["blobs", "index.json", "oci-layout"])
    }

    @Test(
        "The first signal ends a command that waits for somebody to write to a FIFO",
        arguments: [SIGTERM, SIGINT, SIGHUP])
    func fifoThatNobodyWritesTo(_ signal: CInt) throws {
        let world = try StoreWorld()
        try world.addImage("a", try storeSampleLayers())
        try world.shell("mkfifo archive")
        let process = try VarveProcess(
            ["raw", "add-layer", "--image", "layout:a", "--tag", "new", "archive"], in: world.path)
        while try !world.names(in: "layout").contains(where: { $0.hasPrefix(".varve-blob-") }) {
            usleep(1_000)
        }
        kill(process.pid, signal)
        #expect(process.end() == 128 + signal)
        #expect(try world.names(in: "layout") == ["blobs", "index.json", "oci-layout"])
    }

    @Test(
        "The first SIGTERM ends the deletion of a bundle that is a plain directory; the next command there goes on with it"
    )
    func deletionOfADirectory() throws {
        let world = try StoreWorld(makesStore: false)
        try world.addImage("a", try storeSampleLayers())
        let image = world.layoutPath.appendingBytes(":a")
        let bundles = world.path.appending("bundles")
        try world.shell("mkdir bundles")
        func unpack(_ name: BytePath) -> CommandRun {
            varve("unpack", "--driver", "directory", "--image", image, bundles.appending(name))
        }
        #expect(unpack("old").code == 0)
        let process = try VarveProcess(
            ["bundle", "rm", "bundles/old"], in: world.path, stopAt: "discard-bundle")
        var status: CInt = 0
        let isStopped = process.hasStopped(&status)
        #expect(isStopped)
        kill(process.pid, SIGTERM)
        kill(process.pid, SIGCONT)
        #expect(process.end() == 143)
        let left = try world.names(in: "bundles")
        #expect(left.count == 1 && left.allSatisfy { $0.hasPrefix(".varve-work-") }, "\(left)")
        #expect(try world.shell("ls bundles/.varve-work-*/discard-*/rootfs") != "")
        #expect(unpack("new").code == 0)
        #expect(try world.names(in: "bundles") == ["new"])
    }

    /// What is read or hashed for hours, and what is to do it.
    @Test(
        "The first SIGTERM ends a command in the middle of one file",
        arguments: [
            // The end of the archive is followed by zeros for ever.
            (
                "truncate -s 1T huge",
                "raw add-layer --image layout:a --tag new huge"
            ),
            // One byte differs, and the change time says nothing.
            (
                "truncate -s 4T bundle/rootfs/f; touch -d @1 bundle/rootfs/f; echo y > bundle/rootfs/g",
                "repack --driver directory --refresh-bundle --image layout:new --mask-path /f bundle"
            ),
        ])
    func oneFile(_ prepare: String, _ words: String) throws {
        let world = try StoreWorld(makesStore: false)
        try world.addImage("a", [try StoreLayer([.file("f", "x")])])
        let unpacked = varve(
            "unpack", "--driver", "directory", "--image", world.layoutPath.appendingBytes(":a"),
            world.bundle())
        #expect(unpacked.code == 0, "\(unpacked)")
        try world.shell(prepare)
        let process = try VarveProcess(words.split(separator: " ").map(String.init), in: world.path)
        // As long as it needs to get there; it has hours to do then.
        usleep(1_500_000)
        kill(process.pid, SIGTERM)
        let code = process.end()
        let errors = try process.errorText()
        #expect(code == 143, "\(errors)")
    }

    /// The program takes no notice of being asked to end.
    @Test("The second SIGINT ends a hook's program too")
    func secondWhileAHookRuns() throws {
        let world = try HookWorld()
        try world.setHooks(
            [.postExtract],
            body:
                "trap ': > \"$2/../asked\"' TERM; trap '' INT; : > \"$2/../started\"; while :; do sleep 0.1; done"
        )
        let process = try VarveProcess(
            ["unpack", "--driver", "hooks", "--image", "layout", "bundle"], in: world.path,
            variables: ["VARVE_HOOKS=\(world.path)/hooks.toml"])
        while try !world.names().contains("started") { usleep(1_000) }
        kill(process.pid, SIGINT)
        while try !world.names().contains("asked") { usleep(1_000) }
        kill(process.pid, SIGINT)
        #expect(process.end() == 130)
        // A killed process is gone from the list once it is reaped, by whoever has become its parent.
        while try runCommand(["pgrep", "-f", "\(world.path)/hook "]).status == 0 { usleep(1_000) }
        try world.setHooks([.postExtract], body: "echo '{}'")
        // A bundle of hooks lies in its place from the start, and holds what is theirs: it stays for its user to see.
        try runSuccessfully(["rm", "-r", "\(world.bundle)"])
        #expect(world.unpack().code == 0)
        let left = try world.names().filter { $0.hasPrefix(".") }
        #expect(left == [])
    }

    /// A loopback store that was being made when its process was killed is made by the next command, wherever that was:
    /// also where the image was mounted already.
    @Test func killedWhileALoopbackStoreIsMade() throws {
        let directory = try TemporaryDirectory()
        let result = try runCommand([
            "sh", "-ec",
            """
            cd "$1"; mounted=0; n=0
            while :; do
                n=$((n + 1))
                VARVE_STOP_AT=$n "$2" store init s --loopback 256M & process=$!
                until [ ! -e /proc/$process ] || grep -qs '^State:.[TZ]' /proc/$process/status; do sleep 0.02; done
                kill -9 $process 2>/dev/null || :
                if wait $process 2>/dev/null; then break; fi
                if mountpoint -q s; then mounted=$((mounted + 1)); fi
                [ -e s.btrfs ] || "$2" store init s --loopback 256M
                "$2" store mount s; "$2" --store s store check; "$2" store unmount s
                [ "$(ls -d s.*)" = s.btrfs ]; rm s.btrfs
            done
            "$2" store unmount s
            echo "$n $mounted"
            """, "sh", "\(directory.path)", "\(try builtProgram("varve"))",
        ])
        let counts = result.outputText.split(whereSeparator: \.isWhitespace).compactMap { Int($0) }
        #expect(result.status == 0 && result.errorText == "", "\(result)")
        #expect(counts.count == 2 && counts[0] > 2 && counts[1] > 0, "\(result)")
    }

    @Test("Output that nobody can get is an error, whatever the command")
    func closedOutput() throws {
        let world = try StoreWorld()
        try world.addImage("a", try storeSampleLayers())
        let varve = try builtProgram("varve")
        try world.shell(
            "VARVE_STORE=$PWD/store '\(varve)' unpack --image layout:a bundle; echo n > bundle/rootfs/n")
        for words in [
            "diff bundle", "ls --layout layout", "stat --image layout:a", "store ls", "--help", "--version",
        ] {
            let result = try world.shell(
                """
                export VARVE_STORE=$PWD/store HOME=$PWD
                { '\(varve)' \(words) 2> errors || echo $? > code; } >&-
                cat code errors
                """)
            #expect(
                result == "1\nvarve: cannot write to standard output: Bad file descriptor\n",
                "\(words): \(result)")
        }
        // What has nothing to say has nothing to write.
        let silent = try world.shell("'\(varve)' tag --image layout:a b >&-; '\(varve)' ls --layout layout")
        #expect(silent == "a\nb\n")
    }

    @Test("A reader that goes away is no error")
    func closedPipe() throws {
        let world = try StoreWorld()
        try world.addImage("a", try storeSampleLayers())
        try world.shell(
            """
            export VARVE_STORE=$PWD/store HOME=$PWD
            '\(try builtProgram("varve"))' unpack --image layout:a bundle
            # More than a pipe holds.
            mkdir bundle/rootfs/many; for i in $(seq 6000); do : > bundle/rootfs/many/a-name-of-some-length-$i; done
            { '\(try builtProgram("varve"))' diff bundle 2> errors; echo $? > code; } | head -n 1 > first
            """)
        #expect(try world.shell("cat code errors; wc -l < first") == "0\n1\n")
    }
}
