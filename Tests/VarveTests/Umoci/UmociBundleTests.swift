import VarveArchive
import VarveLayers
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage
import TestSupport
import Testing

@testable import VarveCommands

/// Debian's umoci repacks bundles of ours, and we repack its bundles, with the same result.
@Suite struct UmociBundleTests {
    /// A layout with an image of some of everything; umoci keeps no fractions of seconds.
    static func world(_ driver: ContractDriver) throws -> ContractWorld {
        let world = try ContractWorld(driver)
        // It knows no zstd.
        try world.store.addImage(
            "a",
            try DriverContractTests.layers().map { layer in
                var layer = layer
                layer.compression = .gzip
                return layer
            })
        return world
    }

    /// Every kind of change, with whole seconds for times.
    static let edit = """
        echo changed >> etc/passwd; rm bin/zsh links/b; mkdir -p usr/share; echo new > usr/share/f; ln usr/share/f usr/share/g
        chmod 700 data; ln -sfn elsewhere lib; mkfifo pipe; rm -r etc/new; echo n > etc/new; setfattr -n user.x -v y links/c
        cp -p special/large ../k; printf y | dd of=special/large bs=1 seek=70000 conv=notrunc status=none; touch -r ../k special/large; rm ../k
        rm special/fifo; mkdir 'odd dir*'; echo x > 'odd dir*/#f'; echo x > "$(printf 'n\\n\\\\\\303\\251')"
        find . -newermt @100000000 -print0 | xargs -0 touch -h -d @1600000000
        """

    private static func umoci(_ words: String..., sourceLocation: SourceLocation = #_sourceLocation) throws {
        try runSuccessfully(["umoci"] + words)
    }

    /// The tree that an image's layers give.
    private static func tree(_ world: ContractWorld, _ tag: String) throws -> SharedDescriptor {
        try world.store.reference(try world.store.storedLayers(tag))
    }

    /// The names in the topmost layer, sorted.
    private static func topNames(_ world: ContractWorld, _ tag: String) throws -> [String] {
        let top = try #require(try world.store.storedLayers(tag).last)
        let reader = TarReader(StoreBytes(top.archive))
        var names: [String] = []
        while let entry = try reader.nextEntry() {
            names.append(entry.path.components.map(\.description).joined(separator: "/"))
        }
        return names.sorted()
    }

    private static let seconds = OracleOptions(ignoresSubsecondTimes: true)

