import VarveFormats
import Glibc
import Logging
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage
import TestSupport
import Testing

@testable import VarveCommands

/// A layout, a hook program and a `hooks.toml` in a plain directory: hooks need no btrfs.
final class HookWorld {
    let directory: TemporaryDirectory
    var path: BytePath { directory.path }
    var bundle: BytePath { path.appending("bundle") }
    var image: BytePath { path.appending("layout:latest") }
    var variables: [String: String] {
        ["VARVE_HOOKS": "\(path)/hooks.toml", "HOME": "\(path)", "PATH": "/usr/bin:/bin"]
    }

    init() throws {
        let made = try TemporaryDirectory()
        let layout = try ImageLayout.create(at: made.path.appending("layout"))
        try Self.addImage("latest", try storeSampleLayers(), to: layout)
        directory = made
    }

    static func addImage(_ tag: String, _ layers: [StoreLayer], to layout: ImageLayout) throws {
        var descriptors: [Descriptor] = []
        for layer in layers {
            let writer = try BlobWriter(layout)
            try writer.write(try layer.blob())
            try writer.finish()
            let blob = try #require(writer.blob)
            descriptors.append(
                Descriptor(mediaType: layer.compression.mediaType, digest: blob.digest, size: blob.size))
        }
        var config = ImageConfig.empty(created: .epoch)
        config["config"] = ["Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]]
        config["rootfs"] = [
            "type": "layers", "diff_ids": .array(layers.map { .string($0.diffID.description) }),
        ]
        let stored = try layout.putJSON(config, mediaType: MediaType.ociConfig)
        let manifest = ImageManifest(config: stored, layers: descriptors)
        try layout.tag(tag, try layout.putJSON(manifest.json, mediaType: MediaType.ociManifest))
    }

    /// Writes a program for the hooks; `body` sees the hook's name as `$1` and the bundle as `$2`.
    func setHooks(
        _ names: [HookName], settings: String = "", mode: UInt32 = 0o755, body: String
    ) throws {
        let directory = try FileDescriptor.workingDirectory.openDirectory(path)
        try directory.fd.writeFileDurably("hook", Array("#!/bin/sh\n\(body)\n".utf8), mode: 0o755)
        try directory.fd.changeMode(of: "hook", to: mode)
        var file = "[hooks]\n"
        for name in names {
            file += "\"\(name.rawValue)\" = { command = [\"\(path)/hook\"]\(settings) }\n"
        }
        try directory.fd.writeFileDurably("hooks.toml", Array(file.utf8))
    }

    func unpack(cancellation: Cancellation = Cancellation()) -> CommandRun {
        varve(
            "unpack", "--driver", "hooks", "--image", image, bundle, variables: variables,
            cancellation: cancellation)
    }

    func names() throws -> [String] {
        let opened = try FileDescriptor.workingDirectory.openDirectory(path)
        return try opened.fd.entries().map(\.name.description).sorted()
    }
}

/// What programs do wrong: one clear sentence each, exit code 6, and nothing half-done.
@Suite struct HooksWrongTests {
    struct Case: Sendable, CustomStringConvertible {
        var description: String
        var hook: HookName
        var settings = ""
        var mode: UInt32 = 0o755
        var body: String
        /// What follows `varve: the hook NAME failed: `, with PROGRAM and BUNDLE for the paths.
        var says: String
    }

