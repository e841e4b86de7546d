import VarveBtrfs
import VarveLayers
import VarveOCI
import VarveStore
import VarveSystem
import TestSupport
import Testing

/// `store gc` and `store du`.
@Suite struct MaintenanceGarbageTests {
    static func collect(
        _ world: StoreWorld, _ change: (inout GarbageCollection.Options) -> Void = { _ in }
    ) throws -> GarbageCollection.Report {
        var options = GarbageCollection.Options()
        change(&options)
        return try GarbageCollection(try world.store(), options: options).run()
    }

    /// A world with the images `a` of three layers and `b` of the lowest two of them and one of its own, and the names of
    /// their chains.
    static func world() throws -> (world: StoreWorld, a: [String], b: [String]) {
        let world = try StoreWorld(size: 512 << 20)
        let a = try storeSampleLayers()
        let b = Array(a[..<2]) + [try StoreLayer([.file("b", String(repeating: "b", count: 100_000))])]
        try world.addImage("a", a)
        try world.addImage("b", b)
        try world.unpack("a")
        try world.unpack("b", "other")
        return (world, try world.chainNames(a), try world.chainNames(b))
    }

    /// What is done before a collection, and which chains it leaves.
    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var script = ""
        var options: @Sendable (StoreWorld, inout GarbageCollection.Options) throws -> Void = { _, _ in }
        var prepare: @Sendable (StoreWorld) throws -> Void = { _ in }
        /// `a`, `b` for the topmost chains, `common` for the two below both.
        var left: [String]
        var testDescription: String { name }
    }

    static let cases = [
        Case(name: "both bundles exist", left: ["a", "b", "common"]),
        Case(name: "one bundle is gone", script: "btrfs -q subvolume delete other", left: ["a", "common"]),
        Case(name: "all are gone", script: "btrfs -q subvolume delete bundle other", left: []),
        // The snapshot's parent is the bundle, which does not exist any more.
        Case(
            name: "a snapshot of a bundle that is gone",
            prepare: {
                try $0.store().createSnapshot(of: $0.bundle(), name: "kept")
                try $0.store().removeBundle($0.bundle())
                try $0.store().removeBundle($0.bundle("other"))
            }, left: ["a", "common"]),
        // A child of the snapshot, and not of the chain.
        Case(
            name: "a bundle restored from a snapshot that is gone",
            prepare: {
                try $0.store().createSnapshot(of: $0.bundle("other"), name: "kept")
                try $0.store().restoreSnapshot("kept", to: $0.bundle("restored"))
                try $0.store().removeSnapshot("kept")
                try $0.store().removeBundle($0.bundle())
                try $0.store().removeBundle($0.bundle("other"))
            }, left: ["b", "common"]),
        // Where nobody would look for it, and made by another tool, without Varve's attribute.
        Case(
            name: "a snapshot of a chain elsewhere",
            script:
                "mkdir deep; btrfs -q subvolume snapshot -r $a deep/mine; btrfs -q subvolume delete bundle other",
            left: ["a", "common"]),
        Case(
            name: "an image is kept", script: "btrfs -q subvolume delete bundle other",
            options: { world, options in options.keptChains = Set(try world.image("b").chainIDs) },
            left: ["b", "common"]),
        Case(
            name: "young ones are kept", script: "btrfs -q subvolume delete bundle other",
            options: { _, options in
                let now = Timestamp.now()
                options.madeBefore = Timestamp(seconds: now.seconds - 3600)
            }, left: ["a", "b", "common"]),
        Case(
            name: "old ones are not", script: "btrfs -q subvolume delete bundle other",
            options: { _, options in options.madeBefore = Timestamp(seconds: Timestamp.now().seconds + 60) },
            left: []),
        // The chain of the refreshed bundle is that of the new image, on top of a's.
        Case(
            name: "a refreshed bundle", script: "btrfs -q subvolume delete other",
            prepare: {
                try $0.shell("echo new >bundle/rootfs/new")
                try $0.repack("bundle", "c") { $0.refreshesBundle = true }
            }, left: ["a", "common", "c"]),
    ]

    @Test(
        "Kept is what something descends from, what is asked for, and what lies below that", arguments: cases)
    func keeps(_ example: Case) throws {
        let (world, a, b) = try Self.world()
        try example.prepare(world)
        if !example.script.isEmpty { try world.shell("a=store/chains/\(a[2])\n\(example.script)") }
        let before = try world.chains
        let dry = try Self.collect(world) {
            $0.isDryRun = true
            try? example.options(world, &$0)
        }
        #expect(try world.chains == before)
        let report = try Self.collect(world) { try? example.options(world, &$0) }
        #expect(dry.chains == report.chains && dry.kept == report.kept)

        var left: [String] = []
        if example.left.contains("common") { left += a[..<2] }
        if example.left.contains("a") { left.append(a[2]) }
        if example.left.contains("b") { left.append(b[2]) }
        if example.left.contains("c") {
            left.append("sha256-" + (try #require(world.image("c").chainIDs.last)).digest.hex)
        }
        #expect(try world.chains == left.sorted())
        // Children before parents.
        let order = report.chains.map(\.description)
        for names in [a, b] where order.contains(names[0]) {
            #expect(order.firstIndex(of: names[2]) ?? 0 < order.firstIndex(of: names[1]) ?? 0)
            #expect(order.firstIndex(of: names[1]) ?? 0 < order.firstIndex(of: names[0]) ?? 0)
        }
        try world.expectClean()
        #expect(try StoreCheck(try world.store()).run() == [])
        // Whatever went can be built again.
        try world.unpack("a", "again")
        let again = try world.open("again/rootfs")
        let reference = try world.reference(storeSampleLayers())
        #expect(try TreeCompare.differences(reference.fd, again.fd) == [])
    }

    @Test("A chain that is leased stays, with what lies below it, and goes once the lease has ended")
    func leases() throws {
        let (world, a, _) = try Self.world()
        try world.shell("btrfs -q subvolume delete bundle other")
        let name = try #require(ChainName(a[1]))
        do {
            let lease = try #require(try world.store().chains.find(name))
            let report = try Self.collect(world)
            #expect(report.inUse == [name])
            #expect(try world.chains == a[..<2].sorted())
            #expect { try world.store().chains.remove(name) } throws: { isStoreError($0, .failed) }
            extendLifetime(lease)
        }
        #expect(try Self.collect(world).chains.count == 2)
        #expect(try world.chains == [])
    }

    @Test("An unpack whose prefix is collected under it: it is not, and the unpack ends well")
    func duringUnpack() throws {
        let (world, a, _) = try Self.world()
        try world.shell("btrfs -q subvolume delete bundle other")
        try world.store().chains.remove(try #require(ChainName(a[2])))
        // In the middle of the topmost layer.
        try world.unpack("a", "again") { progress in
            if case .layer(2, false) = progress {
                _ = try? Self.collect(world)
            }
        }
        #expect(try world.chains == a.sorted())
        #expect(try world.diff("again") == [])
    }

    @Test("Orphaned states of refreshed bundles go, and space comes back")
    func space() throws {
        let world = try StoreWorld(size: 512 << 20)
        var noise = SystemRandomNumberGenerator()
        let bytes = (0..<(8 << 20)).map { _ in UInt8.random(in: .min ... .max, using: &noise) }
        try world.addImage("a", [try StoreLayer([.bytes("large", bytes)])])
        try world.unpack("a")
        try world.shell("echo x >bundle/rootfs/x")
        try world.repack("bundle", "b") { $0.refreshesBundle = true }
        try world.shell("btrfs -q subvolume delete bundle")
        func used() throws -> Int {
            let text = try world.shell("sync -f .; df --output=used --block-size=1 . | tail -n 1")
            return try #require(Int(text.filter(\.isNumber)))
        }
        let before = try used()
        let dry = try Self.collect(world) { $0.isDryRun = true }
        #expect(dry.refreshed.count == 1 && dry.chains.count == 2)
        // The file, and a block for the configuration that only the kept state has.
        #expect(dry.exclusiveBytes == (8 << 20) + 4096 || dry.exclusiveBytes == 8 << 20)
        let report = try Self.collect(world) { $0.waitsForSpace = true }
        #expect(report.refreshed == dry.refreshed && report.chains == dry.chains)
        #expect(before - (try used()) >= 8 << 20)
        #expect(try world.names(in: "store/refreshed") == [])
    }

    @Test("du: by extents, and by quota groups where they are on")
    func usage() throws {
        let world = try StoreWorld(size: 512 << 20)
        let layers = [
            try StoreLayer([.bytes("base", Array(repeating: 1, count: 1 << 20))]),
            try StoreLayer([.bytes("top", Array(repeating: 2, count: 2 << 20)), .file("base", "small")]),
        ]
        try world.addImage("a", layers)
        try world.unpack("a")
        let names = try world.chainNames(layers)
        var usage = try world.store().usage()
        var found = Dictionary(uniqueKeysWithValues: usage.chains.map { ($0.name.description, $0) })
        #expect(!usage.areQuotas)
        // The bundle shares everything with its chain; the file that the upper layer replaced is the lower chain's alone.
        #expect(found[names[0]]?.referenced == 1 << 20 && found[names[0]]?.exclusive == 1 << 20)
        #expect(found[names[1]]?.referenced == 2 << 20 && found[names[1]]?.exclusive == 0)
        try world.shell("btrfs -q subvolume delete bundle")
        usage = try world.store().usage()
        found = Dictionary(uniqueKeysWithValues: usage.chains.map { ($0.name.description, $0) })
        #expect(found[names[1]]?.exclusive == 2 << 20)

        try world.shell("btrfs quota enable .; btrfs -q quota rescan -w .")
        usage = try world.store().usage()
        found = Dictionary(uniqueKeysWithValues: usage.chains.map { ($0.name.description, $0) })
        #expect(usage.areQuotas)
        let group = try world.shell(
            "btrfs qgroup show --raw . | grep 0/$(btrfs inspect-internal rootid store/chains/\(names[1]))")
        let figures = group.split(separator: " ").compactMap { UInt64($0) }
        #expect(figures.first == found[names[1]]?.referenced)
        #expect((found[names[1]]?.exclusive ?? 0) >= 2 << 20)
    }

    /// Three images of one chain each, with 24 MiB that nothing else has, the oldest first, and their chains. Nothing needs them.
    private static func unneeded() throws -> (world: StoreWorld, chains: [String]) {
        let world = try StoreWorld(size: 512 << 20)
        var noise = SystemRandomNumberGenerator()
        var chains: [String] = []
        for name in ["old", "middle", "young"] {
            let bytes = (0..<(3 << 20)).map { _ in UInt64.random(in: .min ... .max, using: &noise) }
            let layer = try StoreLayer(
                [.bytes(BytePath(name), unsafe bytes.withUnsafeBytes { unsafe Array($0) })], .none)
            try world.addImage(name, [layer])
            try world.unpack(name, name)
            chains += try world.chainNames([layer])
        }
        try world.shell(
            "rm -r layout; btrfs -q subvolume delete old middle young; btrfs subvolume sync .; sync -f .")
        return (world, chains)
    }

    @Test("--free deletes the oldest until that much is free, and nothing where it is")
    func untilFree() throws {
        let (world, chains) = try Self.unneeded()
        func free() throws -> Int64 { try world.volume.root.freeBytes() }
        let before = try free()
        #expect(try Self.collect(world) { $0.wantedFree = before - (1 << 20) }.chains.isEmpty)
        let dry = try Self.collect(world) {
            $0.wantedFree = before + (30 << 20)
            $0.isDryRun = true
        }
        #expect(
            dry.chains.map(\.description) == Array(chains[..<2])
                && (48 << 20..<49 << 20).contains(dry.exclusiveBytes ?? 0))
        #expect(try world.chains.count == 3)
        // One in use is passed over.
        let first = try #require(ChainName(chains[0]))
        do {
            let lease = try #require(try world.store().chains.find(first))
            let report = try Self.collect(world) { $0.wantedFree = before + (20 << 20) }
            #expect(report.chains.map(\.description) == [chains[1]] && report.inUse.count == 1)
            extendLifetime(lease)
        }
        #expect(try free() >= before + (20 << 20))
        let rest = try Self.collect(world) { $0.wantedFree = 1 << 40 }
        #expect(rest.chains.map(\.description) == [chains[0], chains[2]] && rest.isSpaceBack)
        #expect(try rest.free == free() && free() >= before + (70 << 20))
        try world.expectClean()
    }

    @Test("The configuration says what gc --policy keeps, and what the options say comes first")
    func policy() throws {
        let (world, chains) = try Self.unneeded()
        let home = try TemporaryDirectory()
        func gc(_ table: String, _ words: BytePath...) throws -> CommandRun {
            try TestSupport.runSuccessfully(
                ["sh", "-c", "mkdir -p '\(home.path)/varve'; cat >'\(home.path)/varve/config.toml'"],
                input: Array(table.utf8))
            return varve(
                ["store", "gc", "--policy"] + words,
                variables: ["XDG_CONFIG_HOME": "\(home.path)", "VARVE_STORE": "\(world.storePath)"])
        }
        #expect(try gc("").code == 2)
        #expect(try gc("[gc]\nolder-than = \"1h\"").text == "")
        let more = try gc("[gc]\nfree = \"1P\"")
        #expect(more.code == 2 && more.errorText.contains("is no size"), "\(more)")
        let free = try world.volume.root.freeBytes()
        let first = try gc("[gc]\nfree = \"\(free + (1 << 20))\"")
        #expect(first.code == 0 && first.text == chains[0] + "\n" && first.errors.isEmpty, "\(first)")
        let short = try gc("[gc]\nolder-than = \"1h\"\nfree = \"1T\"")
        #expect(
            short.code == 7 && short.text == "" && short.errorText.contains("nothing else can be deleted"),
            "\(short)")
        let all = try gc("[gc]\nolder-than = \"1h\"", "--older-than", "0s")
        #expect(all.text.split(separator: "\n").map(String.init).sorted() == chains[1...].sorted(), "\(all)")
    }
}
