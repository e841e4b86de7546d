import VarveFormats
import VarveArchive
import VarveBtrfs
import DeltaChecks
import Glibc
import VarveLayers
import VarveOCI
@testable import VarveStore
import Synchronization
import VarveSystem
import SystemPackage
import TestSupport
import Testing
import Varve

/// From an image to chains and a bundle.
@Suite struct EngineUnpackTests {
    @Test("Chains: one read-only subvolume for each prefix, named by its ChainID, with exactly its layers")
    func chains() throws {
        let world = try StoreWorld()
        let layers = try storeSampleLayers()
        try world.addImage("a", layers)
        let result = try world.unpack("a")
        #expect(result.layersInPlace == 0 && result.layers == 3)
        let names = try world.chainNames(layers)
        #expect(try world.chains == names.sorted())
        for (index, name) in names.enumerated() {
            let chain = try world.open("store/chains/\(name)")
            #expect(try chain.fd.isReadOnlySubvolume())
            #expect(try world.names(in: "store/chains/\(name)") == ["rootfs"])
            let rootfs = try world.open("store/chains/\(name)/rootfs")
            let reference = try world.reference(Array(layers[...index]))
            #expect(try TreeCompare.differences(reference.fd, rootfs.fd) == [], "\(name)")
        }
        try world.expectClean()
    }

    @Test("The bundle: the tree that the chain was published from, with configuration and metadata")
    func bundle() throws {
        let layers = try storeSampleLayers()
        let world = try StoreWorld(unpacked: layers)
        #expect(try world.names(in: "bundle") == ["config.json", "rootfs", "umoci.json"])
        let bundle = try world.open("bundle")
        let top = try world.open("store/chains/\(try world.chainNames(layers)[2])")
        let info = try bundle.fd.subvolumeInfo()
        #expect(try info.uuid == top.fd.subvolumeInfo().parentUUID && info.parentUUID == nil)
        #expect(try !bundle.fd.isReadOnlySubvolume())
        let reference = try world.reference(layers)
        let rootfs = try world.open("bundle/rootfs")
        #expect(try TreeCompare.differences(reference.fd, rootfs.fd) == [])
        let config = try JSONValue(parsing: try bundle.fd.readFile("config.json", limit: 1 << 20))
        #expect(config.object?["process"]?.object?["args"] == ["/bin/sh"])
        #expect(config.object?["root"]?.object?["path"]?.string == "rootfs")
        let metadata = try Repacking.metadata(of: world.bundle())
        #expect(metadata.path.last == (try world.image("a").manifestDescriptor))
        #expect(try world.diff("bundle") == [])
    }

