import Glibc
import SystemPackage
import TestSupport
import Testing
import VarveFormats
import VarveOCI
import VarveStore
import VarveSystem

@testable import VarveCommands

/// What there is: listings of bundles, chains, layers and images, and differences of images.
@Suite struct ListingTests {
    private static func fill(_ shop: borrowing Workshop) throws {
        try shell(
            "mkdir \"$1/f\"; echo one > \"$1/f/one\"; head -c 100000 /dev/urandom > \"$1/f/random\"",
            shop.volume.path)
        let files = shop.bundle("f")
        _ = shop.text("insert", "--image", shop.image("empty"), "--tag", "a", files, "/srv")
        _ = shop.text("insert", "--image", shop.image("a"), "--tag", "b", files.appending("one"), "/more")
        _ = shop.text("insert", "--image", shop.image("b"), "--tag", "c", "--whiteout", "/srv/one")
    }

    private static func json(_ text: String) throws -> [JSONObject] {
        try JSONValue(parsing: Array(text.utf8)).array?.compactMap(\.object) ?? []
    }

    /// No line of a table is longer than a terminal is wide.
    private static func fits(_ text: String) -> Bool {
        text.split(separator: "\n").allSatisfy { $0.count <= 80 }
    }

    @Test("store ls and bundle ls say what lies on what, in 80 columns")
    func store() throws {
        let shop = try Workshop()
        try Self.fill(shop)
        let long = shop.bundle(
            "a-bundle-with-a-name-that-is-much-too-long-for-the-line-of-a-table-"
                + String(repeating: "x", count: 60))
        _ = shop.text("unpack", "--image", shop.image("a"), shop.bundle("one"))
        _ = shop.text("unpack", "--image", shop.image("c"), long)
        let archive = shop.bundle("images.tar")
        _ = shop.text("push", shop.image("c"), BytePath("oci-archive:\(archive)"))
        _ = shop.text("pull", BytePath("oci-archive:\(archive)"))

        let table = shop.text("store", "ls")
        #expect(Self.fits(table) && table.hasPrefix("CHAIN               CREATED          SIZE"), "\(table)")
        let names = shop.text("store", "ls", "-q").split(separator: "\n").map(String.init)
        #expect(names.count == 3 && names.allSatisfy { $0.utf8.count == 71 })
        let whole = shop.text("store", "ls", "--no-trunc")
        #expect(names.allSatisfy(whole.contains) && !names.contains(where: table.contains))
        let chains = try Self.json(shop.text("store", "ls", "--format", "json"))
        let top = try #require(chains.first { $0["bundles"]?.array?.first?.string == "\(long)" })
        let bottom = try #require(chains.first { $0["below"]?.isNull == true })
        let middle = try #require(chains.first { $0["name"]?.string == top["below"]?.string })
        #expect(
            middle["below"]?.string == bottom["name"]?.string && middle["bundles"]?.array?.isEmpty == true)
        #expect(top["bundles"]?.array?.compactMap(\.string) == ["\(long)"])
        #expect(top["images"]?.array?.first?.string?.hasPrefix("oci-archive-images-tar-") == true)
        #expect((top["referenced"]?.int64 ?? 0) >= 100_000)
        let tree = shop.text("store", "ls", "--tree").split(separator: "\n").map(String.init)
        #expect(Self.fits(tree.joined(separator: "\n")))
        #expect(
            tree.count == 6 && !tree[0].hasPrefix(" ") && tree[2].hasPrefix("  sha256-")
                && tree[3].hasPrefix("    sha256-"), "\(tree)")
        #expect(tree[1] == "    bundle \(shop.bundle("one"))".prefix(80) || tree[1].hasSuffix("…"))

        let usage = shop.text("store", "du")
        #expect(Self.fits(usage) && !names.contains(where: usage.contains), "\(usage)")
        #expect(names.allSatisfy(shop.text("store", "du", "--no-trunc").contains))
        #expect(shop.text("store", "du", "-q").split(separator: "\n").map(String.init) == names)

        let bundles = shop.text("bundle", "ls")
        #expect(Self.fits(bundles) && bundles.hasPrefix("IMAGE CHAIN"), "\(bundles)")
        #expect(
            Set(shop.text("bundle", "ls", "-q").split(separator: "\n").map(String.init)) == [
                "\(long)", "\(shop.bundle("one"))",
            ])
        // A long name hides no other column.
        let name = String(repeating: "n", count: 100)
        _ = shop.text("tag", "--image", shop.image("a"), BytePath(name))
        _ = shop.text("unpack", "--image", shop.image(name), shop.bundle("two"))
        _ = shop.text("snapshot", "create", "--label", "step=1", shop.bundle("two"), BytePath(name))
        for (words, last) in [(["bundle", "ls"], "two"), (["snapshot", "ls"], "step=1")]
            as [([BytePath], String)]
        {
            let cut = shop.run(words).text
            #expect(Self.fits(cut) && cut.contains("\(last)\n") && cut.contains("nn… "), "\(cut)")
            #expect(shop.run(words + ["--no-trunc"]).text.contains(name))
        }
        _ = shop.text("bundle", "rm", shop.bundle("two"))

        let listed = try Self.json(shop.text("bundle", "ls", "--format", "json"))
        let one = try #require(listed.first { $0["name"]?.string == "\(shop.bundle("one"))" })
        #expect(
            one["image"]?.string == "a" && one["driver"]?.string == "btrfs"
                && one["chain"]?.string == bottom["name"]?.string)
        let before = one["exclusive"]?.int64 ?? 0
        try shell("head -c 1000000 /dev/urandom > \"$1/rootfs/new\"; sync -f \"$1\"", shop.bundle("one"))
        let after = try Self.json(shop.text("bundle", "ls", "--format", "json")).first {
            $0["name"]?.string == "\(shop.bundle("one"))"
        }
        #expect((after?["exclusive"]?.int64 ?? 0) >= before + 1_000_000)
        #expect(shop.run(["store", "ls", "--tree", "-q"]).code == 2)
    }

    @Test("layer ls says what a layer holds, and checks it")
    func layers() throws {
        let shop = try Workshop()
        try Self.fill(shop)
        let table = shop.text("layer", "ls", shop.image("c"))
        let rows = table.split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
        #expect(rows.count == 4 && Self.fits(table), "\(table)")
        #expect(
            rows[1][2...3] == ["3", "0"] && rows[2][2...3] == ["1", "0"] && rows[3][2...3] == ["1", "1"],
            "\(table)")
        #expect(shop.text("layer", "ls", shop.image("c"), "3") == "whiteout             srv/one\n")
        #expect(shop.text("layer", "ls", "-q", shop.image("c"), "1") == "srv\nsrv/one\nsrv/random\n")
        let json = try Self.json(shop.text("layer", "ls", "--format", "json", shop.image("c"), "1"))
        #expect(json.count == 3 && json[2]["size"]?.int64 == 100_000)
        #expect(shop.run(["layer", "ls", shop.image("c"), "4"]).code == 4)
        #expect(shop.run(["layer", "ls", shop.image("empty"), "1"]).code == 4)
        // A blob that is not what its digest says.
        let image = try ImageLayout.resolve(ImageReference(parsing: shop.image("c")))
        try shell(
            "printf x | dd of=\"$1\" bs=1 seek=30 conv=notrunc status=none",
            shop.layout.appending("blobs/sha256").appending(BytePath(image.layers[0].digest.hex)))
        #expect(shop.run(["layer", "ls", shop.image("c"), "1"]).code == 3)
    }

    @Test("diff of two images is that of their trees, whether or not the store has them")
    func imageDiff() throws {
        let shop = try Workshop()
        try Self.fill(shop)
        for _ in 0..<2 {
            #expect(shop.text("diff", shop.image("a"), shop.image("c")) == "A more\nD srv/one\n")
            #expect(shop.text("diff", shop.image("c"), shop.image("a")) == "D more\nA srv/one\n")
        }
        #expect(
            shop.text("diff", shop.image("empty"), shop.image("a")) == "M .\nA srv\nA srv/one\nA srv/random\n"
                || shop.text("diff", shop.image("empty"), shop.image("a"))
                    == "A srv\nA srv/one\nA srv/random\n"
        )
        // The chains stay; no bundle does.
        #expect(shop.text("bundle", "ls", "-q") == "")
        #expect(shop.run(["diff", shop.image("a"), shop.image("none")]).code == 4)
        #expect(shop.run(["store", "check"]).text == "")
    }

    @Test("ls and stat as JSON")
    func images() throws {
        let shop = try Workshop()
        try Self.fill(shop)
        let listed = try Self.json(shop.text("ls", "--layout", shop.layout, "--format", "json"))
        #expect(listed.compactMap { $0["name"]?.string } == ["empty", "a", "b", "c"])
        let image = try ImageLayout.resolve(ImageReference(parsing: shop.image("c")))
        let last = listed[3]
        #expect(
            last["digest"]?.string == "\(image.manifestDescriptor.digest)" && last["isWhole"]?.bool == true)
        let sizes =
            image.layers.reduce(0) { $0 + $1.size } + image.manifestDescriptor.size
            + image.manifest.config.size
        #expect(last["size"]?.int64 == sizes && last["platforms"]?.array?.count == 1)
        #expect(
            shop.text("stat", "--format", "json", "--image", shop.image("c"))
                == shop.text("stat", "--json", "--image", shop.image("c")))
        try shell(
            "rm \"$1\"", shop.layout.appending("blobs/sha256").appending(BytePath(image.layers[0].digest.hex))
        )
        let partial = try Self.json(shop.text("ls", "--layout", shop.layout, "--format", "json"))
        #expect(partial.map { $0["isWhole"]?.bool } == [true, false, false, false])
    }

    @Test("gc as JSON has one shape")
    func collected() throws {
        let shop = try Workshop()
        try Self.fill(shop)
        _ = shop.text("unpack", "--image", shop.image("a"), shop.bundle("one"))
        _ = shop.text("bundle", "rm", shop.bundle("one"))
        let dry = try #require(
            try JSONValue(parsing: Array(shop.text("store", "gc", "--dry-run", "--format", "json").utf8))
                .object)
        let real = try #require(
            try JSONValue(parsing: Array(shop.text("store", "gc", "--format", "json").utf8)).object)
        #expect(dry.members.map(\.key) == real.members.map(\.key))
        #expect(dry["dryRun"]?.bool == true && real["dryRun"]?.bool == false)
        #expect(dry["delete"] == real["delete"] && dry["delete"]?.array?.count == 1)
        #expect((dry["exclusive"]?.int64 ?? 0) >= 100_000 && real["exclusive"]?.isNull == true)
    }

    // MARK: Snapshots as a cache

    @Test(
        "Labels and replacement: a snapshot has its labels from its first moment, and nobody else gets them")
    func labels() throws {
        let shop = try Workshop()
        try Self.fill(shop)
        let bundle = shop.bundle("b")
        _ = shop.text("unpack", "--image", shop.image("a"), bundle)
        _ = shop.text("snapshot", "create", "--label", "step=1", "--label", "by=me=too", bundle, "one")
        _ = shop.text("snapshot", "create", bundle, "plain")
        #expect(shop.run(["snapshot", "create", bundle, "one"]).code == 1)
        func names(_ filters: BytePath...) -> String {
            shop.run(["snapshot", "ls", "-q"] + filters.flatMap { ["--filter", $0] }).text
        }
        #expect(names("label=step") == "one\n" && names("label=step=1", "label=by=me=too") == "one\n")
        #expect(names("label=step=2") == "" && names("label=by=me") == "" && names() == "one\nplain\n")
        let json = try Self.json(shop.text("snapshot", "ls", "--format", "json"))
        #expect(
            json[0]["labels"]?.object?["by"]?.string == "me=too" && json[1]["labels"]?.object?.isEmpty == true
        )

        // What a command that was killed left on the bundle is nobody's label.
        try shell(
            "setfattr -n user.varve.labels -v '{\"left\":\"over\"}' \"$1\"; echo new > \"$1/rootfs/new\"",
            bundle)
        _ = shop.text("snapshot", "create", "--replace", bundle, "one")
        #expect(names("label=left") == "" && names("label=step") == "" && names() == "one\nplain\n")
        _ = shop.text("snapshot", "create", "--replace", "--label", "step=2", bundle, "one")
        _ = shop.text("snapshot", "create", "--replace", "--label", "step=3", bundle, "other")
        #expect(names("label=step=2") == "one\n" && names("label=step") == "one\nother\n")
        _ = shop.text("snapshot", "restore", "one", shop.bundle("r"))
        #expect(shop.text("diff", shop.bundle("r")).contains("A new"))
        _ = shop.text("snapshot", "create", shop.bundle("r"), "again")
        #expect(names("label=step") == "one\nother\n")
        #expect(shop.run(["store", "check"]).text == "")
        #expect(try shop.entries("locks") == [])

        #expect(shop.text("snapshot", "rm", "--filter", "label=step=3") == "other\n")
        #expect(shop.text("snapshot", "rm", "--filter", "label=step", "--older-than", "1h") == "")
        #expect(shop.text("snapshot", "rm", "--older-than", "0s") == "again\none\nplain\n")
        for wrong in [
            ["create", "--label", "x", bundle, "n"], ["create", "--label", "=x", bundle, "n"],
            ["create", "--label", "k=a\u{1b}", bundle, "n"], ["ls", "--filter", "step"],
            ["ls", "--filter", "name=x"], ["rm"], ["rm", "--older-than", "1h", "n"],
            ["create", "--label", BytePath("k=" + String(repeating: "x", count: 9000)), bundle, "n"],
        ] as [[BytePath]] {
            let run = shop.run(["snapshot"] + wrong)
            #expect(run.code == 2, "\(wrong): \(run)")
        }
        #expect(names() == "")
    }

    @Test("A snapshot that is replaced is there at every moment", arguments: 1...8)
    func killedWhileReplacing(_ point: Int) throws {
        let shop = try Workshop()
        try Self.fill(shop)
        let bundle = shop.bundle("b")
        _ = shop.text("unpack", "--image", shop.image("a"), bundle)
        _ = shop.text("snapshot", "create", "--label", "n=1", bundle, "kept")
        try shell("echo new > \"$1/rootfs/new\"", bundle)
        let process = try VarveProcess(
            ["snapshot", "create", "--replace", "--label", "n=2", "\(bundle)", "kept"], in: shop.volume.path,
            stopAt: point)
        var status: CInt = 0
        guard process.hasStopped(&status) else { return }
        kill(process.pid, SIGKILL)
        _ = process.end()
        let found = try Self.json(shop.text("snapshot", "ls", "--format", "json"))
        #expect(found.count == 1 && found[0]["name"]?.string == "kept")
        let label = found.first?["labels"]?.object?["n"]?.string
        _ = shop.text("snapshot", "restore", "kept", shop.bundle("r"))
        #expect(shop.text("diff", shop.bundle("r")).contains("A new") == (label == "2"))
        #expect(try shop.entries("snapshots") == ["kept"])
        #expect(shop.run(["store", "check"]).text == "")
    }
}
