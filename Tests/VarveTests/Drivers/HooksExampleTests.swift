import VarveArchive
import Glibc
import VarveLayers
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage
import TestSupport
import Testing

@testable import VarveCommands

/// The examples in Docs/examples, on real mounts.
@Suite struct HooksExampleTests {
    /// A world with `hooks.toml` of an example, its paths set to this world's.
    private func world(example: String, _ replacing: [(String, String)]) throws -> StoreWorld {
        let world = try StoreWorld()
        var text = String(
            decoding: try FileDescriptor.workingDirectory.readFile(
                BytePath(repositoryFile("Docs/examples/\(example)/hooks.toml")), limit: 1 << 20),
            as: UTF8.self)
        for (old, new) in replacing {
            #expect(text.contains(old))
            text = text.replacing(old, with: new)
        }
        text = text.replacing("WORLD", with: world.path.description)
        try world.volume.root.writeFileDurably("hooks.toml", Array(text.utf8))
        return world
    }

    private func overlayWorld() throws -> StoreWorld {
        try world(
            example: "overlayfs",
            [
                (
                    "command = [\"/usr/libexec/overlay-hook\"]",
                    "command = [\"env\", \"OVERLAY_STORE=WORLD/overlay\", \"\(repositoryFile("Docs/examples/overlayfs/overlay-hook"))\"]"
                ), ("/var/lib/overlay-store", "WORLD/overlay"),
            ])
    }

    private func run(_ world: StoreWorld, _ arguments: BytePath...) throws -> CommandRun {
        let run = varve(
            arguments,
            variables: ["VARVE_HOOKS": "\(world.path)/hooks.toml", "VARVE_STORE": "\(world.storePath)"])
        if run.code != 0 { throw TestSupportError("\(arguments): \(run)") }
        return run
    }

    private func unpack(_ world: StoreWorld, _ tag: String, _ bundle: String) throws -> CommandRun {
        try run(
            world, "unpack", "--driver", "hooks", "--image",
            world.layoutPath.appendingBytes(BytePath(":\(tag)")),
            world.bundle(bundle))
    }

    private func expectSame(
        _ first: SharedDescriptor, _ second: SharedDescriptor,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let differences = try withExtendedLifetime((first, second)) {
            try TreeCompare.differences(first.fd, second.fd)
        }
        #expect(differences == [], sourceLocation: sourceLocation)
    }

    private func unmount(_ world: StoreWorld, _ bundle: String) {
        try? VarveSystem.unmount(world.bundle(bundle).appending("rootfs"), detaching: true)
    }

    /// Layers for which each has a directory of its own, and which are not all themselves without those below.
    struct Layers: Sendable, CustomStringConvertible {
        var description: String
        var layers: @Sendable () throws -> [StoreLayer]
    }

    static let cases: [Layers] = [
        // A hard link to a file below that has two names; a way through a link below; a whiteout in a directory that only
        // layers below describe.
        Layers(description: "small layers on each other") { try storeSampleLayers() },
        Layers(description: "deletions") {
            [
                try StoreLayer([
                    .directory("./", mode: 0o750), .directory("a/"), .file("a/x", "1"), .file("a/y", "2"),
                    .directory("b/"), .directory("b/c/"), .file("b/c/f", "3"), .directory("d/"),
                    .file("d/e", "4"),
                    .file("f", "5"), .directory("g/"), .file("g/h", "6"),
                ]),
                try StoreLayer([
                    // A directory emptied, with something new in it; one deleted; one deleted and made again, after and
                    // before its whiteout; a file in place of a directory, and a directory in place of a file.
                    .directory("a/", mode: 0o700), .file("a/.wh..wh..opq"), .file("a/z", "7"), .file(".wh.d"),
                    .file("b/.wh.c"), .directory("b/c/"), .file("b/c/new", "8"), .directory("f/"),
                    .file("f/in", "9"),
                    .file("g", "10"),
                    // Of what is not there.
                    .file(".wh.nothing"), .file("nowhere/.wh.nothing"),
                ]),
                try StoreLayer([
                    .file("a/.wh.z"), .file(".wh.f"), .directory("g/"), .file("g/again", "11"),
                    .directory("d/", mode: 0o711),
                    .directory("new/"), .file("new/.wh.nothing"), .file("b/c/deep", "12"),
                ]),
            ]
        },
        // The topmost counts, and overlayfs takes a directory once.
        Layers(description: "a layer that is there twice") {
            let twice = try StoreLayer([.directory("d/"), .file("d/x", "one"), .file("y", "y")])
            return [twice, try StoreLayer([.file("d/x", "two"), .file(".wh.y"), .file("z", "z")]), twice]
        },
        Layers(description: "the root emptied") {
            [
                try StoreLayer([.directory("./"), .file("old", "1"), .directory("d/"), .file("d/x", "1")]),
                try StoreLayer([
                    .directory("./", mode: 0o711), .file(".wh..wh..opq"), .directory("d/"), .file("d/y", "2"),
                ]),
                try StoreLayer([.file("top", "3")]),
            ]
        },
        Layers(description: "no layer at all") { [] },
    ]

