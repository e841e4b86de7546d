import VarveFormats
import VarveBtrfs
import Glibc
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage
import TestSupport
import Testing

@testable import VarveCommands

/// What an image or another program says is never able to steer the terminal of who reads it.
@Suite struct NeighbourTextTests {
    private static let hostile = "\u{1b}]0;x\u{7}\u{9b}31m\u{202e}\nvarve: all is well\r\u{7f}\u{2066}"

    /// Whether a terminal shows the bytes as they are, line by line.
    private func isHarmless(_ bytes: [UInt8]) -> Bool {
        guard let text = String(validating: bytes, as: UTF8.self) else { return false }
        return text.unicodeScalars.allSatisfy { scalar in
            switch scalar.value {
            case 0x0a: true
            case ..<0x20, 0x7f...0x9f, 0x61c, 0x200e...0x200f, 0x2028...0x202e, 0x2066...0x2069: false
            default: true
            }
        }
    }

    /// An image whose tag, author, labels, history and volumes are hostile.
    private func world() throws -> StoreWorld {
        let world = try StoreWorld()
        let hostile = Self.hostile
        try world.addImage("a", try storeSampleLayers()) { config in
            config["author"] = .string(hostile)
            config["config"] = [
                "Labels": [.init(hostile): .string(hostile)], "Env": [.string("A=" + hostile)],
                "Volumes": [.init(hostile): [:]],
            ]
            config["history"] = [["created_by": .string(hostile), "comment": .string(hostile)]]
        }
        var index =
            try JSONValue(
                parsing: try FileDescriptor.workingDirectory.readFile(
                    world.layoutPath.appending("index.json"), limit: 1 << 20)
            ).object ?? JSONObject()
        var entries = index["manifests"]?.array ?? []
        var entry = entries[0].object ?? JSONObject()
        entry["annotations"] = ["org.opencontainers.image.ref.name": .string(hostile)]
        entries.append(.object(entry))
        index["manifests"] = .array(entries)
        let layout = try world.open("layout")
        try layout.fd.writeFileDurably("index.json", JSONValue.object(index).serialized())
        return world
    }