    @Test(arguments: [
        Case(
            description: "it may not be executed", hook: .trySkip, mode: 0o644, body: "",
            says:
                "\"PROGRAM\" cannot be run: Permission denied; make it a program that can be executed, or correct hooks.toml"
        ),
        Case(
            description: "it fails, with words", hook: .trySkip, body: "echo no store here >&2; exit 1",
            says: "\"PROGRAM\" ended with status 1: no store here"),
        Case(
            description: "it fails, silently, late", hook: .postExtract, body: "exit 3",
            says: "\"PROGRAM\" ended with status 3 and said nothing on standard error"),
        Case(
            description: "it dies", hook: .postUnpack, body: "kill -9 $$",
            says: "\"PROGRAM\" was killed by signal 9 and said nothing on standard error"),
        // Its child keeps the pipes open: that must not keep varve waiting.
        Case(
            description: "it hangs", hook: .trySkip, settings: ", timeout = 1",
            body: "sleep 1000 & sleep 1000",
            says:
                "\"PROGRAM\" was still running after 1 seconds and was stopped; correct it, or raise its timeout in hooks.toml"
        ),
        Case(
            description: "it hangs and will not be stopped", hook: .runtimeConfig, settings: ", timeout = 1",
            body: "trap '' TERM; while :; do sleep 0.1; done",
            says:
                "\"PROGRAM\" was still running after 1 seconds and was stopped; correct it, or raise its timeout in hooks.toml"
        ),
        Case(
            description: "half a JSON", hook: .trySkip, body: "printf '{\"layers\": '",
            says: "the answer of \"PROGRAM\" is not valid JSON: the document ends early at byte 11"),
        Case(
            description: "no answer", hook: .postExtract, body: ":",
            says: "\"PROGRAM\" gave no answer; one that has nothing to say answers {}"),
        Case(
            description: "not an object", hook: .postExtract, body: "echo '[]'",
            says: "the answer of \"PROGRAM\" is JSON, but not an object"),
        Case(
            description: "a member that is not known", hook: .postUnpack, body: "echo '{\"layer\": 1}'",
            says: "the answer of \"PROGRAM\" is wrong: \"layer\" is no member of an answer to this hook"),
        Case(
            description: "more layers than there are", hook: .trySkip,
            body: "mkdir -p \"$2/rootfs\"; echo '{\"layers\": 4}'",
            says:
                "the answer of \"PROGRAM\" is wrong: it says that 4 layers are in place, and the image has 3"),
        Case(
            description: "layers that are not there", hook: .trySkip, body: "echo '{\"layers\": 2}'",
            says:
                "the answer of \"PROGRAM\" is wrong: it says that 2 layers are in place, and there is no rootfs in the bundle"
        ),
        Case(
            description: "no layers, and yet something there", hook: .trySkip,
            body: "mkdir -p \"$2/rootfs/x\"; echo '{\"layers\": 0}'",
            says:
                "the answer of \"PROGRAM\" is wrong: it says that no layer is in place, and the bundle's rootfs is not empty"
        ),
        Case(
            description: "a negative number", hook: .trySkip, body: "echo '{\"layers\": -1}'",
            says: "the answer of \"PROGRAM\" is wrong: \"layers\" must say how many layers are in place"),
        Case(
            description: "more directories than layers in place", hook: .trySkip,
            body: "mkdir -p \"$2/rootfs\"; echo '{\"layers\": 1, \"directories\": [\"/a\", \"/b\"]}'",
            says:
                "the answer of \"PROGRAM\" is wrong: it says that 1 layers are in place, and names the directories of 2; layers extracted side by side may need those below them"
        ),
        Case(
            description: "a directory that no file can have", hook: .extractTo,
            body: "echo '{\"directory\": \"/a\\u0000b\"}'",
            says: "the answer of \"PROGRAM\" is wrong: \"directory\" must name the directory for layer 0"),
        Case(
            description: "a directory outside the bundle", hook: .extractTo,
            body: "echo '{\"directory\": \"/etc\"}'",
            says:
                "the answer of \"PROGRAM\" is wrong: the directory \"/etc\" does not lie in the bundle (and no store is set in hooks.toml)"
        ),
        // The way out may also be dots or a link.
        Case(
            description: "a directory outside the bundle, by dots", hook: .extractTo,
            body: "echo \"{\\\"directory\\\": \\\"$2/../layout\\\"}\"",
            says:
                "the answer of \"PROGRAM\" is wrong: the directory \"BUNDLE/../layout\" cannot be opened: Invalid cross-device link"
        ),
        Case(
            description: "a directory outside the bundle, by a link", hook: .extractTo,
            body: "ln -s /etc \"$2/link\"; echo \"{\\\"directory\\\": \\\"$2/link\\\"}\"",
            says:
                "the answer of \"PROGRAM\" is wrong: the directory \"BUNDLE/link\" cannot be opened: Too many levels of symbolic links"
        ),
        Case(
            description: "a directory that is not empty", hook: .extractTo,
            body: "mkdir -p \"$2/a/b\"; echo \"{\\\"directory\\\": \\\"$2/a\\\"}\"",
            says: "the answer of \"PROGRAM\" is wrong: the directory \"BUNDLE/a\" for layer 0 is not empty"),
        Case(
            description: "one directory for two layers", hook: .extractTo,
            body: "mkdir -p \"$2/a\"; echo \"{\\\"directory\\\": \\\"$2/a\\\"}\"",
            says:
                "the answer of \"PROGRAM\" is wrong: the directory \"BUNDLE/a\" is to take both layer 0 and layer 1"
        ),
        Case(
            description: "one directory for two layers, spelt in two ways", hook: .extractTo,
            body: """
                mkdir -p "$2/a"; if grep -q '"layer":1'; then way=./; fi
                echo "{\\"directory\\": \\"$2/${way}a\\"}"
                """,
            says:
                "the answer of \"PROGRAM\" is wrong: the directory \"BUNDLE/./a\" is to take both layer 0 and layer 1"
        ),
        Case(
            description: "a flood", hook: .postExtract, body: "exec cat /dev/zero",
            says: "\"PROGRAM\" wrote more than the 1 MiB that an answer may have, and was stopped"),
        Case(
            description: "no configuration", hook: .runtimeConfig, body: "echo '{\"runtimeConfig\": 7}'",
            says: "the answer of \"PROGRAM\" is wrong: \"runtimeConfig\" must be the config.json to write"),
        Case(
            description: "what is no configuration", hook: .runtimeConfig,
            body: "echo '{\"runtimeConfig\": {\"ociVersion\": \"1.0.2\"}}'",
            says:
                "the answer of \"PROGRAM\" is wrong: \"runtimeConfig\" is no runtime configuration: it has no \"root\" with a \"path\""
        ),
        Case(
            description: "a configuration of a wrong process", hook: .runtimeConfig,
            body:
                "jq '.runtimeConfig.process.args = [1] | {runtimeConfig}'",
            says:
                "the answer of \"PROGRAM\" is wrong: \"runtimeConfig\" is no runtime configuration: the \"args\" of its \"process\" are no list of strings"
        ),
    ])
    func unpack(_ test: Case) throws {
        let world = try HookWorld()
        try world.setHooks([test.hook], settings: test.settings, mode: test.mode, body: test.body)
        let before = try world.names()
        let run = world.unpack()
        #expect(run.code == 6, "\(run)")
        let says = test.says.replacing("PROGRAM", with: "\(world.path)/hook").replacing(
            "BUNDLE", with: "\(world.bundle)")
        let sentence = "varve: the hook \(test.hook.rawValue) failed: \(says)\n"
        #expect(run.errorText.hasSuffix(sentence), "\(run.errorText)\ninstead of\n\(sentence)")
        #expect(run.output == [])
        // Neither the bundle nor anything beside it is left, and nothing of the program runs.
        #expect(try world.names() == before)
        #expect(try running(world.path) == [])
    }

