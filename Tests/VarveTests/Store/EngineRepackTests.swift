import VarveFormats
import VarveArchive
import VarveBtrfs
import Glibc
import VarveLayers
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// From a changed bundle to a new image, snapshots of bundles, and what is deleted.
@Suite struct EngineRepackTests {
    /// A store with the sample image `a` unpacked at `bundle`.
    static func world() throws -> StoreWorld {
        let world = try StoreWorld(unpacked: storeSampleLayers())
        return world
    }

    /// Some of every kind of change.
    static let edit = """
        cd bundle/rootfs; echo changed >> etc/passwd; rm bin/zsh; mkdir -p usr/share; echo new > usr/share/f; ln usr/share/f usr/share/g
        chmod 700 data; ln -sfn elsewhere lib; mkfifo pipe; rm -r etc/new; mkdir etc/new; echo x > etc/new/f; setfattr -n user.x -v y bin/bash
        """

    /// That the bundle, the new image by its layers, and the published chain are one tree.
    static func expectSame(
        _ world: StoreWorld, _ bundle: String, _ tag: String, _ options: OracleOptions = OracleOptions()
    ) throws {
        let stored = try world.storedLayers(tag)
        let reference = try world.reference(stored)
        let rootfs = try world.open("\(bundle)/rootfs")
        #expect(
            try TreeCompare.differences(rootfs.fd, reference.fd, options) == [], "the layers give the bundle")
        let name = try #require(try world.chainNames(stored).last)
        let chain = try world.open("store/chains/\(name)/rootfs")
        #expect(
            try TreeCompare.differences(reference.fd, chain.fd) == [], "the chain is what the layers give")
        let holder = try world.open("store/chains/\(name)")
        #expect(try holder.fd.isReadOnlySubvolume())
    }

    @Test("A repack publishes the chain that applying its layer gives, and the next unpack reads no layer")
    func repack() throws {
        let world = try Self.world()
        try world.shell(Self.edit)
        let changes = try world.diff("bundle")
        let result = try world.repack("bundle", "b")
        #expect(result.isPublished && result.changes == changes.count && result.source == .search)
        let image = try world.image("b")
        #expect(image.layers.count == 4 && image.diffIDs.count == 4 && image.config.history.count == 1)
        #expect(image.layers.last == result.layer)
        try Self.expectSame(world, "bundle", "b")
        try world.expectClean()
        try world.hideLayers("b")
        #expect(try world.unpack("b", "again").layersInPlace == 4)
        let again = try world.open("again/rootfs")
        let bundle = try world.open("bundle/rootfs")
        #expect(try TreeCompare.differences(bundle.fd, again.fd) == [])
        // The bundle still counts from where it came.
        #expect(try world.diff("bundle") == changes)
    }

    @Test("Every source packs the same layer", arguments: [DeltaSource.search, .stream, .walk])
    func sources(_ source: DeltaSource) throws {
        let world = try Self.world()
        try world.shell(Self.edit)
        let one = try world.repack("bundle", "b")
        let two = try world.repack("bundle", "c") { $0.source = source }
        #expect(two.source == source)
        #expect(one.layer == two.layer && one.manifest == two.manifest)
    }

    @Test(
        "The new layer is compressed as the topmost one that is compressed, or as one likes",
        arguments: LayerCompression.allCases)
    func compression(_ compression: LayerCompression) throws {
        let world = try Self.world()
        try world.shell(Self.edit)
        let asBelow = try world.repack("bundle", "b")
        #expect(asBelow.layer?.mediaType == LayerCompression.zstd.mediaType)
        let asked = try world.repack("bundle", "c") { $0.compression = compression }
        #expect(asked.layer?.mediaType == compression.mediaType)
        try Self.expectSame(world, "bundle", "c")
        #expect(try world.chains.count == 4, "the same content compressed in two ways is one chain")
    }

    @Test("An empty delta adds no layer: the tag names the same image")
    func emptyDelta() throws {
        let world = try Self.world()
        try world.shell(
            "cat bundle/rootfs/etc/passwd; chmod 755 bundle/rootfs/bin; echo x > bundle/config.json")
        let result = try world.repack("bundle", "b")
        #expect(result.layer == nil && result.changes == 0)
        #expect(try world.image("b").manifestDescriptor.digest == world.image("a").manifestDescriptor.digest)
        #expect(try world.chains.count == 3)
        try world.expectClean()
    }

    @Test("SOURCE_DATE_EPOCH makes repacks of one tree the same bytes, with no time later than it")
    func reproducible() throws {
        let world = try Self.world()
        try world.shell(Self.edit)
        let date = Timestamp(seconds: 1_500_000_000)
        let one = try world.repack("bundle", "b") { $0.sourceDate = date }
        try world.shell("touch bundle/rootfs/usr/share/f")
        let two = try world.repack("bundle", "c") {
            $0.sourceDate = date
            $0.threads = 4
            $0.now = Timestamp(seconds: 1)
        }
        #expect(one.manifest == two.manifest)
        #expect(try world.image("b").config.created == "2017-07-14T02:40:00Z")
        let reader = TarReader(StoreBytes(try #require(try world.storedLayers("b").last).archive))
        while let entry = try reader.nextEntry() { #expect(entry.modificationTime <= date) }
    }

    @Test("A name that a layer cannot hold is refused, and nothing is tagged or left")
    func whiteoutName() throws {
        let world = try Self.world()
        try world.shell("echo x > bundle/rootfs/etc/.wh.passwd")
        #expect {
            try world.repack("bundle", "b")
        } throws: { error in
            if case LayerError.unrepresentable = error { true } else { false }
        }
        #expect { try world.image("b") } throws: { ($0 as? OCIError)?.kind == .notFound }
        #expect(try world.names(in: "layout").sorted() == ["blobs", "index.json", "oci-layout"])
        #expect(try world.chains.count == 3)
        try world.expectClean()
        // Left out, it does no harm.
        #expect(
            try world.repack("bundle", "b") { $0.maskedPaths = ["/etc/.wh.passwd"] }.changes == 0
                || world.diff("bundle").contains("M etc"))
    }

    @Test("Masked paths and volumes are left out")
    func masks() throws {
        let world = try StoreWorld()
        try world.addImage("a", try storeSampleLayers()) { $0["config"] = ["Volumes": ["/data": [:]]] }
        try world.unpack("a")
        try world.shell(
            """
            cd bundle/rootfs; echo v > data/volume; echo m > etc/masked; mkdir tmp; echo t > tmp/x; echo p > packed; touch -d @1000 etc .
            touch -d @1000 data
            """)
        let result = try world.repack("bundle", "b") { $0.maskedPaths = ["etc/masked", "./tmp/"] }
        let reader = TarReader(StoreBytes(try #require(try world.storedLayers("b").last).archive))
        var paths: [String] = []
        while let entry = try reader.nextEntry() { paths.append(entry.path.description) }
        #expect(paths == ["packed"] && result.changes == 1)
        // With the volumes, which --no-mask-volumes asks for.
        try world.repack("bundle", "c") {
            $0.maskedPaths = ["etc/masked", "tmp"]
            $0.masksVolumes = false
        }
        let other = TarReader(StoreBytes(try #require(try world.storedLayers("c").last).archive))
        paths = []
        while let entry = try other.nextEntry() { paths.append(entry.path.description) }
        #expect(paths == ["data/volume", "packed"])
    }

    @Test("A volume that is the root leaves nothing out", arguments: ["/", "/.", "/data/..", ""])
    func rootVolume(_ volume: String) throws {
        let world = try StoreWorld()
        try world.addImage("a", try storeSampleLayers()) {
            $0["config"] = ["Volumes": [volume: [:]]]
        }
        try world.unpack("a")
        try world.shell("echo p > bundle/rootfs/packed")
        #expect(try world.repack("bundle", "b").changes > 0)
    }

    // MARK: Refresh

    @Test("After a refresh only later changes count, twice over")
    func refresh() throws {
        let world = try Self.world()
        try world.shell("echo 1 > bundle/rootfs/one; rm bundle/rootfs/etc/new")
        try world.repack("bundle", "b") { $0.refreshesBundle = true }
        #expect(try world.diff("bundle") == [])
        #expect(try world.names(in: "store/refreshed").count == 1)
        try world.shell("echo 2 > bundle/rootfs/two; rm bundle/rootfs/one; touch -d @1000 bundle/rootfs")
        #expect(try world.diff("bundle").filter { $0 != "M ." } == ["D one", "A two"])
        for source in [DeltaSource.search, .stream, .walk] {
            #expect(try world.diff("bundle", source: source) == world.diff("bundle"))
        }
        try world.repack("bundle", "c") { $0.refreshesBundle = true }
        #expect(try world.image("c").layers.count == 5)
        try Self.expectSame(world, "bundle", "c")
        #expect(try world.diff("bundle") == [])
        #expect(try world.names(in: "store/refreshed").count == 1)
        try world.shell("echo 3 > bundle/rootfs/three; touch -d @1001 bundle/rootfs")
        let last = try world.repack("bundle", "d")
        #expect(last.changes == 2)
        try Self.expectSame(world, "bundle", "d")
        try world.expectClean()
        // The kept state goes with the bundle.
        try world.store().removeBundle(world.bundle())
        #expect(try world.names(in: "store/refreshed") == [])
        try world.expectClean()
    }

    @Test("A bundle restored from a snapshot that was made after a refresh goes on from the refreshed image")
    func refreshAndRestore() throws {
        let world = try Self.world()
        try world.shell("echo 1 > bundle/rootfs/one; rm bundle/rootfs/etc/new")
        try world.repack("bundle", "b") { $0.refreshesBundle = true }
        // Gone again: a layer on top of `b` must say so, one on top of `a` need not.
        try world.shell("rm bundle/rootfs/one; echo back > bundle/rootfs/etc/new")
        try world.store().createSnapshot(of: world.bundle(), name: "s")
        try world.store().restoreSnapshot("s", to: world.bundle("restored"))
        #expect(try world.diff("restored").contains("D one"))
        #expect(try world.diff("restored") == world.diff("bundle"))
        try world.repack("restored", "c")
        try Self.expectSame(world, "restored", "c")
    }

    @Test(
        "umoci.json decides what a bundle counts from: after a refresh that did not get to it, still the image before"
    )
    func interruptedRefresh() throws {
        let world = try Self.world()
        try world.shell("cp bundle/umoci.json old.json; echo 1 > bundle/rootfs/one; rm bundle/rootfs/etc/new")
        try world.repack("bundle", "b") { $0.refreshesBundle = true }
        try world.shell("cp old.json bundle/umoci.json")
        #expect(try world.diff("bundle").contains("A one"))
        try world.shell("echo 2 > bundle/rootfs/two; echo again > bundle/rootfs/etc/new")
        try world.repack("bundle", "c")
        #expect(try world.image("c").layers.count == 4)
        try Self.expectSame(world, "bundle", "c")
        try world.expectClean()
    }

    @Test("An umoci.json that names an image which the bundle never was is no base for anything")
    func foreignMetadata() throws {
        let world = try Self.world()
        try world.addImage("other", [try StoreLayer([.file("f", "x")])])
        try world.unpack("other", "two")
        try world.shell("cp two/umoci.json bundle/umoci.json; echo 1 > bundle/rootfs/one")
        #expect { try world.repack("bundle", "c") } throws: { isStoreError($0, .notFound) }
        #expect { try world.image("c") } throws: { ($0 as? OCIError)?.kind == .notFound }
    }

    // MARK: Snapshots

    @Test("A bundle's snapshot outlives it, and one restored from it knows where it came from")
    func snapshots() throws {
        let world = try Self.world()
        try world.shell(Self.edit)
        let changes = try world.diff("bundle")
        let store = try world.store()
        try store.createSnapshot(of: world.bundle(), name: "before")
        #expect { try store.createSnapshot(of: world.bundle(), name: "before") } throws: {
            isStoreError($0, .failed)
        }
        let listed = try store.snapshots()
        #expect(listed.map(\.name) == ["before"])
        #expect(try listed.first?.chain?.description == world.chainNames(storeSampleLayers()).last)
        try world.shell("rm -r bundle/rootfs/*")
        try store.restoreSnapshot("before", to: world.bundle("two"))
        try store.removeBundle(world.bundle())
        #expect(try world.diff("two") == changes)
        try store.removeSnapshot("before")
        #expect(try store.snapshots().isEmpty && world.names(in: "store/snapshots") == [])
        #expect(try world.diff("two") == changes, "the snapshot is gone too")
        try world.shell("echo more > two/rootfs/more")
        let result = try world.repack("two", "b")
        #expect(result.changes == changes.count + 1 || result.changes == changes.count + 2)
        #expect(result.source == .search)
        try Self.expectSame(world, "two", "b")
        try world.expectClean()
    }

    @Test(
        "A row of snapshots, each of a bundle that is deleted: the delta from the chain is still searched for"
    )
    func rowOfSnapshots() throws {
        let world = try Self.world()
        let store = try world.store()
        for step in 0..<5 {
            // Names and inode numbers that come and go, so that a wrong start would show.
            try world.shell(
                "cd bundle/rootfs; rm -f etc/step*; echo \(step) > etc/step\(step); echo \(step) >> etc/passwd; mkdir -p d\(step)"
            )
            try store.createSnapshot(of: world.bundle(), name: "s\(step)")
            try store.removeBundle(world.bundle())
            try store.restoreSnapshot("s\(step)", to: world.bundle())
            // Not even the snapshots stay.
            try store.removeSnapshot("s\(step)")
            #expect(try world.diff("bundle") == world.diff("bundle", source: .walk))
            #expect(try world.delta("bundle").source == .search, "after \(step)")
        }
        let result = try world.repack("bundle", "b")
        #expect(result.source == .search)
        try Self.expectSame(world, "bundle", "b")

        // A snapshot that somebody else makes of it is one; a copy is none, whatever its attributes say.
        try world.shell(
            "btrfs -q subvolume snapshot bundle snapshot; btrfs -q subvolume create copy; cp -a bundle/. copy/"
        )
        #expect(try world.delta("snapshot").source == .search && world.delta("copy").source == .walk)
        #expect(try world.diff("snapshot") == world.diff("bundle"))
        #expect(try world.diff("copy") == world.diff("bundle"))

        // Without the attribute, and with one that says nothing, all is compared.
        for value in ["", "x", "a b c"] {
            try world.shell("setfattr -n trusted.varve.ancestors -v '\(value)' bundle")
            #expect(try world.delta("bundle").source == .walk)
            #expect(try world.diff("bundle") == world.diff("copy"))
        }
        try world.expectClean()
    }

    @Test("Snapshots that are not there, and names that cannot be one")
    func snapshotErrors() throws {
        let world = try Self.world()
        let store = try world.store()
        #expect { try store.restoreSnapshot("x", to: world.bundle("y")) } throws: {
            isStoreError($0, .notFound)
        }
        #expect { try store.removeSnapshot("x") } throws: { isStoreError($0, .notFound) }
        for name in ["", ".", "..", "a/b", ".hidden", String(repeating: "n", count: 256)] {
            #expect { try store.createSnapshot(of: world.bundle(), name: name) } throws: {
                isStoreError($0, .usage)
            }
        }
        #expect { try store.createSnapshot(of: world.bundle("none"), name: "s") } throws: {
            isStoreError($0, .notFound)
        }
        try store.createSnapshot(of: world.bundle(), name: "s")
        #expect { try store.restoreSnapshot("s", to: world.bundle()) } throws: { isStoreError($0, .failed) }
        try world.expectClean()
    }

    // MARK: Deleting

    @Test("A removed chain is gone; bundles of it stay, and say what they miss")
    func removeChain() throws {
        let world = try Self.world()
        let names = try world.chainNames(storeSampleLayers())
        let store = try world.store()
        let top = try #require(ChainName(names[2]))
        try store.chains.remove(top)
        #expect(try world.chains == names[..<2].sorted())
        #expect { try store.chains.remove(top) } throws: { isStoreError($0, .notFound) }
        #expect { try world.diff("bundle") } throws: { isStoreError($0, .notFound) }
        #expect { try world.repack("bundle", "b") } throws: { isStoreError($0, .notFound) }
        #expect(try world.names(in: "bundle/rootfs").contains("etc"))
        // Unpacked again, the chain is another subvolume, but the same tree: the bundle finds it by its name.
        try world.unpack("a", "two")
        try world.shell("echo x > bundle/rootfs/x")
        #expect(try world.diff("bundle").contains("A x"))
        try world.repack("bundle", "b")
        try Self.expectSame(world, "bundle", "b")
        try world.expectClean()
    }

    @Test("A bundle goes with the subvolumes nested in it")
    func removeBundle() throws {
        let world = try Self.world()
        try world.shell(
            """
            cd bundle/rootfs; mkdir -p var/lib; btrfs -q subvolume create var/lib/one; btrfs -q subvolume create var/lib/one/two
            echo x > var/lib/one/two/f; btrfs -q subvolume snapshot -r var/lib/one/two var/lib/three
            """)
        #expect(try world.diff("bundle").allSatisfy { !$0.contains("one") && !$0.contains("three") })
        let store = try world.store()
        try world.shell("ln -s bundle link")
        #expect { try store.removeBundle(world.bundle("link")) } throws: { isStoreError($0, .failed) }
        #expect { try store.removeBundle(world.bundle("nothing")) } throws: { isStoreError($0, .notFound) }
        #expect { try store.removeBundle(world.bundle("store")) } throws: { isStoreError($0, .notFound) }
        #expect { try store.removeBundle(world.bundle("bundle/rootfs")) } throws: {
            isStoreError($0, .notFound)
        }
        try store.removeBundle(world.bundle())
        #expect(try world.volume.root.statusIfPresent(of: "bundle") == nil)
        #expect(try world.shell("btrfs subvolume list . | grep -vc store/chains || true") == "0\n")
        try world.expectClean()
    }

    @Test("A bundle that was made read-only is removed too, and can be compared")
    func readOnlyBundle() throws {
        let world = try Self.world()
        try world.shell("echo x > bundle/rootfs/x; btrfs property set bundle ro true")
        #expect(try world.diff("bundle").contains("A x"))
        try world.store().removeBundle(world.bundle())
        #expect(try world.volume.root.statusIfPresent(of: "bundle") == nil)
        try world.expectClean()
    }

    @Test(
        "What is no bundle is said to be none",
        arguments: [
            "mkdir x", "btrfs -q subvolume create x", "mkdir -p x/rootfs", ": > x",
            "btrfs -q subvolume create x; mkdir x/rootfs", "true",
        ])
    func noBundle(_ script: String) throws {
        let world = try StoreWorld()
        try world.shell(script)
        #expect { try world.diff("x") } throws: { isStoreError($0, .notFound) }
        try world.expectClean()
    }
}