    /// The same tree as without a store; and a second time nothing is extracted, though no blob can be read.
    @Test(arguments: cases)
    func overlay(_ test: Layers) throws {
        let world = try overlayWorld()
        defer { ["one", "two"].forEach { unmount(world, $0) } }
        let layers = try test.layers()
        try world.addImage("image", layers)
        #expect(
            try unpack(world, "image", "one").errorText.contains(
                "0 of \(layers.count) layers are in the store"))
        let reference = try world.reference(layers)
        try expectSame(reference, try world.open("one/rootfs"))
        #expect(try world.names(in: "overlay/work") == [])

        try world.hideLayers("image")
        let again = try unpack(world, "image", "two")
        #expect(again.errorText.contains("\(layers.count) of \(layers.count) layers are in the store"))
        try expectSame(reference, try world.open("two/rootfs"))
        // One file of the store shows in both bundles.
        if !layers.isEmpty {
            let names = try world.names(in: "overlay/layers")
            #expect(names.count == Set(names).count && names.count <= layers.count)
        }
    }

    /// A layer in the middle of another image is not extracted again, whatever lies below it.
    @Test func overlaySharesLayers() throws {
        let world = try overlayWorld()
        defer { ["one", "two"].forEach { unmount(world, $0) } }
        let shared = try StoreLayer([.directory("./"), .directory("shared/"), .file("shared/x", "x")])
        let a = try StoreLayer([.directory("./"), .directory("a/"), .file("a/a", "a")])
        let b = try StoreLayer([.directory("./"), .directory("b/"), .file("b/b", "b")])
        try world.addImage("one", [a, shared])
        try world.addImage("two", [b, shared])
        _ = try unpack(world, "one", "one")
        try world.shell("rm layout/blobs/sha256/\(try world.image("two").layers[1].digest.hex)")
        #expect(try unpack(world, "two", "two").errorText.contains("layer 1 is in the store"))
        try expectSame(try world.reference([b, shared]), try world.open("two/rootfs"))
    }

    /// What a person does in a mounted bundle comes out as a layer that gives the same tree.
    @Test func overlayRepack() throws {
        let world = try overlayWorld()
        defer { ["one", "two"].forEach { unmount(world, $0) } }
        let layers = try Self.cases[0].layers()
        try world.addImage("image", layers)
        _ = try unpack(world, "image", "one")
        try world.shell(
            """
            cd one/rootfs
            chmod 700 etc; echo more >> etc/new; rm bin/bash; mkdir -p x/y; echo z > x/y/z; ln -s z x/y/link
            rm -rf data; mkdir data; echo n > data/n; touch -d @5 etc/passwd; ln etc/passwd etc/passwd-
            mkfifo x/fifo; chmod u+s bin/zsh; setfattr -n user.a -v b x; touch "x/$(printf 'a\\nb c')"
            # Nothing that counts.
            cat bin/sh > /dev/null; touch -a -d @77 bin/sh; chmod 644 etc/new; mkdir t; rmdir t
            """)
        // The bundle remembers who made it.
        let diff = try run(world, "diff", world.bundle("one"))
        #expect(
            diff.text.split(separator: "\n").map(String.init) == [
                "M .", "M bin", "D bin/bash", "M bin/zsh", "M data", "D data/kept", "A data/n", "D data/x",
                "M etc",
                "M etc/new", "M etc/passwd", "A etc/passwd-", "A x", "A x/a\\x0ab c", "A x/fifo", "A x/y",
                "A x/y/link",
                "A x/y/z",
            ])
        _ = try run(
            world, "repack", "--image", world.layoutPath.appendingBytes(":changed"), world.bundle("one"))
        _ = try unpack(world, "changed", "two")
        try expectSame(try world.open("one/rootfs"), try world.open("two/rootfs"))
        // And so does the driver of the product.
        try world.unpack("changed", "plain")
        try expectSame(try world.open("one/rootfs"), try world.open("plain/rootfs"))
        // Its program unmounts it, and then it can be deleted.
        _ = try run(world, "bundle", "rm", world.bundle("one"), world.bundle("two"))
        #expect(try world.names(in: ".").filter { ["one", "two"].contains($0) } == [])
    }

    /// A layer that cannot be read: no bundle, no mount, nothing half-extracted that counts.
    @Test func overlayFailure() throws {
        let world = try overlayWorld()
        try world.addImage("image", try Self.cases[1].layers())
        let top = try #require(try world.image("image").layers.last)
        try world.shell("printf damage >> layout/blobs/sha256/\(top.digest.hex)")
        let run = varve(
            "unpack", "--driver", "hooks", "--image", world.layoutPath.appendingBytes(":image"),
            world.bundle("one"),
            variables: ["VARVE_HOOKS": "\(world.path)/hooks.toml"])
        #expect(run.code == 3, "\(run)")
        #expect(try !world.names(in: ".").contains("one"))
        #expect(try world.names(in: "overlay/layers").count <= 2)
    }

    private func btrfsWorld() throws -> StoreWorld {
        try world(
            example: "btrfs-hook",
            [
                (
                    "\"varve\", \"--store\", \"/var/lib/varve\"",
                    "\"\(try builtProgram("varve"))\", \"--store\", \"WORLD/store\""
                )
            ])
    }

    /// The btrfs store by way of the protocol: chains under the names that it gives them itself, bundles that are
    /// snapshots, exact deltas.
    @Test func btrfsHook() throws {
        let world = try btrfsWorld()
        let layers = try storeSampleLayers()
        try world.addImage("image", layers)
        _ = try unpack(world, "image", "one")
        #expect(try world.chains == world.chainNames(layers).sorted())
        let reference = try world.reference(layers)
        try expectSame(reference, try world.open("one/rootfs"))
        // A chain holds the tree and nothing else, and its own driver takes it.
        #expect(try world.names(in: "store/chains/\(try #require(world.chains.first))") == ["rootfs"])
        try world.hideLayers("image")
        #expect(try world.unpack("image", "own").layersInPlace == 3)
        _ = try unpack(world, "image", "two")
        try expectSame(reference, try world.open("two/rootfs"))
        try world.expectClean()

        try world.shell("echo x > two/rootfs/etc/x; rm two/rootfs/bin/zsh")
        #expect(
            try run(world, "diff", "--driver", "hooks", world.bundle("two")).text
                == "M bin\nD bin/zsh\nM etc\nA etc/x\n")
        #expect(try world.diff("two") == ["M bin", "D bin/zsh", "M etc", "A etc/x"])
    }

    @Test func btrfsHookFailure() throws {
        let world = try btrfsWorld()
        try world.addImage("image", try storeSampleLayers())
        let top = try #require(try world.image("image").layers.last)
        try world.shell("printf damage >> layout/blobs/sha256/\(top.digest.hex)")
        let run = varve(
            "unpack", "--driver", "hooks", "--image", world.layoutPath.appendingBytes(":image"),
            world.bundle("one"),
            variables: ["VARVE_HOOKS": "\(world.path)/hooks.toml"])
        #expect(run.code == 3, "\(run)")
        #expect(try !world.names(in: ".").contains("one"))
        #expect(try world.chains.count == 2)
        try world.expectClean()
    }

    struct WrongRequest: Sendable, CustomStringConvertible {
        var description: String
        var hook = "unpack.ociv1.layer.try-skip"
        var input: String
        var code: Int32
        var says: String
    }

    @Test(arguments: [
        WrongRequest(
            description: "no hook", hook: "try-skip", input: "{}", code: 2,
            says: "there is no hook \"try-skip\""),
        WrongRequest(
            description: "no JSON", input: "{", code: 3,
            says: "the request on standard input cannot be used: it is not valid JSON"),
        WrongRequest(
            description: "a later protocol", input: #"{"protocolVersion": 2}"#, code: 3,
            says: "its \"protocolVersion\" is not 1; see Docs/hooks.md"),
        WrongRequest(
            description: "another hook",
            input: #"{"protocolVersion": 1, "hook": "unpack.ociv1.layer.post-extract"}"#, code: 3,
            says: "its \"hook\" is not \"unpack.ociv1.layer.try-skip\""),
        WrongRequest(
            description: "a DiffID that is none",
            input:
                #"{"protocolVersion": 1, "hook": "unpack.ociv1.layer.try-skip", "layers": [{"diffID": "x"}]}"#,
            code: 3, says: "a layer has no \"diffID\""),
    ])
    func wrongRequest(_ test: WrongRequest) throws {
        let world = try StoreWorld()
        let result = try runCommand(
            [
                try builtProgram("varve"), "--store", "\(world.storePath)", "hook", test.hook,
                "\(world.bundle())",
            ],
            input: Array(test.input.utf8))
        #expect(result.status == test.code)
        #expect(result.errorText.contains(test.says), "\(result.errorText)")
        #expect(result.output == [])
    }

    /// Tests/DriverExample: the engine with a driver that a library user wrote, and the same trees.
    @Test func driverOfAUser() throws {
        let world = try StoreWorld()
        let layers = try storeSampleLayers()
        try world.addImage("image", layers)
        let program = BytePath(try EngineKillTests.example()).parent.appending("driver-example")
        let output = try runSuccessfully([
            program.description, "\(world.layoutPath):image", "\(world.bundle("folder"))",
        ])
        // The root directory, whose time changed, and the file.
        #expect(output.outputText.hasPrefix("2 changes, new manifest sha256:"), "\(output.outputText)")
        try world.unpack("image-greeted", "checked")
        try expectSame(
            try world.open("folder/rootfs"), try world.open("checked/rootfs"))
        // Nothing of its own is left, neither when it ends well nor when an unpack fails.
        #expect(try world.names(in: ".").filter { $0.hasPrefix("folder") } == ["folder"])
        try world.hideLayers("image")
        let failed = try runCommand([
            program.description, "\(world.layoutPath):image", "\(world.bundle("another"))",
        ])
        #expect(failed.status != 0)
        #expect(try world.names(in: ".").filter { $0.hasPrefix("another") } == [])
    }
}