    @Test(
        "A bundle goes on from its chain: deltas, snapshots, restored bundles and their chains see what came after, and that alone"
    )
    func bundleGoesOn() throws {
        let layers = try storeSampleLayers()
        let world = try StoreWorld(unpacked: layers, lower: 2)
        let store = try world.store()
        let names = try world.chainNames(layers).compactMap { ChainName($0) }
        let name = names[2]
        let chain = try #require(try store.chains.find(name))
        let below = try #require(try store.chains.find(names[1]))
        let bundle = try store.openBundle(world.bundle())
        #expect(bundle.info.uuid == chain.info.parentUUID && bundle.info.parentUUID == below.info.uuid)

        // At once, and a long way after: each source, also of a bundle that was restored from a snapshot of one that is gone.
        try world.shell(
            "echo new > bundle/rootfs/new; rm -rf bundle/rootfs/etc; mkdir -m 750 bundle/rootfs/etc")
        let (old, new) = (try world.open("store/chains/\(name)/rootfs"), try world.open("bundle/rootfs"))
        let expected = try Oracle.findings(old: old.fd, new: new.fd)
        #expect(!expected.isEmpty)
        for bundle in ["bundle", "restored"] {
            for source in [DeltaSource.search, .stream, .walk] {
                let delta = try world.delta(bundle, source: source)
                #expect(delta.source == source)
                #expect(
                    Oracle.disagreement(expected, with: delta.changes.map(OracleChange.init)) == nil,
                    "\(bundle), \(source)")
            }
            if bundle == "restored" { break }
            try store.createSnapshot(of: world.bundle(), name: "kept")
            // What is written down of the snapshot is what it differs in from the chain.
            let (snapshots, published) = ("store/snapshots/kept", "store/published/")
            let uuids = try [snapshots, "store/chains/\(name)"].map { path in
                let opened = try world.open(path)
                return try opened.fd.subvolumeInfo().uuid
            }
            let records = try uuids.map { uuid in
                let file = BytePath("\(published)\(uuid)")
                return try #require(
                    try PublishedTimes(world.volume.root.readFile(file, limit: 1 << 20)))
            }
            #expect(records[0].below == chain.info.uuid && records[1].below == below.info.uuid)
            #expect(records[0].entries.count < 10 && records[0].entries.contains { $0.inode == 256 })
            try store.restoreSnapshot("kept", to: world.bundle("restored"))
            try store.removeBundle(world.bundle())
            try store.removeSnapshot("kept")
        }
        try world.expectClean()
    }

    @Test("A snapshot of a bundle is not taken for the chain that was published of the bundle")
    func snapshotAsChain() throws {
        let layers = try storeSampleLayers()
        let world = try StoreWorld(unpacked: layers)
        let name = try world.chainNames(layers)[2]
        try world.shell(
            """
            echo other > bundle/rootfs/other
            btrfs -q subvolume delete store/chains/\(name)
            btrfs -q subvolume snapshot -r bundle store/chains/\(name)
            """)
        let taken = try #require(ChainName(name))
        #expect(try world.store().chains.find(taken) == nil)
        try world.unpack("a", "again")
        #expect(try world.shell("ls again/rootfs/other 2>/dev/null || true") == "")
        // The chain was built anew, and the bundle is none of its states: all is compared.
        #expect(try world.diff("bundle") == ["M .", "A other"])
    }

    @Test(
        "A bundle that a user owns is compared with its own chain, and with no other that was published of it"
    )
    func chainOfUser() throws {
        let layers = try storeSampleLayers()
        let world = try StoreWorld(unpacked: layers)
        try world.shell("chown 1000 bundle; chmod 755 bundle; touch bundle/rootfs/x")
        #expect(try world.diff("bundle").contains("A x"))
        // The chain below was published of the same subvolume. What upper layers have deleted of it was never the user's to read.
        let (names, image) = (try world.chainNames(layers), try world.image("a"))
        let name = "\(image.manifestDescriptor.digest) \(names[1])\n"
        try world.shell("setfattr -n user.varve.chain -v '\(name)' bundle")
        #expect(throws: VarveError.self) { try world.diff("bundle") }
        try world.shell("chown 0 bundle")
        #expect(try world.diff("bundle").contains("A x"))
    }

    @Test("A bundle that has lost the name of its chain is not compared with the one below it")
    func lostName() throws {
        let world = try StoreWorld(unpacked: storeSampleLayers(), lower: 2)
        try world.unpack("a", "warm")
        try world.shell(
            "setfattr -x user.varve.chain bundle; setfattr -x user.varve.chain warm; touch warm/rootfs/x")
        #expect(throws: VarveError.self) { try world.diff("bundle") }
        // It is a snapshot of the chain, as that says of itself.
        #expect(try world.diff("warm").contains("A x"))
    }

    @Test("What is there already is not read: the layers may be gone")
    func secondUnpack() throws {
        let world = try StoreWorld()
        try world.addImage("a", try storeSampleLayers())
        try world.unpack("a", "one")
        try world.hideLayers("a")
        let result = try world.unpack("a", "two")
        #expect(result.layersInPlace == 3)
        let one = try world.open("one/rootfs")
        let two = try world.open("two/rootfs")
        #expect(try TreeCompare.differences(one.fd, two.fd) == [])
        #expect(try world.chains.count == 3)
    }

    @Test(
        "Another image shares the prefix that it has in common, also when its layers are compressed in another way"
    )
    func sharedPrefix() throws {
        let world = try StoreWorld()
        var layers = try storeSampleLayers()
        try world.addImage("a", layers)
        try world.unpack("a", "one")
        try world.hideLayers("a")
        for index in layers.indices { layers[index].compression = index == 0 ? .none : .gzip }
        layers[2] = try StoreLayer([.file("other", "o")])
        try world.addImage("b", layers)
        for layer in try world.image("b").layers.prefix(2) {
            try runSuccessfully(["rm", "\(world.blobPath(layer.digest))"])
        }
        let result = try world.unpack("b", "two")
        #expect(result.layersInPlace == 2)
        #expect(try world.chains.count == 4)
        let reference = try world.reference(layers)
        let two = try world.open("two/rootfs")
        #expect(try TreeCompare.differences(reference.fd, two.fd) == [])
    }

    @Test("The longest prefix counts, also when one below it was removed")
    func holeInTheChain() throws {
        let world = try StoreWorld()
        let layers = try storeSampleLayers()
        try world.addImage("a", layers)
        try world.unpack("a", "one")
        let names = try world.chainNames(layers)
        let store = try world.store()
        for name in [names[0], names[2]] { try store.chains.remove(try #require(ChainName(name))) }
        #expect(try world.chains == [names[1]])
        #expect(try world.unpack("a", "two").layersInPlace == 2)
        #expect(try world.chains == [names[1], names[2]].sorted())
        let one = try world.open("one/rootfs")
        let two = try world.open("two/rootfs")
        #expect(try TreeCompare.differences(one.fd, two.fd) == [])
    }

    @Test("A layer that is in a manifest more than once")
    func repeatedLayers() throws {
        let world = try StoreWorld()
        let a = try StoreLayer([.file("a", "1"), .file("b", "1")])
        let b = try StoreLayer([.file("a", "2"), .file(".wh.b")])
        let layers = [a, b, a, a, b]
        try world.addImage("a", layers)
        try world.unpack("a")
        #expect(try Set(world.chains) == Set(world.chainNames(layers)))
        #expect(try world.chains.count == 5)
        let reference = try world.reference(layers)
        let rootfs = try world.open("bundle/rootfs")
        #expect(try TreeCompare.differences(reference.fd, rootfs.fd) == [])
    }

    @Test("Options that make another tree make another chain")
    func variants() throws {
        let world = try StoreWorld()
        let layers = [
            try StoreLayer([.directory("t/"), .link("l", .symbolicLink, "t")]),
            try StoreLayer([.directory("l/"), .file("l/f", "x")]),
        ]
        try world.addImage("a", layers)
        try world.unpack("a", "plain")
        var options = Unpacking.Options()
        options.apply.keepDirlinks = true
        try world.unpack("a", "kept", options: options)
        let names = try world.chainNames(layers)
        #expect(try world.chains == (names + names.map { $0 + "-dirlinks" }).sorted())
        #expect(try world.names(in: "plain/rootfs/t") == [])
        #expect(try world.names(in: "kept/rootfs/t") == ["f"])
        // A repack goes on in the same way.
        try world.shell("touch kept/rootfs/new")
        let result = try world.repack("kept", "b")
        #expect(result.isPublished)
        #expect(try world.chains.count { $0.hasSuffix("-dirlinks") } == 3)
    }

    @Test(
        "What is left out of a layer is told of once; a strict unpack refuses it, whatever chains there are")
    func leftOut() throws {
        let world = try StoreWorld()
        let odd = [("com.apple.provenance", "x"), ("system.nfs4_acl", "y")].map {
            ExtendedAttribute(name: BytePath($0.0), value: Array($0.1.utf8))
        }
        let layers = [
            try StoreLayer([.directory("t/")]),
            try StoreLayer(
                ["a", "b"].map { name in
                    var file = StoreEntry.file(BytePath(name), "x")
                    file.entry.extendedAttributes = odd
                    return file
                }),
        ]
        try world.addImage("a", layers)
        let warnings = StoreLog()
        for bundle in ["one", "two"] {
            _ = try Unpacking(driver: BtrfsDriver(store: try world.store()), logger: warnings.logger).unpack(
                try world.image("a"), into: world.bundle(bundle))
        }
        #expect(warnings.count("") == 1)
        #expect(
            warnings.count(
                "the layer \(try world.image("a").layers[1].digest): 4 extended attributes are left out, ")
                == 1)
        var options = Unpacking.Options()
        options.apply.refusesOddAttributes = true
        let error = #expect(throws: LayerError.self) { try world.unpack("a", "strict", options: options) }
        #expect(error?.description.contains("com.apple.provenance") == true)
        try world.addImage("b", [layers[0]])
        try world.unpack("b", "strict", options: options)
        let names = try world.chainNames(layers)
        #expect(try world.chains.contains(names[0] + "-strict"))
        #expect(try world.diff("strict") == [])
    }

    @Test("An image with no layers gives an empty bundle, and what is put into it is its first layer")
    func noLayers() throws {
        let world = try StoreWorld()
        try world.layout().newImage(tag: "a", created: .epoch)
        #expect(try world.unpack("a").layers == 0)
        #expect(try world.names(in: "bundle/rootfs") == [])
        #expect(try world.chains == [])
        #expect(try world.diff("bundle") == [])
        try world.expectClean()
        try world.shell("mkdir bundle/rootfs/d; echo x > bundle/rootfs/d/f")
        #expect(
            try world.diff("bundle") == ["A d", "A d/f"] || world.diff("bundle") == ["M .", "A d", "A d/f"])
        // Also by way of a snapshot.
        try world.store().createSnapshot(of: world.bundle(), name: "s")
        try world.store().restoreSnapshot("s", to: world.bundle("restored"))
        #expect(try world.diff("restored") == world.diff("bundle"))
        let result = try world.repack("bundle", "b")
        #expect(result.isPublished && result.changes >= 2)
        #expect(try world.image("b").layers.count == 1)
        try world.hideLayers("b")
        #expect(try world.unpack("b", "again").layersInPlace == 1)
        let one = try world.open("bundle/rootfs")
        let two = try world.open("again/rootfs")
        #expect(try TreeCompare.differences(one.fd, two.fd) == [])
        try world.expectClean()
    }

    // MARK: The bundle's place

    struct Place: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var script: String
        /// Nil: it is taken.
        var kind: VarveError.Code?
        init(_ description: String, _ script: String, _ kind: VarveError.Code?) {
            testDescription = description
            self.script = script
            self.kind = kind
        }
    }

    @Test(
        "The bundle's place",
        arguments: [
            Place("nothing there", "", nil),
            Place("an empty directory", "mkdir bundle", nil),
            Place("a directory with something in it", "mkdir bundle; : > bundle/x", .failed),
            Place("a file", ": > bundle", .failed),
            Place("a symbolic link", "ln -s nowhere bundle", .failed),
            Place("a symbolic link to an empty directory", "mkdir d; ln -s d bundle", .failed),
            Place("another bundle", "btrfs -q subvolume create bundle; mkdir bundle/rootfs", .failed),
        ])
    func place(_ one: Place) throws {
        let world = try StoreWorld()
        try world.addImage("a", try storeSampleLayers())
        try world.shell(one.script)
        if let kind = one.kind {
            let before = try world.shell("ls -lR bundle 2>&1 || true")
            #expect { try world.unpack("a") } throws: { isStoreError($0, kind) }
            #expect(try world.chains == [], "it was found out before any work was done")
            #expect(try world.shell("ls -lR bundle 2>&1 || true") == before)
        } else {
            try world.unpack("a")
            #expect(try world.names(in: "bundle") == ["config.json", "rootfs", "umoci.json"])
        }
        try world.expectClean()
    }

    @Test("A bundle's missing parents are made; names that cannot be one are refused")
    func parents() throws {
        let world = try StoreWorld()
        try world.addImage("a", try storeSampleLayers())
        try world.unpack("a", "x/y/bundle/")
        #expect(try world.names(in: "x/y/bundle") == ["config.json", "rootfs", "umoci.json"])
        for name in ["x/..", "x/y/."] {
            #expect { try world.unpack("a", name) } throws: { isStoreError($0, .usage) }
        }
    }

    @Test("A bundle on another file system is refused before any work")
    func otherFileSystem() throws {
        let world = try StoreWorld()
        try world.addImage("a", try storeSampleLayers())
        let other = try LoopVolume(size: 256 << 20)
        for path in [
            other.path.appending("bundle"), temporaryDirectory().appending("varve-test-" + randomName()),
        ] {
            #expect {
                try Unpacking(driver: BtrfsDriver(store: try world.store())).unpack(
                    try world.image("a"), into: path)
            } throws: { isStoreError($0, .unsupported) }
        }
        #expect(try world.chains == [])
        try world.expectClean()
        extendLifetime(other)
    }

    // MARK: Bad input

    enum Damage: String, CaseIterable, Sendable {
        case wrongDiffID, flippedByte, truncated, longer, missing, notTar, halfTar, notCompressed, junkBehind,
            attack
    }

    @Test(
        "A layer that is not what it should be leaves no chain and no bundle", arguments: 0..<3,
        Damage.allCases)
    func damage(_ position: Int, _ damage: Damage) throws {
        let world = try StoreWorld()
        var layers = try storeSampleLayers()
        let names = try world.chainNames(layers)
        // The bytes are what the configuration and the descriptors say, and wrong all the same.
        if damage == .notTar { layers[position].archive = Array("this is no tar archive".utf8) }
        if damage == .halfTar { layers[position].archive.removeLast(layers[position].archive.count - 700) }
        if damage == .attack {
            layers[position] = try StoreLayer([.file("ok", "x"), .file("../../../escaped", "x")])
        }
        try world.addImage("a", layers) { config in
            guard damage == .wrongDiffID, var ids = config["rootfs"]?.object?["diff_ids"]?.array else {
                return
            }
            ids[position] = .string("sha256:" + String(repeating: "ab", count: 32))
            config["rootfs"] = ["type": "layers", "diff_ids": .array(ids)]
        }
        if damage == .notCompressed || damage == .junkBehind {
            try Self.replaceLayer(in: world, "a", position) { bytes in
                bytes = damage == .notCompressed ? Array("no gzip".utf8) : bytes + Array("junk".utf8)
            }
        }
        let blob = world.blobPath(try world.image("a").layers[position].digest)
        switch damage {
        case .flippedByte:
            // In the middle of the data, where every codec has some.
            try world.shell(
                """
                n=$(($(stat -c %s \(blob)) / 2)); b=$(dd if=\(blob) bs=1 skip=$n count=1 status=none | od -An -tu1 | tr -d ' ')
                printf "\\\\$(printf %03o $((b ^ 1)))" | dd of=\(blob) bs=1 seek=$n conv=notrunc status=none
                """)
        case .truncated: try world.shell("truncate -s -1 \(blob)")
        case .longer: try world.shell("printf x >> \(blob)")
        case .missing: try world.shell("rm \(blob)")
        default: break
        }
        #expect {
            try world.unpack("a")
        } throws: { error in
            if damage == .missing, let error = error as? OCIError {
                return error.kind == .notFound || error.kind == .invalidInput
            }
            return storeBlamesInput(error)
        }
        // What was right below it is there; nothing else is.
        #expect(try world.chains == names[..<position].sorted())
        #expect(try world.volume.root.statusIfPresent(of: "bundle") == nil)
        #expect(try world.names(in: ".").allSatisfy { $0 != "escaped" })
        try world.expectClean()
    }

    /// Stores another blob for a layer, with a descriptor that is right.
    private static func replaceLayer(
        in world: StoreWorld, _ tag: String, _ position: Int, _ change: (inout [UInt8]) -> Void
    ) throws {
        let image = try world.image(tag)
        var layers = image.layers
        let old = layers[position]
        var bytes = try FileDescriptor.workingDirectory.readFile(world.blobPath(old.digest), limit: 1 << 24)
        change(&bytes)
        layers[position] = try world.put(bytes, mediaType: old.mediaType)
        let manifest = ImageManifest(config: image.manifest.config, layers: layers)
        let layout = try world.layout()
        try layout.tag(tag, try layout.putJSON(manifest.json, mediaType: MediaType.ociManifest))
    }

    @Test("More layers than DiffIDs, and fewer, are refused", arguments: [2, 4])
    func diffIDCount(_ count: Int) throws {
        let world = try StoreWorld()
        let layers = try storeSampleLayers()
        try world.addImage("a", layers) { config in
            let ids = (layers + layers).prefix(count).map { JSONValue.string($0.diffID.description) }
            config["rootfs"] = ["type": "layers", "diff_ids": .array(ids)]
        }
        #expect { try world.unpack("a") } throws: { storeBlamesInput($0) }
        #expect(try world.chains == [])
    }

    @Test("A user that the image does not have is the image's fault, and leaves no bundle")
    func unknownUser() throws {
        let world = try StoreWorld()
        try world.addImage("a", try storeSampleLayers()) { $0["config"] = ["User": "nobody-there"] }
        #expect { try world.unpack("a") } throws: { storeBlamesInput($0) }
        #expect(try world.volume.root.statusIfPresent(of: "bundle") == nil)
        try world.expectClean()
    }

    // MARK: Stopping and several at once

    @Test("Who asks to stop gets out with nothing left behind", arguments: 0..<3)
    func cancellation(_ layer: Int) throws {
        let world = try StoreWorld()
        let layers = try storeSampleLayers()
        try world.addImage("a", layers)
        let cancellation = Cancellation()
        #expect {
            try world.unpack("a", cancellation: cancellation) { progress in
                if case .layer(let index, _) = progress, index == layer { cancellation.cancel() }
            }
        } throws: { isStoreError($0, .interrupted) }
        #expect(try world.chains == world.chainNames(layers)[..<layer].sorted())
        #expect(try world.volume.root.statusIfPresent(of: "bundle") == nil)
        try world.expectClean()
    }

    @Test("Cancelling the task stops the façade's unpack")
    func cancelledTask() async throws {
        let world = try StoreWorld()
        try world.addImage("a", [try StoreLayer((0..<4000).map { .file(BytePath("f\($0)"), "x") })])
        let store = try await LayerStore.open(world.storePath)
        let known = Mutex<Task<Unpacking.Result, any Error>?>(nil)
        let image = world.layoutPath.appendingBytes(":a")
        let bundle = world.bundle()
        let task = Task {
            try await store.unpack(image, into: bundle) { _ in
                // On the unpack's own thread, which goes on only when it was cancelled.
                while !known.withLock({
                    $0?.cancel(); return $0 != nil
                }) { usleep(1000) }
            }
        }
        known.withLock { $0 = task }
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(try world.chains == [])
        #expect(try world.volume.root.statusIfPresent(of: "bundle") == nil)
        try world.expectClean()
    }

    @Test("Several at once build each prefix once, and all succeed")
    func several() async throws {
        let world = try StoreWorld()
        let layers = try (0..<5).map { layer in
            try StoreLayer((0..<100).map { .file(BytePath("layer\(layer)/f\($0)"), "\(layer) \($0)") })
        }
        try world.addImage("a", layers)
        let other = Array(layers[..<3]) + [try StoreLayer([.file("other", "x")])]
        try world.addImage("b", other)
        // Each opens the store for itself, as processes would.
        let tasks = (0..<4).map { index in
            Task.detached { try world.unpack(index % 2 == 0 ? "a" : "b", "bundle\(index)") }
        }
        for task in tasks { _ = try await task.value }
        #expect(world.log.count("published the chain") == 6)
        #expect(try Set(world.chains) == Set(world.chainNames(layers) + world.chainNames(other)))
        for index in 0..<4 {
            let reference = try world.reference(index % 2 == 0 ? layers : other)
            let rootfs = try world.open("bundle\(index)/rootfs")
            #expect(try TreeCompare.differences(reference.fd, rootfs.fd) == [])
        }
        try world.expectClean()
    }
}