    @Test("A bundle whose program will not let it go stays; one that nobody has programs for goes")
    func preRemove() throws {
        let world = try HookWorld()
        try world.setHooks([.postUnpack], settings: "", mode: 0o755, body: "cat > /dev/null; echo '{}'")
        func run(_ words: BytePath...) -> CommandRun { varve(words, variables: world.variables) }
        #expect(run("unpack", "--driver", "hooks", "--image", world.image, world.bundle).code == 0)
        #expect(run("diff", world.bundle).code != 4)
        try world.setHooks([.preRemove], settings: "", mode: 0o755, body: "echo busy >&2; exit 3")
        let refused = run("bundle", "rm", world.bundle)
        #expect(
            refused.code == 6 && refused.errorText.contains("the hook bundle.pre-remove failed")
                && refused.errorText.contains("busy"), "\(refused)")
        #expect(try world.names().contains { $0.contains("bundle") })
        try shell("rm \"$1/hooks.toml\"", world.path)
        #expect(run("bundle", "rm", world.bundle).code == 0)
    }

    /// Layers that are extracted side by side have one limit together.
    @Test func limits() throws {
        let world = try HookWorld()
        try world.setHooks(
            [.extractTo],
            body: """
                layer=$(sed 's/.*"layer"://; s/[^0-9].*//'); mkdir "$2/$layer"
                echo "{\\"directory\\": \\"$2/$layer\\"}"
                """)
        // The layers have nine, four and two entries; directories that are made on the way count, too.
        let size = try storeSampleLayers().reduce(0) { $0 + $1.archive.count }
        for (option, limit, unit) in [
            ("--max-entries", 14, "entries"), ("--max-size", size - 1, "bytes"), ("--max-entries", 40, ""),
        ] {
            let run = varve(
                "unpack", "--driver", "hooks", BytePath(option), BytePath("\(limit)"), "--image", world.image,
                world.bundle, variables: world.variables)
            let says = "varve: the image unpacks to more than \(limit) \(unit), which its layer sha256:"
            #expect(run.code == (unit.isEmpty ? 0 : 3), "\(run)")
            #expect(unit.isEmpty ? run.errorText == "" : run.errorText.hasPrefix(says), "\(run)")
        }
        #expect(try runSuccessfully(["rm", "-r", "\(world.bundle)"]).status == 0)
        let run = varve(
            "unpack", "--driver", "hooks", "--max-size", BytePath("\(size * 4)"), "--image", world.image,
            world.bundle, variables: world.variables)
        #expect(run.code == 0, "\(run)")
    }

