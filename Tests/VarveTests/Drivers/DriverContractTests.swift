import VarveFormats
import VarveArchive
import DeltaChecks
import VarveLayers
import Logging
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage
import TestSupport
import Testing

@testable import VarveCommands

/// A driver as the contract sees it: how it is made, and where its bundles lie.
struct ContractDriver: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var make: @Sendable (ContractWorld) throws -> any StorageDriver
    /// Bundles lie outside the btrfs that holds the store.
    var isElsewhere = false
    /// Who lists the changes can be told that they count from now on.
    var canRefresh = true

    static let all = [
        ContractDriver(testDescription: "btrfs") { BtrfsDriver(store: try $0.store.store()) },
        // On btrfs, where a directory has no link for each directory in it and inode numbers never come back …
        ContractDriver(testDescription: "directory") { _ in DirectoryDriver() },
        // … and on what the machine has for temporary files.
        ContractDriver(
            testDescription: "directory elsewhere", make: { _ in DirectoryDriver() }, isElsewhere: true),
        // Programs, each of which is the command itself: the protocol from both sides.
        ContractDriver(
            testDescription: "hooks", make: { try HooksDriver.ofTheCommand($0.store) }, canRefresh: false),
    ]
}

extension HooksDriver {
    /// `varve hook` for whatever it can do.
    static func ofTheCommand(_ world: StoreWorld) throws -> HooksDriver {
        let hook = HooksConfiguration.Hook(
            command: [BytePath(try builtProgram("varve")), "--store", world.storePath, "hook"])
        let names: [HookName] = [.trySkip, .postExtract, .postUnpack, .deltaList, .postRepack]
        return HooksDriver(
            configuration: HooksConfiguration(Dictionary(uniqueKeysWithValues: names.map { ($0, hook) })),
            logger: Logger(label: "test"))
    }
}

/// A store, an image layout, a driver and room for its bundles.
final class ContractWorld: Sendable {
    let store: StoreWorld
    let elsewhere: SharedTemporaryDirectory?
    private let contract: ContractDriver

    init(_ contract: ContractDriver) throws {
        self.contract = contract
        store = try StoreWorld()
        elsewhere = contract.isElsewhere ? try SharedTemporaryDirectory() : nil
    }

    func driver() throws -> any StorageDriver { try contract.make(self) }

    /// Where bundles lie.
    var place: BytePath { elsewhere?.path ?? store.path.appending("bundles") }
    func bundle(_ name: String = "bundle") -> BytePath { place.appending(name) }

    @discardableResult
    func unpack(
        _ tag: String, _ name: String = "bundle", options: Unpacking.Options = Unpacking.Options(),
        cancellation: Cancellation = Cancellation(), progress: @escaping ProgressHandler = { _ in }
    ) throws -> Unpacking.Result {
        try Unpacking(driver: driver(), options: options, cancellation: cancellation, progress: progress)
            .unpack(store.image(tag), into: bundle(name))
    }

    @discardableResult
    func repack(_ name: String, _ tag: String, _ change: (inout Repacking.Options) -> Void = { _ in }) throws
        -> Repacking.Result
    {
        var options = Repacking.Options(now: Timestamp(seconds: 1_700_000_000))
        change(&options)
        return try Repacking(driver: driver(), options: options)
            .repack(bundle(name), into: store.layout(), tag: tag)
    }

    func diff(_ name: String = "bundle", readsAll: Bool = false) throws -> [OracleChange] {
        try driver().freeze(RepackContext(bundle: bundle(name), readsAll: readsAll)).delta {}.changes
            .map(OracleChange.init)
    }

    func rootfs(_ name: String = "bundle") throws -> SharedDescriptor {
        SharedDescriptor(
            try FileDescriptor.workingDirectory.open(bundle(name).appending("rootfs"), [.directory]))
    }

    /// How a bundle's tree differs from another.
    func differences(
        _ name: String = "bundle", _ tree: SharedDescriptor, _ options: OracleOptions = OracleOptions()
    )
        throws -> [String]
    {
        let rootfs = try rootfs(name)
        defer { extendLifetime((rootfs, tree)) }
        return try TreeCompare.differences(rootfs.fd, tree.fd, options)
    }

    /// What the oracle finds changed in a bundle's tree.
    func expected(
        _ name: String = "bundle", since old: SharedDescriptor, _ options: OracleOptions = OracleOptions()
    )
        throws -> [OracleFinding]
    {
        let rootfs = try rootfs(name)
        defer { extendLifetime((rootfs, old)) }
        return try Oracle.findings(old: old.fd, new: rootfs.fd, options)
    }

    /// Runs a script in a bundle's rootfs.
    func edit(_ script: String, _ name: String = "bundle") throws {
        try shell("cd \"$1\"\n" + script, bundle(name).appending("rootfs"))
    }

