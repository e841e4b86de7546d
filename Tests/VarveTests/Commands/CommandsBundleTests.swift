import Glibc
import VarveStore
import VarveSystem
import SystemPackage
import TestSupport
import Testing

@testable import VarveCommands

/// A store on a btrfs of its own, and a layout with an image that has no layers.
struct Workshop: ~Copyable {
    let volume: LoopVolume
    var store: BytePath { volume.path.appending("store") }
    var layout: BytePath { volume.path.appending("L") }
    func bundle(_ name: String) -> BytePath { volume.path.appending(name) }
    func image(_ tag: String) -> BytePath { layout.appendingBytes(BytePath(":\(tag)")) }

    init() throws {
        volume = try LoopVolume(size: 512 << 20)
        for words in [
            ["store", "init", store], ["init", "--layout", layout], ["new", "--image", image("empty")],
        ] as [[BytePath]] {
            let run = run(words)
            #expect(run.code == 0 && run.errors.isEmpty && run.output.isEmpty, "\(run)")
        }
    }

    func run(
        _ words: [BytePath], variables: [String: String] = [:], cancellation: Cancellation = Cancellation()
    ) -> CommandRun {
        var variables = variables
        variables["VARVE_STORE"] = "\(store)"
        return varve(words, variables: variables, cancellation: cancellation)
    }

    func run(_ words: BytePath...) -> CommandRun { run(words) }

    /// What a command that must succeed prints.
    func text(_ words: BytePath..., sourceLocation: SourceLocation = #_sourceLocation) -> String {
        let run = run(words)
        #expect(run.code == 0 && run.errors.isEmpty, "\(words): \(run)", sourceLocation: sourceLocation)
        return run.text
    }

    /// The names of what lies in a directory of the store.
    func entries(_ directory: String) throws -> [String] {
        let opened = try volume.root.openDirectory(BytePath("store/\(directory)"))
        return try opened.fd.entries().map { "\($0.name)" }.sorted()
    }
}

@Suite struct CommandsBundleTests {
    private static let filling = """
        cd "$1/rootfs"; mkdir -p etc usr/share/doc; echo root:x:0:0::/:/bin/sh > etc/passwd; echo a > usr/share/doc/a
        echo old > old; ln old usr/other; ln -s old link; mkfifo pipe; chmod 4755 old; chown 7:8 usr
        touch -d @1600000000 etc/passwd
        """

    @Test func wholeLife() throws {
        let shop = try Workshop()
        let (first, second) = (shop.bundle("one"), shop.bundle("deep/er/two"))
        #expect(shop.text("unpack", "--image", shop.image("empty"), first) == "")
        #expect(shop.text("diff", first) == "")
        try shell(Self.filling, first)
        let filled = """
            A etc
            A etc/passwd
            A link
            A old
            A pipe
            A usr
            A usr/other
            A usr/share
            A usr/share/doc
            A usr/share/doc/a

            """
        #expect(shop.text("diff", first) == "M .\n" + filled)
        #expect(shop.text("diff", "-z", first) == ("M .\n" + filled).replacing("\n", with: "\0"))
        #expect(
            shop.text("diff", "--format", "json", first).hasPrefix(
                "[\n{\"change\":\"modified\",\"path\":\".\",\"type\":\"directory\"},\n"))