    @Test("umoci repacks a bundle of ours", arguments: ContractDriver.all)
    func ours(_ driver: ContractDriver) throws {
        let world = try Self.world(driver)
        var options = Unpacking.Options()
        options.writesMtree = true
        try world.unpack("a", options: options)
        // Nothing has changed in its eyes: it adds no layer.
        try Self.umoci("repack", "--image", "\(world.store.layoutPath):same", "\(world.bundle())")
        #expect(try world.store.image("same").layers == world.store.image("a").layers)

        try world.edit(Self.edit)
        try Self.umoci("repack", "--image", "\(world.store.layoutPath):theirs", "\(world.bundle())")
        try world.repack("bundle", "ours")
        for tag in ["ours", "theirs"] {
            #expect(
                try world.differences("bundle", Self.tree(world, tag), Self.seconds) == [], "\(tag)")
        }
        // umoci packs the other names of a file too that has lost one, for its number of links.
        let ours = try Set(Self.topNames(world, "ours")), theirs = try Set(Self.topNames(world, "theirs"))
        #expect(ours.subtracting(theirs) == [] && ours.count > 20)
    }

    @Test("We repack a bundle of umoci's by its mtree file")
    func theirs() throws {
        let world = try Self.world(ContractDriver.all[2])
        try Self.umoci("unpack", "--image", "\(world.store.layoutPath):a", "\(world.bundle())")
        #expect(try BundleKind.of(world.bundle()) == .umoci)
        #expect(try world.diff() == [])
        let idle = try world.repack("bundle", "same")
        #expect(idle.layer == nil)

        try Self.umoci("unpack", "--image", "\(world.store.layoutPath):a", "\(world.bundle("before"))")
        try world.edit(Self.edit)
        let expected = try world.expected(since: world.rootfs("before"), Self.seconds)
        #expect(try Oracle.disagreement(expected, with: world.diff()) == nil)
        try Self.umoci("repack", "--image", "\(world.store.layoutPath):theirs", "\(world.bundle())")
        try world.repack("bundle", "ours")
        for tag in ["ours", "theirs"] {
            try Self.umoci("unpack", "--image", "\(world.store.layoutPath):\(tag)", "\(world.bundle(tag))")
            #expect(try world.differences("bundle", world.rootfs(tag), Self.seconds) == [], "\(tag)")
        }
    }

    @Test("Each goes on after a refresh of the other")
    func refresh() throws {
        let world = try Self.world(ContractDriver.all[2])
        let layout = "\(world.store.layoutPath)"
        try Self.umoci("unpack", "--image", "\(layout):a", "\(world.bundle())")
        try world.edit("echo 1 > one; rm links/b; touch -d @1600000000 one links .")
        try world.repack("bundle", "b") { $0.refreshesBundle = true }
        #expect(try BundleKind.of(world.bundle()) == .directory && world.diff() == [])
        try Self.umoci("repack", "--image", "\(layout):same", "\(world.bundle())")
        #expect(try world.store.image("same").layers == world.store.image("b").layers)

        try world.edit("echo 2 > two; rm one; touch -d @1600000000 two .")
        try Self.umoci("repack", "--refresh-bundle", "--image", "\(layout):c", "\(world.bundle())")
        #expect(try BundleKind.of(world.bundle()) == .umoci && world.diff() == [])
        try world.edit("echo 3 > three; touch -d @1600000000 three .")
        try world.repack("bundle", "d") { $0.refreshesBundle = true }
        try Self.umoci("unpack", "--image", "\(layout):d", "\(world.bundle("again"))")
        #expect(try world.differences("bundle", world.rootfs("again"), Self.seconds) == [])
        // What no longer counts is gone.
        let bundle = try FileDescriptor.workingDirectory.open(world.bundle(), [.directory])
        let digest = try world.store.image("d").manifestDescriptor.digest.hex
        #expect(
            try bundle.fd.entries().map(\.name.description).sorted() == [
                "config.json", "rootfs", "sha256_\(digest).mtree", "sha256_\(digest).record", "umoci.json",
            ])
    }

    struct Damage: Sendable, CustomTestStringConvertible {
        var testDescription: String
        /// Of sed, on the mtree file.
        var script: String
        var message: String
    }

    @Test(
        "An mtree file that is damaged is refused",
        arguments: [
            Damage(testDescription: "empty", script: "d", message: "it has no line for \".\""),
            Damage(testDescription: "no root", script: "/^\\./d", message: "it does not begin with the root"),
            Damage(testDescription: "mode", script: "s/mode=0/mode=9/", message: "mode=9"),
            Damage(testDescription: "digest", script: "s/sha256digest=/&x/", message: "sha256digest=x"),
            Damage(testDescription: "no type", script: "s/type=[a-z]*//", message: "it lacks one of type"),
            Damage(testDescription: "above", script: "s/^etc/a\\/..\\/../", message: "holds \"..\""),
            Damage(
                testDescription: "encoding", script: "s/^etc/e\\\\q/",
                message: "is not encoded as vis(3) does it"),
        ])
    func damaged(_ damage: Damage) throws {
        let world = try Self.world(ContractDriver.all[2])
        try Self.umoci("unpack", "--image", "\(world.store.layoutPath):a", "\(world.bundle())")
        try shell("sed -i '\(damage.script)' \"$1\"/*.mtree", world.bundle())
        let run = varve("diff", world.bundle())
        #expect(run.code == 3 && run.text == "" && run.errorText.contains(damage.message), "\(run)")
        #expect(run.errorText.contains("is damaged") && run.errorText.hasSuffix("unpack the image again\n"))
    }
}