    /// The command lines of processes that name a path.
    private func running(_ path: BytePath) throws -> [String] {
        let mine = "\(getpid())"
        let processes = try FileDescriptor.workingDirectory.openDirectory("/proc")
        return try processes.fd.entries().compactMap { entry in
            guard let pid = entry.name.string, pid != mine, pid.allSatisfy(\.isNumber),
                let bytes = try? FileDescriptor.workingDirectory.readFile(
                    BytePath("/proc/\(pid)/cmdline"), limit: 1 << 16)
            else { return nil }
            let line = String(decoding: bytes, as: UTF8.self)
            return line.contains(path.description) ? line : nil
        }
    }

    /// What a program says goes to the user as it is said, but for what would steer a terminal; a flood of it ends.
    @Test func errorOutput() throws {
        let world = try HookWorld()
        try world.setHooks(
            [.postUnpack], body: "printf 'one\\033[2J\\n' >&2; yes two | head -c 3000000 >&2; echo '{}'")
        let run = world.unpack()
        #expect(run.code == 0, "\(run.errorText.suffix(400))")
        #expect(run.errorText.hasPrefix("one\\x1b[2J\ntwo\n"))
        #expect(run.errorText.hasSuffix("(the rest of what it says is not shown)\n"))
        #expect(run.errors.count < 1_100_000)
    }

    /// Ctrl-C ends a running hook and takes the bundle away.
    @Test func interrupted() throws {
        let world = try HookWorld()
        try world.setHooks([.postExtract], body: "touch \"$2/../started\"; sleep 1000")
        let cancellation = Cancellation()
        let started = world.path.appending("started")
        let hasEnded = Cancellation()
        let waiting = try WorkerThread(name: "test") {
            while !hasEnded.isCancelled,
                (try? FileDescriptor.workingDirectory.statusIfPresent(of: started)) == .some(nil)
            {
                usleep(10_000)
            }
            cancellation.cancel()
        }
        let run = world.unpack(cancellation: cancellation)
        hasEnded.cancel()
        waiting.join()
        #expect(run.code == 130, "\(run)")
        #expect(run.errorText == "varve: interrupted; nothing half-done was left behind\n")
        #expect(try !world.names().contains("bundle"))
        #expect(try running(world.path) == [])
    }

    struct DeltaCase: Sendable, CustomStringConvertible {
        var answer: String
        var says: String
        var description: String { answer }
    }

    /// A list of changes that does not fit the tree makes no layer.
    @Test(arguments: [
        DeltaCase(
            answer: #"[{"change":"added","path":"new"}]"#,
            says: "\"new\" is said to be added, and is not there"),
        DeltaCase(
            answer: #"[{"change":"deleted","path":"bin/sh"}]"#,
            says: "\"bin/sh\" is said to be deleted, and is there"),
        // A whiteout there would make the directory anew, or delete through the link.
        DeltaCase(
            answer: #"[{"change":"deleted","path":"gone"},{"change":"deleted","path":"gone/f"}]"#,
            says:
                "\"gone/f\" is said to be deleted, and its directory is not there; what lay below a deleted directory is not listed"
        ),
        DeltaCase(
            answer: #"[{"change":"deleted","path":"lib/f"}]"#,
            says:
                "\"lib/f\" is said to be deleted, and its directory is not there; what lay below a deleted directory is not listed"
        ),
        DeltaCase(
            answer: "[{\"change\":\"deleted\",\"path\":\"bin/\(String(repeating: "x", count: 256))\"}]",
            says: "\"bin/\(String(repeating: "x", count: 196))…\" is longer than any path in a layer"),
        DeltaCase(
            answer: #"[{"change":"modified","path":"../hook"}]"#,
            says:
                "\"../hook\" is no path relative to the rootfs; write it with no slash before it and with no . and .. in it"
        ),
        DeltaCase(
            answer: #"[{"change":"modified","path":"/etc"}]"#,
            says:
                "\"/etc\" is no path relative to the rootfs; write it with no slash before it and with no . and .. in it"
        ),
        DeltaCase(
            answer: #"[{"change":"modified","path":"bin"},{"change":"modified","path":"bin"}]"#,
            says: "\"bin\" stands in it twice"),
        DeltaCase(
            answer: #"[{"change":"changed","path":"bin"}]"#,
            says: "each change is an object whose \"change\" is added, modified or deleted"),
        DeltaCase(
            answer: #"[{"change":"modified","pathBase64":"?"}]"#,
            says: "each change has a \"path\", or a \"pathBase64\" where that is not UTF-8"),
        DeltaCase(answer: "7", says: "\"changes\" must be an array"),
    ])
    func deltaList(_ test: DeltaCase) throws {
        let world = try HookWorld()
        try world.setHooks([.deltaList], body: "echo '{\"changes\": \(test.answer)}'")
        try #require(world.unpack().code == 0)
        let before = try ImageLayout(opening: world.path.appending("layout")).listTags()
        let run = varve(
            "repack", "--driver", "hooks", "--image", world.path.appending("layout:changed"), world.bundle,
            variables: world.variables)
        #expect(run.code == 6, "\(run)")
        let sentence =
            "varve: the hook repack.ociv1.delta-list failed: the answer of \"\(world.path)/hook\" is wrong: \(test.says)\n"
        #expect(run.errorText == sentence)
        #expect(try ImageLayout(opening: world.path.appending("layout")).listTags() == before)
    }