        #expect(
            shop.text("repack", "--image", shop.image("filled"), "--history.comment", "--dashed", first) == ""
        )
        #expect(shop.text("ls", "--layout", shop.layout) == "empty\nfilled\n")
        #expect(shop.text("stat", "--image", shop.image("filled")).contains(" varve repack "))
        #expect(shop.text("stat", "--image", shop.image("filled")).hasSuffix(" --dashed\n"))
        // The chain is there already: nothing is read.
        let again = shop.run("--log", "info", "unpack", "--image", shop.image("filled"), second)
        #expect(
            again.errorText
                == "varve: info: unpacked \(shop.image("filled")) to \"\(second)\": 1 layers, 1 of them in place already\n"
        )
        #expect(shop.text("diff", first, second) == "")
        #expect(shop.text("diff", second) == "")
        let idle = shop.run("--log", "info", "repack", "--image", shop.image("same"), second)
        #expect(idle.code == 0 && idle.errorText.hasPrefix("varve: info: nothing changed in "))

        try shell(
            "cd \"$1/rootfs\"; rm -r usr/share; chmod 700 etc; rm link; mkdir link; printf x > 'new\\\n'",
            second)
        let changed = "M .\nM etc\nM link\nA new\\x5c\\x0a\nM usr\nD usr/share\n"
        // link is of another type now.
        #expect(shop.text("diff", second).replacing("D link\nA link\n", with: "M link\n") == changed)
        for source in ["auto", "stream", "search", "walk"] {
            #expect(
                shop.text("diff", "--source", BytePath(source), second) == shop.text("diff", second),
                "\(source)")
        }
        #expect(shop.text("repack", "--image", shop.image("changed"), "--compress", "zstd", second) == "")
        #expect(shop.text("unpack", "--image", shop.image("changed"), shop.bundle("three")) == "")
        #expect(shop.text("diff", second, shop.bundle("three")) == "")
        // From nothing: no chain is there, every layer is read.
        for chain in shop.text("store", "ls", "-q").split(separator: "\n") {
            #expect(shop.text("store", "rm", BytePath(String(chain))) == "")
        }
        #expect(shop.text("store", "ls") == "CHAIN CREATED SIZE STATE IMAGES\n")
        #expect(shop.text("unpack", "--image", shop.image("changed"), shop.bundle("four")) == "")
        #expect(shop.text("diff", second, shop.bundle("four")) == "")

        for name in ["one", "deep/er/two", "three", "four"] {
            #expect(shop.text("bundle", "rm", shop.bundle(name)) == "")
        }
        #expect(
            try shop.entries("work") == [] && shop.entries("locks") == [] && shop.entries("refreshed") == [])
    }

    @Test func listings() throws {
        let shop = try Workshop()
        let bundle = shop.bundle("b")
        _ = shop.text("unpack", "--image", shop.image("empty"), bundle)
        try shell(Self.filling, bundle)
        _ = shop.text("repack", "--image", shop.image("filled"), bundle)
        let name = shop.text("store", "ls", "-q")
        #expect(name.hasPrefix("sha256-") && name.utf8.count == 72)
        #expect(shop.text("store", "ls").split(separator: "\n").count == 2)
        let json = shop.text("store", "ls", "--format", "json")
        #expect(
            json.hasPrefix("[\n{\"name\":\"sha256-") && json.contains("\",\"chainID\":\"sha256:")
                && json.contains("\",\"created\":\"20"))

        #expect(shop.text("snapshot", "ls", "--format", "json") == "[]\n")
        _ = shop.text("snapshot", "create", bundle, "before")
        #expect(shop.text("snapshot", "ls", "-q") == "before\n")
        #expect(shop.text("snapshot", "ls").hasPrefix("NAME   CREATED "))
        // The bundle's image has no layers, and so no chain.
        #expect(
            shop.text("snapshot", "ls", "--format", "json").hasSuffix("\",\"chain\":null,\"labels\":{}}\n]\n")
        )
    }

    @Test func snapshots() throws {
        let shop = try Workshop()
        let (bundle, restored) = (shop.bundle("b"), shop.bundle("restored"))
        _ = shop.text("unpack", "--image", shop.image("empty"), bundle)
        try shell(Self.filling, bundle)
        _ = shop.text("snapshot", "create", bundle, "before")
        let twice = shop.run("snapshot", "create", bundle, "before")
        #expect(twice.code == 1)
        #expect(
            twice.errorText
                == "varve: there is a snapshot \"before\" already; remove it (varve snapshot rm before) or choose another name\n"
        )
        #expect(shop.run("snapshot", "create", bundle, "../x").code == 2)
        try shell("echo more >> \"$1/rootfs/old\"", bundle)
        // By name; the other name of the inode is as changed as the first.
        #expect(shop.text("diff", "before", bundle) == "M old\nM usr/other\n")
        #expect(shop.text("diff", bundle, "before") == "M old\nM usr/other\n")
        _ = shop.text("snapshot", "restore", "before", restored)
        #expect(shop.text("diff", "before", restored) == "")
        // It still knows what it came from.
        #expect(shop.text("diff", restored).hasPrefix("M .\nA etc\n"))
        _ = shop.text("snapshot", "rm", "before")
        for words in [
            ["snapshot", "rm", "before"], ["snapshot", "restore", "before", shop.bundle("x")],
            ["diff", "before", bundle],
        ] as [[BytePath]] {
            #expect(shop.run(words).code == 4)
        }
    }

    /// After a refresh, deltas count from the image that it made; also those of a snapshot restored later, where a file
    /// that is again as it once was must go into the layer.
    @Test func refresh() throws {
        let shop = try Workshop()
        let bundle = shop.bundle("b")
        _ = shop.text("unpack", "--image", shop.image("empty"), bundle)
        try shell(Self.filling, bundle)
        _ = shop.text("repack", "--image", shop.image("one"), "--refresh-bundle", bundle)
        #expect(shop.text("diff", bundle) == "")
        #expect(try shop.entries("refreshed").count == 1)
        try shell("cp -p \"$1/rootfs/old\" \"$1/old\"; echo 1 >> \"$1/rootfs/old\"", bundle)
        #expect(shop.text("diff", bundle) == "M old\nM usr/other\n")
        _ = shop.text("repack", "--image", shop.image("two"), "--refresh-bundle", bundle)
        #expect(try shop.entries("refreshed").count == 1, "the state before is not kept any longer")
        // As in image one again, which is not where the delta counts from.
        try shell("cat \"$1/old\" > \"$1/rootfs/old\"; touch -r \"$1/old\" \"$1/rootfs/old\"", bundle)
        _ = shop.text("snapshot", "create", bundle, "reverted")
        _ = shop.text("snapshot", "restore", "reverted", shop.bundle("restored"))
        for (name, tag) in [("restored", "three"), ("b", "four")] {
            #expect(shop.text("diff", shop.bundle(name)) == "M old\nM usr/other\n", "\(name)")
            _ = shop.text("repack", "--image", shop.image(tag), shop.bundle(name))
            _ = shop.text("unpack", "--image", shop.image(tag), shop.bundle(tag))
            #expect(shop.text("diff", bundle, shop.bundle(tag)) == "", "\(name)")
        }
        _ = shop.text("bundle", "rm", bundle)
        #expect(try shop.entries("refreshed") == [])
    }

    /// Killed in a refresh before umoci.json was replaced: the state that is kept for the new image does not count.
    @Test func unfinishedRefresh() throws {
        let shop = try Workshop()
        let bundle = shop.bundle("b")
        _ = shop.text("unpack", "--image", shop.image("empty"), bundle)
        try shell("cp \"$1/umoci.json\" \"$1/before\"; echo 1 > \"$1/rootfs/a\"", bundle)
        _ = shop.text("repack", "--image", shop.image("one"), "--refresh-bundle", bundle)
        try shell("mv \"$1/before\" \"$1/umoci.json\"", bundle)
        #expect(shop.text("diff", bundle) == "M .\nA a\n")
    }

    @Test func reproducible() throws {
        let shop = try Workshop()
        var layers: [Substring] = []
        for name in ["a", "b"] {
            _ = shop.text("unpack", "--image", shop.image("empty"), shop.bundle(name))
            try shell(Self.filling, shop.bundle(name))
            let run = shop.run(
                ["repack", "--image", shop.image(name), shop.bundle(name)],
                variables: ["SOURCE_DATE_EPOCH": "1700000000"])
            #expect(run.code == 0, "\(run)")
            let rows = shop.text("stat", "--image", shop.image(name)).split(separator: "\n")
            #expect(rows.last?.contains(" 2023-11-14T22:13:20Z varve repack ") == true)
            layers += rows.suffix(1)
        }
        #expect(layers[0] == layers[1])
    }

    @Test func masks() throws {
        let shop = try Workshop()
        let bundle = shop.bundle("b")
        _ = shop.text("unpack", "--image", shop.image("empty"), bundle)
        try shell("cd \"$1/rootfs\"; mkdir tmp keep; touch tmp/x keep/x", bundle)
        let repack = shop.run(
            "repack", "--image", shop.image("m"), "--mask-path", "/tmp", "--no-history", "--compress", "none",
            bundle)
        #expect(repack.code == 0 && repack.errorText.contains("has no entry in the history"), "\(repack)")
        _ = shop.text("unpack", "--image", shop.image("m"), shop.bundle("c"))
        #expect(shop.text("diff", shop.bundle("c"), bundle) == "A tmp\nA tmp/x\n")
        #expect(
            shop.text("stat", "--json", "--image", shop.image("m")).contains(
                "\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\""))
    }

    @Test func interrupted() throws {
        let shop = try Workshop()
        let bundle = shop.bundle("b")
        _ = shop.text("unpack", "--image", shop.image("empty"), bundle)
        try shell(Self.filling, bundle)
        _ = shop.text("repack", "--image", shop.image("filled"), bundle)
        for chain in shop.text("store", "ls", "-q").split(separator: "\n") {
            _ = shop.text("store", "rm", BytePath(String(chain)))
        }
        let stopped = Cancellation()
        stopped.cancel()
        for words in [
            ["unpack", "--image", shop.image("filled"), shop.bundle("c")],
            ["repack", "--image", shop.image("x"), bundle], ["diff", bundle],
        ] as [[BytePath]] {
            let run = shop.run(words, cancellation: stopped)
            #expect(
                run.code == 130 && run.errorText == "varve: interrupted; nothing half-done was left behind\n",
                "\(run)")
        }
        #expect(try shop.entries("chains") == [] && shop.entries("work") == [] && shop.entries("locks") == [])
        #expect(try shop.volume.root.statusIfPresent(of: "c") == nil)
        #expect(shop.text("ls", "--layout", shop.layout) == "empty\nfilled\n")
    }

    @Test func nothingSteersAPipe() throws {
        let shop = try Workshop()
        let bundle = shop.bundle("b")
        _ = shop.text("unpack", "--image", shop.image("empty"), bundle)
        try shell("head -c 3000000 /dev/urandom > \"$1/rootfs/big\"", bundle)
        for words in [
            ["--log", "debug", "repack", "--image", shop.image("big"), bundle],
            ["--log", "debug", "unpack", "--image", shop.image("big"), shop.bundle("c")],
            ["--log", "debug", "diff", shop.bundle("c")], ["stat", "--image", shop.image("big")],
            ["store", "ls"],
        ] as [[BytePath]] {
            let run = shop.run(words)
            #expect(run.code == 0, "\(run)")
            // `stat` sets its fields apart with tabs, as umoci does.
            for byte in run.output + run.errors { #expect(byte >= 0x20 || byte == 0x0a || byte == 0x09) }
        }
    }

    @Test func errors() throws {
        let shop = try Workshop()
        let bundle = shop.bundle("b")
        func fails(
            _ code: Int32, _ message: String, _ words: BytePath...,
            sourceLocation: SourceLocation = #_sourceLocation
        ) {
            let run = shop.run(words)
            #expect(run.code == code && run.output.isEmpty, "\(run)", sourceLocation: sourceLocation)
            #expect(
                run.errorText.hasPrefix("varve: ") && run.errorText.contains(message), "\(run)",
                sourceLocation: sourceLocation)
            #expect(
                run.errorText.filter { $0 == "\n" }.count == 1, "one sentence", sourceLocation: sourceLocation
            )
        }
        _ = shop.text("unpack", "--image", shop.image("empty"), bundle)
        fails(
            1, "exists already; remove it (varve bundle rm \(bundle))", "unpack", "--image",
            shop.image("empty"), bundle)
        fails(
            4, "there is no tag \"x\" in the image layout", "unpack", "--image", shop.image("x"),
            shop.bundle("c"))
        fails(
            4, "is an image for linux/", "unpack", "--image", shop.image("empty"), "--platform",
            "linux/made-up", shop.bundle("c"))
        fails(
            5, "would not lie on the btrfs that holds the store", "unpack", "--driver", "btrfs", "--image",
            shop.image("empty"), "/tmp/varve-test-nowhere")
        fails(2, "cannot be a bundle", "unpack", "--image", shop.image("empty"), "/")
        fails(4, "there is no bundle", "diff", shop.bundle("c"))
        fails(4, "there is no bundle", "bundle", "rm", shop.bundle("c"))
        fails(4, "there is no bundle", "repack", "--image", shop.image("x"), shop.bundle("c"))
        fails(4, "is not a bundle", "bundle", "rm", shop.layout)
        fails(
            4, "has no chain sha256-00", "store", "rm",
            BytePath("sha256-" + String(repeating: "0", count: 64)))
        fails(4, "there is no store in", "--store", shop.bundle("c"), "diff", bundle)
        fails(1, "is not empty", "store", "init", shop.layout)
        fails(
            5, "is not on btrfs; make a store in an image file with: varve store init /proc --loopback SIZE",
            "store", "init", "/proc")
        // A blob that is damaged, and one that is not there.
        try shell("echo x > \"$1/rootfs/x\"", bundle)
        _ = shop.text("repack", "--image", shop.image("bad"), "--compress", "gzip", bundle)
        for chain in shop.text("store", "ls", "-q").split(separator: "\n") {
            _ = shop.text("store", "rm", BytePath(String(chain)))
        }
        let layer = try #require(
            shop.text("stat", "--image", shop.image("bad")).split(separator: "sha256:").last?.prefix(64))
        try shell(
            "printf XXXX | dd of=\"$1\" bs=1 seek=30 conv=notrunc status=none",
            shop.layout.appending("blobs/sha256/\(layer)"))
        fails(3, "\(layer)", "unpack", "--image", shop.image("bad"), shop.bundle("c"))
        try shell("rm \"$1\"", shop.layout.appending("blobs/sha256/\(layer)"))
        fails(
            3, "lacks the blob sha256:\(layer); copy the image again", "unpack", "--image", shop.image("bad"),
            shop.bundle("c"))
        #expect(try shop.entries("chains") == [] && shop.entries("work") == [])
    }

    // MARK: Any two subvolumes

    @Test func subvolumes() throws {
        let shop = try Workshop()
        let other = try LoopVolume(size: 256 << 20)
        let (plain, later) = (shop.bundle("plain"), shop.bundle("later"))
        try shell(
            "btrfs -q subvolume create \"$1/plain\"; mkdir \"$1/plain/rootfs\"; echo 1 > \"$1/plain/rootfs/a\"; touch -d @1 \"$1/plain\"; btrfs -q subvolume snapshot \"$1/plain\" \"$1/later\"; echo 2 > \"$1/later/rootfs/a\"; echo 2 > \"$1/later/b\"",
            shop.volume.path)
        // Both are writable. That there is a directory named rootfs does not make a bundle.
        #expect(shop.text("diff", plain, later) == "M .\nA b\nM rootfs/a\n")
        #expect(shop.text("diff", later, plain) == "M .\nD b\nM rootfs/a\n")
        #expect(try shop.entries("work") == [] && shop.entries("locks") == [])
        try shell(
            "btrfs -q property set \"$1/plain\" ro true; btrfs -q property set \"$1/later\" ro true",
            shop.volume.path)
        // No store is needed for what is read-only.
        #expect(varve("diff", plain, later).text == "M .\nA b\nM rootfs/a\n")
        #expect(shop.text("diff", plain, plain) == "")

        func fails(
            _ code: Int32, _ message: String, _ words: BytePath...,
            sourceLocation: SourceLocation = #_sourceLocation
        ) {
            let run = shop.run(["diff"] + words)
            #expect(
                run.code == code && run.errorText.contains(message), "\(run)", sourceLocation: sourceLocation)
        }
        _ = shop.text("unpack", "--image", shop.image("empty"), shop.bundle("b"))
        fails(
            4, "there is no subvolume \"nope\", nor a snapshot or chain of that name in the store", "nope",
            plain)
        fails(4, "there is no subvolume", shop.bundle("nope"), plain)
        fails(5, "\"/proc\" is not on btrfs", "/proc", plain)
        fails(1, "is not a subvolume; name the root directory of one", shop.layout, plain)
        fails(1, "is not a directory", shop.layout.appending("index.json"), plain)
        fails(1, "lie on different file systems", plain, other.path)
        fails(1, "holds its tree in rootfs/", plain, shop.bundle("b"))
        let writable = varve("diff", plain, shop.volume.path)
        #expect(
            writable.code == 1
                && writable.errorText.contains("is writable, and there is no store on its file system"),
            "\(writable)")
        let unrelated = shop.run("diff", "--source", "stream", later, plain)
        #expect(unrelated.code == 1 && unrelated.errorText.contains("use --source auto"), "\(unrelated)")
    }

    @Test func streamDump() throws {
        let shop = try Workshop()
        let directory = try TemporaryDirectory()
        let file = directory.path.appending("stream")
        try shell(
            "btrfs -q subvolume create \"$1/s\"; echo 1 > \"$1/s/a b\"; btrfs -q property set \"$1/s\" ro true",
            shop.volume.path)
        try shell("btrfs -q send -f \(file) \"$1/s\"", shop.volume.path)
        let text = shop.text("stream", "dump", file).split(separator: "\n", omittingEmptySubsequences: false)
        #expect(
            text.first?.hasPrefix("subvol          path=s uuid=") == true && text.suffix(2) == ["end", ""],
            "\(text)")
        #expect(text.contains { $0.hasPrefix("write           path=a\\ b offset=0 len=2") }, "\(text)")
        let json = shop.text("stream", "dump", "--format", "json", file)
        #expect(
            json.hasPrefix("{\"command\":\"subvol\",\"path\":\"s\"")
                && json.hasSuffix("{\"command\":\"end\"}\n"))

        // What is whole is shown before what is wrong is told.
        try shell("truncate -s -5 \"$1\"", file)
        let cut = shop.run("stream", "dump", file)
        #expect(
            cut.code == 3 && cut.text.hasPrefix("subvol ")
                && cut.errorText.hasPrefix("varve: cannot read the send stream at byte "))
        #expect(shop.run("stream", "dump", directory.path.appending("nope")).code == 4)
    }

    @Test func loopback() throws {
        let directory = try TemporaryDirectory()
        let store = directory.path.appending("store")
        defer { if varve("store", "unmount", store).code != 0 { try? unmount(store, detaching: true) } }
        #expect(
            varve("store", "mount", store).errorText.contains(
                "; make one with: varve store init \(store) --loopback SIZE"))
        let made = varve("store", "init", "--loopback", "300M", store)
        #expect(made.code == 0 && made.errors.isEmpty, "\(made)")
        /// With access times, whatever is read is in the next send stream.
        func hasNoAccessTimes() throws -> Bool {
            let opened = try FileDescriptor.workingDirectory.open(store, [.directory])
            return try opened.fd.fileSystem().isNoAccessTime
        }
        #expect(try hasNoAccessTimes())
        #expect(varve("store", "mount", store).code == 0, "mounted already")
        #expect(varve("--store", store, "store", "ls", "-q").code == 0)
        #expect(varve("store", "unmount", store).code == 0)
        let away = varve("--store", store, "store", "ls")
        #expect(
            away.code == 4
                && away.errorText
                    == "varve: the store at \"\(store)\" is not mounted; mount it with: varve store mount \(store)\n"
        )
        #expect(varve("store", "unmount", store).code == 4)
        let again = varve("store", "init", "--loopback", "300M", store)
        #expect(
            again.code == 1
                && again.errorText.hasSuffix("; mount that store with: varve store mount \(store)\n"),
            "\(again)")
        #expect(varve(["store", "mount"], variables: ["VARVE_STORE": "\(store)"]).code == 0)
        #expect(try hasNoAccessTimes())
        #expect(varve("--store", store, "store", "ls", "--format", "json").text == "[]\n")
    }
}