    @Test("Nothing that a person is shown steers a terminal; JSON and -z are exact")
    func output() throws {
        let world = try world()
        let (layout, store) = (world.layoutPath, world.storePath)
        let image = layout.appendingBytes(":a")
        // Names that older versions took.
        try world.shell(
            "mkdir tree; btrfs -q subvolume snapshot -r . 'store/snapshots/'$(printf 'a\\033b') 2>/dev/null || true"
        )
        let snapshots = try world.open("store/snapshots")
        try world.unpack("a")
        let bundle = try world.open("bundle")
        try bundle.fd.snapshot(
            to: snapshots.fd, try #require(BytePath(Array(Self.hostile.utf8))), readOnly: true)
        let rootfs = try world.open("bundle/rootfs")
        try rootfs.fd.writeFileDurably(try #require(BytePath(Array("f\u{9b}\u{202e}\n\\".utf8))), [1])
        let file = try #require(BytePath(Array("f\u{9b}\u{202e}\n\\".utf8)))
        func check(_ words: BytePath..., code: Int32 = 0, shows: String) {
            let run = varve(
                ["--store", store, "--log", "debug"] + words, variables: ["HOME": "\(world.path)"])
            #expect(run.code == code, "\(words): \(run)")
            #expect(isHarmless(run.output) && isHarmless(run.errors), "\(words): \(run)")
            #expect(run.text.contains(shows) || run.errorText.contains(shows), "\(words): \(run)")
        }
        let escaped = #"\x1b]0;x\x07\xc2\x9b31m\xe2\x80\xae\x0avarve: all is well\x0d\x7f\xe2\x81\xa6"#
        check("ls", "--layout", layout, shows: escaped)
        check("ls", "-q", "--layout", layout, shows: escaped)
        // As umoci prints it: with tabs of its own, and what comes from the image quoted as Go does.
        let stat = varve("stat", "--image", image)
        #expect(stat.code == 0 && isHarmless(stat.output.filter { $0 != 9 }), "\(stat)")
        check("snapshot", "ls", "--no-trunc", shows: escaped)
        check("snapshot", "ls", "-q", shows: escaped)
        check("diff", world.bundle(), shows: #"A f\xc2\x9b\xe2\x80\xae\x0a\x5c"#)
        let absent = try #require(BytePath(Array("no\u{9b}\u{202e}\u{1b}layout".utf8)))
        check(
            "unpack", "--image", layout.appending(absent), world.path.appending("x"), code: 4,
            shows: #"no\xc2\x9b\xe2\x80\xae\x1blayout"#)
        check(
            "snapshot", "create", world.bundle(), BytePath(Self.hostile), code: 2,
            shows: "cannot name a snapshot")
        // Exact: the JSON says the names as they are, and -z writes the bytes.
        let list = varve("--store", store, "snapshot", "ls", "--format", "json")
        let names = try JSONValue(parsing: list.output).array?.compactMap { $0.object?["name"]?.string }
        #expect(names?.contains(Self.hostile) == true, "\(list)")
        let tags = varve("ls", "--layout", layout, "--format", "json")
        #expect(
            try JSONValue(parsing: tags.output).array?.compactMap { $0.object?["name"]?.string }.contains(
                Self.hostile) == true)
        let diff = varve("--store", store, "diff", "-z", world.bundle())
        #expect(
            diff.output.split(separator: 0).contains { $0.elementsEqual(Array("A ".utf8) + file.bytes) },
            "\(diff)")
        // They can still be deleted by their names.
        #expect(varve("--store", store, "snapshot", "rm", BytePath(Self.hostile)).code == 0)
    }

    @Test("What a hook program says cannot steer a terminal")
    func hooks() throws {
        let world = try HookWorld()
        try world.setHooks(
            [.postUnpack], body: "printf 'a\\233b\\302\\233c\\342\\200\\256d\\033e\\n' >&2; exit 1")
        let run = world.unpack()
        #expect(run.code == 6 && isHarmless(run.errors), "\(run)")
        #expect(run.errorText.contains(#"a\x9bb\xc2\x9bc\xe2\x80\xaed\x1be"#))
    }

    @Test(
        "Names that hold control characters are refused when they are made",
        arguments: ["a\nb", "\u{1b}", "a\u{9b}", "\u{202e}x", "\u{7f}"])
    func names(_ name: String) throws {
        let world = try StoreWorld(unpacked: storeSampleLayers())
        #expect(throws: VarveError.self) { try world.store().createSnapshot(of: world.bundle(), name: name) }
        let tag = varve("tag", "--image", world.layoutPath.appendingBytes(":a"), BytePath(name))
        #expect(tag.code == 2, "\(tag)")
        #expect(try world.names(in: "store/snapshots") == [])
    }

    @Test("Remedies are words of a shell")
    func remedies() throws {
        let world = try StoreWorld(unpacked: storeSampleLayers())
        let store = try world.store()
        try store.createSnapshot(of: world.bundle(), name: "mon day")
        let snapshot = varve("--store", world.storePath, "snapshot", "create", world.bundle(), "mon day")
        #expect(snapshot.errorText.contains("(varve snapshot rm 'mon day')"), "\(snapshot)")
        let layout = varve("ls", "--layout", "/no such/$(layout)")
        #expect(layout.errorText.contains("varve init --layout '/no such/$(layout)'"), "\(layout)")
        let missing = varve("--store", "/no such store", "store", "ls")
        #expect(missing.errorText.contains("varve store init '/no such store'"), "\(missing)")
        try world.shell("mkdir 'a b'; : > 'a b/f'")
        let there = varve(
            "--store", world.storePath, "unpack", "--image", world.layoutPath.appendingBytes(":a"),
            world.path.appending("a b"))
        #expect(there.errorText.contains("(varve bundle rm '\(world.path)/a b')"), "\(there)")
    }

    @Test("A bundle that is packed into another layout is told where to go")
    func anotherLayout() throws {
        let world = try StoreWorld(unpacked: storeSampleLayers())
        _ = try ImageLayout.create(at: world.path.appending("other"))
        let run = varve(
            "--store", world.storePath, "repack", "--image", world.path.appending("other:x"), world.bundle())
        #expect(
            run.code == 4
                && run.errorText.contains(
                    "must be the layout that the bundle \"\(world.bundle())\" came from"),
            "\(run)")
    }

    @Test("An unpack that fails does not warn of what it would have become")
    func noWarning() throws {
        let world = try StoreWorld()
        try world.addImage("a", try storeSampleLayers())
        try world.hideLayers("a")
        let elsewhere = try TemporaryDirectory()
        let run = varve(
            "--store", world.storePath, "unpack", "--image", world.layoutPath.appendingBytes(":a"),
            elsewhere.path.appending("b"))
        #expect(run.code == 3 && !run.errorText.contains("plain directory"), "\(run)")
    }

    @Test("No space left: the sentence says on which mount")
    func noSpace() throws {
        let world = try StoreWorld(size: 256 << 20, makesStore: false)
        try world.addImage("a", [try StoreLayer([.bytes("f", Array(repeating: 7, count: 4 << 20))])])
        try world.shell(
            "dd if=/dev/urandom of=fill bs=1M 2>/dev/null || true; sync; dd if=/dev/urandom of=fill2 bs=4k 2>/dev/null || true"
        )
        let run = varve(
            "unpack", "--driver", "directory", "--image", world.layoutPath.appendingBytes(":a"),
            world.bundle())
        #expect(run.code == 7 && run.errorText.contains("mounted at \"\(world.path)\""), "\(run)")
    }

    /// What the user wrote may be a name in the working directory, and what is built has names that nobody knows.
    @Test("What is full is told with the place that was given and its mount", arguments: ["disk", "quota"])
    func full(_ what: String) throws {
        let world = try StoreWorld(size: 256 << 20)
        let elsewhere = try StoreWorld(makesStore: false)
        var bytes = [UInt8](repeating: 0, count: 60 << 20)
        for index in bytes.indices { bytes[index] = UInt8(truncatingIfNeeded: index &* 2_654_435_761 >> 13) }
        try elsewhere.addImage("a", [try StoreLayer([.bytes("f", bytes)], .none)])
        try world.shell(
            what == "disk"
                ? "dd if=/dev/urandom of=fill bs=1M 2>/dev/null || true; truncate -s -20M fill; sync; rm -f fill2"
                : "btrfs quota enable .; btrfs quota rescan -w . >/dev/null; btrfs qgroup limit 20M 0/5 .; sync"
        )
        let remedy =
            what == "disk"
            ? "free space on the file system that is mounted at \"\(world.path)\""
            : "a quota group is full on the file system that is mounted at \"\(world.path)\": raise its limit"
        let varve = try builtProgram("varve")
        for (words, place) in [
            ("unpack --driver directory --image \(elsewhere.layoutPath):a d1", "d1"),
            ("raw unpack --image \(elsewhere.layoutPath):a d2", "d2"),
            ("unpack --image \(elsewhere.layoutPath):a \(world.path)/d3", "\(world.path)/d3"),
        ] where what == "disk" || !place.hasSuffix("d3") {
            let result = try world.shell(
                "export HOME=/ VARVE_STORE=$PWD/store; '\(varve)' --log error \(words) 2>'\(elsewhere.path)/errors' || echo $?; cat '\(elsewhere.path)/errors'"
            )
            #expect(result.hasPrefix("7\nvarve: cannot unpack to \"\(place)\": "), "\(result)")
            #expect(result.contains(remedy), "\(result)")
        }
        #expect(try world.names(in: ".").filter { $0.hasPrefix("d") || $0.hasPrefix(".varve") } == [])
        #expect(try world.names(in: "store/work") == [])
    }

    @Test("A quota that is full: the sentence names the bundle, not a work subvolume")
    func quota() throws {
        let world = try StoreWorld(unpacked: storeSampleLayers())
        try world.shell(
            "btrfs quota enable . ; btrfs quota rescan -w . >/dev/null; btrfs qgroup limit 1 0/5 .; sync")
        var sentences = 0
        for words: [BytePath] in [
            ["unpack", "--image", world.layoutPath.appendingBytes(":a"), world.bundle("new")],
            ["diff", world.bundle()],
            ["bundle", "rm", world.bundle()],
        ] {
            let run = varve(["--store", world.storePath] + words)
            if run.code == 0 { continue }
            sentences += 1
            #expect(run.code == 7, "\(run)")
            #expect(!run.errorText.contains("/work/"), "\(run)")
            #expect(run.errorText.contains("\"\(words.last ?? "")\": "), "\(run)")
            #expect(run.errorText.contains("mounted at \"\(world.path)\""), "\(run)")
        }
        #expect(sentences > 0)
    }
}