    /// A failing delta list ends the repack, unless `fallback = true`: then the tree is compared with the image, and the
    /// layer is exactly what changed.
    @Test func fallback() throws {
        let world = try HookWorld()
        try world.setHooks([.deltaList], body: "exit 9")
        try #require(world.unpack().code == 0)
        try shell("echo x > \"$1/rootfs/etc/x\"; rm \"$1/rootfs/bin/zsh\"", world.bundle)
        let arguments: [BytePath] = [
            "repack", "--driver", "hooks", "--image", world.path.appending("layout:changed"), world.bundle,
        ]
        #expect(varve(arguments, variables: world.variables).code == 6)
        try world.setHooks([.deltaList], settings: ", fallback = true", body: "exit 9")
        let run = varve(arguments, variables: world.variables)
        #expect(run.code == 0, "\(run)")
        #expect(
            run.errorText.contains(
                "ended with status 9 and said nothing on standard error; the whole tree is compared instead"))
        let image = try ImageLayout(opening: world.path.appending("layout")).resolve("changed")
        let layer = try #require(image.layers.last)
        let listed = try runSuccessfully(
            ["tar", "-tf", "\(world.path)/layout/blobs/sha256/\(layer.digest.hex)"])
        #expect(
            listed.outputText.split(separator: "\n").sorted()
                == ["bin/", "bin/.wh.zsh", "etc/", "etc/x"])
        #expect(try !world.names().contains { $0.hasPrefix(".varve-compare") })
    }

    struct FileCase: Sendable, CustomStringConvertible {
        var text: String
        var wrong: String
        var description: String { text }
    }

    @Test(arguments: [
        FileCase(
            text: "[hooks]\n\"unpack.ociv1.layer.tryskip\" = {}",
            wrong: "line 2 of \"h\" is wrong: there is no hook"),
        FileCase(
            text: "[hook]\n",
            wrong: "line 1 of \"h\" is wrong: there is nothing in it but the table [hooks], and not \"hook\""),
        FileCase(text: "[hooks]\n\"\(HookName.trySkip.rawValue)\" = { }", wrong: "its command is missing"),
        FileCase(
            text: "[hooks]\n\"\(HookName.trySkip.rawValue)\" = { command = [\"a/b\"] }",
            wrong: "the program \"a/b\" is neither an absolute path nor a name"),
        FileCase(
            text: "[hooks]\n\"\(HookName.trySkip.rawValue)\" = { command = [\"/a\"], timeout = 0 }",
            wrong: "a timeout is 1 to 86400 seconds, and not 0"),
        FileCase(
            text: "[hooks]\n\"\(HookName.trySkip.rawValue)\" = { command = [\"/a\"], fallback = true }",
            wrong: "\"fallback\" is not known of unpack.ociv1.layer.try-skip, or of another type"),
        FileCase(
            text: "[hooks]\n\"\(HookName.trySkip.rawValue)\" = { command = \"/a\" }",
            wrong: "\"command\" is not known of unpack.ociv1.layer.try-skip, or of another type"),
    ])
    func configuration(_ test: FileCase) throws {
        do {
            _ = try HooksConfiguration(parsing: Array(test.text.utf8), of: "h")
            Issue.record("it was taken")
        } catch let error as VarveError {
            #expect(error.description.contains(test.wrong), "\(error)")
        }
    }

    @Test func noConfiguration() throws {
        let world = try HookWorld()
        let run = world.unpack()
        #expect(run.code == 4)
        #expect(
            run.errorText
                == "varve: no hooks are configured: \"\(world.path)/hooks.toml\" is not there; name a hooks.toml with VARVE_HOOKS (see Docs/hooks.md)\n"
        )
    }
}