    /// Nothing but these lies among the bundles, and nothing is left in the store.
    func expectOnly(_ names: [String], sourceLocation: SourceLocation = #_sourceLocation) throws {
        let place = try FileDescriptor.workingDirectory.open(place, [.directory])
        #expect(
            try place.fd.entries().map(\.name.description).sorted() == names, sourceLocation: sourceLocation)
        try store.expectClean(sourceLocation: sourceLocation)
    }
}

/// A temporary directory that several may hold.
final class SharedTemporaryDirectory: Sendable {
    private let directory: TemporaryDirectory
    var path: BytePath { directory.path }
    init() throws { directory = try TemporaryDirectory() }
}

/// What every storage driver must do: the same images give the same trees, the same changes the same deltas and layers.
@Suite struct DriverContractTests {
    /// Layers with some of everything.
    static func layers() throws -> [StoreLayer] {
        var special = StoreEntry.file("special/attributes", "x", mode: 0o4711)
        special.entry.uid = 12
        special.entry.gid = 34
        special.entry.extendedAttributes = [
            ExtendedAttribute(name: "user.empty", value: []),
            ExtendedAttribute(name: "user.text", value: Array("a=b\u{0}c".utf8)),
        ]
        var device = StoreEntry.file("special/null")
        device.entry.kind = .characterDevice
        (device.entry.deviceMajor, device.entry.deviceMinor) = (1, 3)
        var fifo = StoreEntry.file("special/fifo")
        fifo.entry.kind = .fifo
        return try storeSampleLayers() + [
            StoreLayer([
                .directory("special/", mode: 0o1777), special, device, fifo,
                .bytes("special/large", (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 7 >> 3) }),
                .file("special/a b#c*\u{e9}\\\t", "odd"), .link("special/odd link", .symbolicLink, "to a\nb"),
                .directory("links/"), .file("links/a", "linked"), .link("links/b", .hardLink, "links/a"),
                .file("links/c", "other"), .link("links/d", .hardLink, "links/c"), .file("links/e", "equal"),
                .file("links/f", "equal"),
            ]),
            // Takes away, replaces, and gives a name again to what was another file.
            StoreLayer([
                .file("data/.wh..wh..opq"), .file("data/again", "k"), .file("etc/.wh.new"),
                .directory("etc/new/"), .file("etc/new/inside", "x"),
            ]),
        ]
    }

    /// A world with the image `a`, unpacked.
    static func world(_ driver: ContractDriver) throws -> ContractWorld {
        let world = try ContractWorld(driver)
        try world.store.addImage("a", try layers())
        try world.unpack("a")
        return world
    }

    @Test("An image gives the tree of its layers, at once and again", arguments: ContractDriver.all)
    func tree(_ driver: ContractDriver) throws {
        let world = try Self.world(driver)
        try world.unpack("a", "again")
        let reference = try world.store.reference(try Self.layers())
        for name in ["bundle", "again"] {
            #expect(try world.differences(name, reference) == [])
            #expect(try world.diff(name) == [])
            #expect(try world.diff(name, readsAll: true) == [])
            let bundle = try FileDescriptor.workingDirectory.open(world.bundle(name), [.directory])
            for file in ["config.json", "umoci.json"] as [BytePath] {
                #expect(try JSONValue(parsing: bundle.fd.readFile(file, limit: 1 << 20)).object != nil)
            }
        }
        try world.expectOnly(["again", "bundle"])
    }

    @Test("An image with no layers is an empty tree", arguments: ContractDriver.all)
    func empty(_ driver: ContractDriver) throws {
        let world = try ContractWorld(driver)
        try world.store.addImage("none", [])
        try world.unpack("none")
        #expect(try world.diff() == [])
        try world.edit("echo x > x")
        try world.repack("bundle", "one")
        try world.unpack("one", "two")
        #expect(try world.differences("bundle", world.rootfs("two")) == [])
    }

    struct Edit: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var script: String

        init(_ testDescription: String, _ script: String) {
            self.testDescription = testDescription
            self.script = script
        }
    }

    /// Edits that are judged in one world, one after another.
    struct Edits: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var edits: [Edit]

        init(_ testDescription: String, _ edits: [Edit]) {
            self.testDescription = testDescription
            self.edits = edits
        }
    }

    /// Each is judged by the oracle, which compares the changed tree with the one that the layers give.
    static let edits = contentEdits.edits + metadataEdits.edits + nameEdits.edits

    static let contentEdits = Edits(
        "files and their content",
        [
            Edit("nothing", "cat bin/* etc/passwd links/* special/large > /dev/null"),
            Edit(
                "files added, changed and deleted",
                "echo n > n; echo c >> etc/passwd; rm bin/zsh; rm -r special"),
            // The time and the size are as before; only the content, and so the change time, is another.
            Edit(
                "content alone",
                "cp -p special/large ../k; printf y | dd of=special/large bs=1 seek=70000 conv=notrunc status=none; touch -r ../k special/large"
            ),
            // Everything that stat shows is as it was, but it is another file.
            Edit(
                "a file for another of the same size and time",
                "printf K > n; touch -r data/again n; mv n data/again; touch -d @1000 data"),
            Edit(
                "the same again",
                "cp -a special s; rm -r special; mv s special; cat etc/passwd > x; cat x > etc/passwd; rm x; touch -d @1000.000000005 etc/passwd; touch -d @1000 special; touch -d @1000 ."
            ),
        ])

    static let metadataEdits = Edits(
        "metadata and types",
        [
            Edit(
                "metadata",
                "chmod 700 links; chown 5:6 data/again; setfattr -n user.n -v v etc; chmod u-s bin/sh"
            ),
            Edit(
                "attributes",
                "setfattr -x user.empty special/attributes; setfattr -n user.text -v '' special/attributes"
            ),
            Edit("times", "touch -d @77 bin/sh; touch -h -d @5 lib; touch -d @1000.25 special/null"),
            Edit("a link's target", "ln -sfn elsewhere lib; touch -h -d @1000 lib"),
            Edit(
                "types",
                "rm etc/passwd; mkdir etc/passwd; rm -r etc/new; echo f > etc/new; rm special/null; ln -s x special/null"
            ),
            Edit(
                "a device's number",
                "rm special/null; mknod -m 644 special/null c 1 5; touch -d @1000 special/null special"),
            Edit("a directory renamed", "mv special away; mkdir special"),
            Edit(
                "sockets",
                "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"s\")'; touch -d @1000 ."),
        ])

    static let nameEdits = Edits(
        "links and names",
        [
            Edit("a name more for a file", "ln bin/sh another; touch -d @1000 ."),
            Edit("a name less for a file", "rm links/b; touch -d @1000 links"),
            Edit(
                "content of a linked file",
                "cp -p links/a ../k; printf LINKED > links/a; touch -r ../k links/a"),
            Edit("links parted", "cp -p links/a x; mv x links/a; touch -d @1000 links ."),
            Edit("equal files linked", "ln -f links/e links/f; touch -d @1000 links"),
            Edit(
                "links crossed",
                "cp -p links/a ../k; cat links/c > links/a; touch -r ../k links/a; ln -f links/a links/d; touch -d @1000 links"
            ),
            Edit(
                "odd names",
                "printf x > \"$(printf 'n\\377\\n\\\\ ')\"; mv special/a\\ * special/b; rm special/odd*"
            ),
            Edit("deep", "d=; for i in $(seq 60); do d=$d/directory-$i; done; mkdir -p .$d; echo x > .$d/f"),
        ])

    @Test(
        "The delta is exact, and its layer on top of the image gives the tree", arguments: ContractDriver.all,
        [contentEdits, metadataEdits, nameEdits])
    func delta(_ driver: ContractDriver, _ edits: Edits) throws {
        let world = try Self.world(driver)
        let reference = try world.store.reference(try Self.layers())
        for edit in edits.edits {
            try world.unpack("a", "edited")
            try world.edit(edit.script, "edited")
            let expected = try world.expected("edited", since: reference)
            #expect(
                try Oracle.disagreement(expected, with: world.diff("edited")) == nil,
                "\(edit.testDescription)")
            #expect(
                try world.diff("edited", readsAll: true) == expected.map(\.change), "\(edit.testDescription)")
            let result = try world.repack("edited", "b")
            #expect(result.changes == expected.count && (result.layer == nil) == expected.isEmpty)
            let given = try world.store.reference(try world.store.storedLayers("b"))
            #expect(
                try world.differences("edited", given) == [],
                "\(edit.testDescription)")
            try BundleRemoval.remove(world.bundle("edited")) { try world.store.store() }
        }
        try world.expectOnly(["bundle"])
    }

    /// Every driver, on one image, makes the same bytes of the same changes.
    @Test func sameLayers() throws {
        var layers: [Edit: [Descriptor?]] = [:]
        for driver in ContractDriver.all {
            let world = try Self.world(driver)
            for edit in Self.edits {
                try world.unpack("a", "edited")
                try world.edit(edit.script, "edited")
                layers[edit, default: []].append(
                    try world.repack("edited", "b") {
                        // Whatever time of day it is.
                        $0.sourceDate = Timestamp(seconds: 1_000_000)
                    }.layer)
                try BundleRemoval.remove(world.bundle("edited")) { try world.store.store() }
            }
        }
        for (edit, made) in layers {
            #expect(made.count == ContractDriver.all.count && Set(made).count == 1, "\(edit.testDescription)")
        }
    }

    @Test(
        "After a refresh only later changes count, twice over",
        arguments: ContractDriver.all.filter(\.canRefresh))
    func refresh(_ driver: ContractDriver) throws {
        let world = try Self.world(driver)
        try world.edit("echo 1 > one; rm links/b; echo again >> etc/passwd")
        let first = try world.repack("bundle", "b") { $0.refreshesBundle = true }
        #expect(first.changes > 3)
        #expect(try world.diff() == [] && world.diff(readsAll: true) == [])
        try world.edit("echo 2 > two; rm one; ln links/c links/g")
        let changes = try world.diff().filter { $0.kind != .modified || $0.type != .directory }
        #expect(
            changes.map { "\($0.kind.rawValue) \($0.path)" } == [
                "M links/c", "M links/d", "A links/g", "D one", "A two",
            ])
        try world.repack("bundle", "c") { $0.refreshesBundle = true }
        #expect(try world.diff() == [])
        #expect(try world.store.image("c").layers.count == Self.layers().count + 2)
        try world.repack("bundle", "d")
        for tag in ["c", "d"] {
            #expect(try world.store.image(tag).layers.count == Self.layers().count + 2)
            let given = try world.store.reference(try world.store.storedLayers(tag))
            #expect(try world.differences("bundle", given) == [])
        }
        try world.expectOnly(["bundle"])
    }

    @Test("An image that is damaged leaves nothing", arguments: ContractDriver.all)
    func damaged(_ driver: ContractDriver) throws {
        let world = try ContractWorld(driver)
        try world.store.addImage("bad", try Self.layers()) { config in
            config["rootfs"] = [
                "type": "layers",
                "diff_ids": .array(
                    Array(repeating: .string("sha256:" + String(repeating: "0", count: 64)), count: 5)),
            ]
        }
        #expect { try world.unpack("bad") } throws: { storeBlamesInput($0) }
        try world.expectOnly([])
    }

    @Test("An unpack that is cancelled leaves nothing", arguments: ContractDriver.all)
    func cancelled(_ driver: ContractDriver) throws {
        let world = try ContractWorld(driver)
        try world.store.addImage("a", try Self.layers())
        let cancellation = Cancellation()
        #expect {
            try world.unpack("a", cancellation: cancellation) { progress in
                if case .layer(let index, _) = progress, index == 3 { cancellation.cancel() }
            }
        } throws: { isStoreError($0, .interrupted) }
        try world.expectOnly([])
    }

    @Test("A bundle's place must be free, and is left as it is if it is not", arguments: ContractDriver.all)
    func place(_ driver: ContractDriver) throws {
        let world = try Self.world(driver)
        try shell("mkdir \"$1/full\" \"$1/free\"; echo x > \"$1/full/x\"", world.place)
        for name in ["full", "bundle"] {
            #expect { try world.unpack("a", name) } throws: { isStoreError($0, .failed) }
        }
        try world.unpack("a", "free")
        #expect(try world.diff("free") == [] && world.diff() == [])
        try world.expectOnly(["bundle", "free", "full"])
    }

    /// By whoever calls a driver, and not only by what the engine makes of its errors.
    @Test("What a driver itself throws is a VarveError", arguments: ContractDriver.all)
    func errors(_ driver: ContractDriver) throws {
        let world = try Self.world(driver)
        let image = try world.store.image("a")
        #expect(throws: VarveError.self) {
            try world.driver().freeze(RepackContext(bundle: world.bundle("missing")))
        }
        #expect(throws: VarveError.self) {
            let context = UnpackContext(bundle: world.bundle(), image: image)
            try world.driver().beginUnpack(context).unpack.finish(files: [])
        }
        // Their own, by way of the driver.
        struct Stop: Error {}
        try shell("touch \"$1/bundle/rootfs/new\"", world.place)
        let frozen = try world.driver().freeze(RepackContext(bundle: world.bundle(), readsAll: true))
        do {
            // A program that tells the changes walks nothing.
            #expect(try frozen.delta { throw Stop() }.reason.contains("told"))
        } catch {
            #expect((error as? VarveError)?.cause is Stop, "\(error)")
        }
    }

    @Test("What is no bundle is said to be none", arguments: ContractDriver.all)
    func noBundle(_ driver: ContractDriver) throws {
        let world = try Self.world(driver)
        try shell("mkdir -p \"$1/x/rootfs\"", world.place)
        for name in ["x", "missing"] {
            #expect { try world.diff(name) } throws: { isStoreError($0, .notFound) }
        }
    }
}

extension DriverContractTests.Edit: Hashable {}
