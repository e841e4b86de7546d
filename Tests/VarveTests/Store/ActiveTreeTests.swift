import VarveArchive
import VarveBtrfs
import VarveLayers
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// Active trees of a daemon, pins, and the sweeper.
@Suite struct ActiveTreeTests {
    /// A world with an image of three layers, unpacked, and the names of its chains.
    static func world() throws -> (StoreWorld, [StoreLayer], [ChainName]) {
        let world = try StoreWorld(size: 512 << 20)
        let layers = try storeSampleLayers()
        try world.addImage("a", layers)
        var options = Unpacking.Options()
        options.chains = .all
        try world.unpack("a", options: options)
        return (world, layers, try world.chainNames(layers).map { try #require(ChainName($0)) })
    }

    /// A writable tree on a chain, as a daemon has it.
    private static func tree(_ number: UInt64, in trees: DaemonTrees, on chain: ChainName) throws
        -> ActiveTree
    {
        #expect(try trees.makeTree(number, from: chain.chainID, readOnly: false))
        return try trees.tree(number)
    }

    private static func write(_ bytes: Int, _ name: BytePath, in tree: ActiveTree) throws {
        let root = try tree.rootfs()
        let file = try root.fd.open(name, [.writeOnly, .create, .exclusive], mode: 0o644)
        // Not what compresses.
        var state: UInt64 = 88172645463325252
        let content = (0..<bytes).map { _ -> UInt8 in
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return UInt8(truncatingIfNeeded: state)
        }
        try file.fd.writeFull(content)
    }

    @Test("A tree on a chain is that chain, and knows whether it was written to")
    func marks() throws {
        let (world, layers, names) = try Self.world()
        let store = try world.store()
        let chain = try #require(try store.chains.find(names[2]))
        let trees = try DaemonTrees(store, id: "one")
        let tree = try Self.tree(7, in: trees, on: names[2])
        #expect(tree.info.parentUUID == chain.info.uuid)
        let reference = try world.reference(layers)
        let root = try tree.rootfs()
        #expect(try TreeCompare.differences(reference.fd, root.fd) == [])

        let mark = try tree.mark()
        #expect(ActiveTree.Mark(mark.description) == mark)
        #expect(ActiveTree.Mark("x") == nil && ActiveTree.Mark("\(mark) ") == nil)
        #expect(try tree.isUntouched(since: mark))
        #expect(try tree.freeze(in: store.work).isUntouched(since: mark))
        // Reading is no writing.
        _ = try world.shell("cat '\(tree.path)/rootfs/etc/new'")
        #expect(try tree.isUntouched(since: mark))

        for script in [
            "echo x >rootfs/etc/new", "chmod 700 rootfs/data", "rm rootfs/etc/new", "touch rootfs",
        ] {
            let before = try tree.mark()
            try world.shell("cd '\(tree.path)'; \(script)")
            let frozen = try tree.freeze(in: store.work)
            #expect(try !frozen.isUntouched(since: before), "\(script)")
            #expect(try !tree.isUntouched(since: before), "\(script)")
        }
        // Another tree of the same chain says nothing of this one.
        let other = try Self.tree(8, in: trees, on: names[2])
        #expect(try !other.freeze(in: store.work).isUntouched(since: try tree.mark()))
    }

    @Test("The delta of a tree is what was written to it, and a chain can be built of it")
    func chainOfTree() throws {
        let (world, layers, names) = try Self.world()
        let store = try world.store()
        let chain = try #require(try store.chains.find(names[1]))
        let trees = try DaemonTrees(store, id: "one")
        let tree = try Self.tree(7, in: trees, on: names[1])
        // As a differ does it: one blob, whose DiffID is not known before.
        let image = try world.image("a")
        let extraction = LayerExtraction(from: PiecemealBlobs(layout: image.layout), options: ApplyOptions())
        let extracted = try extraction.apply(
            image.layers[2], diffID: nil, to: ExtractionTarget(root: try tree.rootfs(), isBottom: false))
        #expect(extracted.diffID == layers[2].diffID && extracted.omissions == [])
        #expect(extracted.size == layers[2].archive.count)
        let mark = try tree.mark()

        let frozen = try tree.freeze(in: store.work)
        #expect(try frozen.isUntouched(since: mark))
        let delta = try frozen.delta(from: StillTree(chain), logger: world.log.logger)
        let walked = try frozen.delta(from: StillTree(chain), source: .walk, logger: world.log.logger)
        #expect(!delta.changes.isEmpty && delta.changes == walked.changes)

        try store.chains.remove(names[2])
        let builder = ChainBuilder(
            in: store, for: tree.path, copying: ChainBuilder.Original(frozen.subvolume))
        let built = try #require(try builder.build(names[2]) { true })
        #expect(built.name == names[2] && built.info.isReadOnly)
        let root = try builder.tree()
        let reference = try world.reference(layers)
        #expect(try TreeCompare.differences(reference.fd, root.fd) == [])
        // Who comes second takes what is there.
        let second = ChainBuilder(in: store, for: tree.path, on: chain)
        let found = try second.build(names[2]) {
            Issue.record("a chain that is there was built again")
            return true
        }
        #expect(found?.info.uuid == built.info.uuid)
        #expect(second.parent?.name == names[2])
        #expect(throws: VarveError.self) { try second.publish(names[2]) }
        #expect(try StoreCheck(store).run() == [])
        #expect(try StoreCheck(store).compare(with: [ImageSelection(image)]).findings.isEmpty)
    }

    @Test("A blob that is not what is said of it is refused, whatever its source")
    func wrongBlob() throws {
        let (world, _, names) = try Self.world()
        let store = try world.store()
        let trees = try DaemonTrees(store, id: "one")
        let tree = try Self.tree(7, in: trees, on: names[1])
        let image = try world.image("a")
        let layer = image.layers[2]
        let other = Descriptor(
            mediaType: layer.mediaType, digest: image.layers[1].digest, size: layer.size)
        let extraction = LayerExtraction(from: PiecemealBlobs(layout: image.layout), options: ApplyOptions())
        let target = ExtractionTarget(root: try tree.rootfs(), isBottom: false)
        #expect { try extraction.apply(other, diffID: nil, to: target) } throws: { storeBlamesInput($0) }
        #expect {
            try extraction.apply(image.layers[2], diffID: image.diffIDs[1], to: target)
        } throws: { isStoreError($0, .invalidInput) }
        let small = LayerExtraction(
            from: image.layout, options: ApplyOptions(), limits: Self.limits(entries: 1))
        #expect { try small.apply(image.layers[2], diffID: nil, to: target) } throws: {
            isStoreError($0, .invalidInput)
        }
    }

    private static func limits(entries: Int) -> UnpackLimits {
        var limits = Unpacking.Options().limits
        limits.entries = entries
        return limits
    }

    @Test("What a tree takes is what was written to it, each extent once")
    func usage() throws {
        let (world, _, names) = try Self.world()
        let store = try world.store()
        let trees = try DaemonTrees(store, id: "one")
        let tree = try Self.tree(7, in: trees, on: names[2])
        let none = try tree.usage()
        #expect(none.bytes == 0 && none.inodes <= 1)
        try Self.write(1 << 20, "large", in: tree)
        try world.shell(
            "cd '\(tree.path)/rootfs'; echo small >small; cp --reflink=always large again; sync -f .")
        let usage = try tree.usage()
        #expect((1 << 20..<(1 << 20) + 4096).contains(Int(usage.bytes)), "\(usage)")
        #expect(usage.inodes == none.inodes + 4 || usage.inodes == none.inodes + 3, "\(usage)")
        #expect(try BtrfsDriver(store: store).store.chains.all().count == 3)
    }

    @Test("Trees of two owners are apart, and a chain is needed until the last tree on it is gone")
    func owners() throws {
        let (world, _, names) = try Self.world()
        let store = try world.store()
        let one = try DaemonTrees(store, id: "one")
        let two = try DaemonTrees(store, id: "two")
        _ = try Self.tree(7, in: one, on: names[2])
        #expect(throws: (any Error).self) { try one.makeTree(7, from: names[2].chainID, readOnly: false) }
        #expect(try one.makeTree(8, from: names[2].chainID, readOnly: true))
        #expect(try one.isReadOnly(8))
        try two.makeTree(7, from: DaemonTrees.emptyTree, readOnly: false)
        #expect(try one.all().numbers.sorted() == [0, 7, 8] && two.all().numbers.sorted() == [0, 7])
        #expect(throws: VarveError.self) { try DaemonTrees(store, id: "a/b") }
        #expect(throws: VarveError.self) { try DaemonTrees(store, id: "one") }
        try world.store().removeBundle(world.bundle())
        for number: UInt64 in [7, 8] {
            #expect(try MaintenanceGarbageTests.collect(world).chains == [])
            try one.delete(number)
            #expect(throws: VarveError.self) { try one.open(number) }
        }
        try one.delete(7)
        try world.expectClean()
        #expect(try MaintenanceGarbageTests.collect(world).chains.count == 3)
        #expect(try two.all().numbers.sorted() == [0, 7])
    }

    @Test("A committed tree that is no chain is read-only, and trees are made on it")
    func committed() throws {
        let (world, _, _) = try Self.world()
        let store = try world.store()
        let trees = try DaemonTrees(store, id: "one")
        try trees.makeTree(7, from: DaemonTrees.emptyTree, readOnly: false)
        try Self.write(10, "own", in: trees.tree(7))
        try trees.makeTree(8, copying: 7)
        #expect(try trees.isReadOnly(8))
        try trees.makeTree(9, from: 8, readOnly: false)
        let next = try trees.tree(9)
        try Self.write(10, "more", in: next)
        let delta = try next.freeze(in: store.work).delta(
            from: StillTree(trees.open(8)), logger: world.log.logger)
        // The root directory has another time unless both files were made within one tick of the kernel's clock.
        #expect(delta.changes.map(\.path).filter { $0 != "." } == ["more"])
        try world.expectClean()
    }

    @Test("A pinned chain is not collected and not removed until its last pin is given up")
    func pins() throws {
        let (world, _, names) = try Self.world()
        let store = try world.store()
        let pins = ["one", "two"].map { Pin(owner: $0, chain: names[1]) }
        do {
            let chain = try #require(try store.chains.find(names[1]))
            for pin in pins {
                try store.pins.add(chain, for: pin.owner)
                try store.pins.add(chain, for: pin.owner)
            }
            #expect(throws: VarveError.self) { try store.pins.add(chain, for: "../x") }
        }
        #expect(Set(try store.pins.all()) == Set(pins))
        #expect(try store.pins.pins(of: "two") == [pins[1]] && store.pins.pins(of: "none") == [])
        try store.removeBundle(world.bundle())
        #expect(try MaintenanceGarbageTests.collect(world).chains == [names[2]])
        #expect { try store.chains.remove(names[1]) } throws: { isStoreError($0, .failed) }
        #expect(try StoreCheck(store).run() == [])
        try store.pins.remove(pins[0])
        try store.pins.remove(pins[0])
        #expect(try MaintenanceGarbageTests.collect(world).chains == [])
        try store.pins.remove(pins[1])
        #expect(try MaintenanceGarbageTests.collect(world).chains == [names[1], names[0]])
    }

    @Test("Opening a store sweeps nothing; the sweeper takes away what nobody holds, and nothing else")
    func sweeping() throws {
        let (world, _, names) = try Self.world()
        let chain = world.storePath.appending(BytePath("chains/\(names[0])"))
        let script = """
            btrfs -q subvolume snapshot '\(chain)' store/work/left
            btrfs -q subvolume snapshot '\(chain)' store/refreshed/moved
            touch store/locks/work-moved
            """
        try world.shell(script)
        let store = try SnapshotStore.open(at: world.storePath, logger: world.log.logger)
        #expect(try world.names(in: "store/work") == ["left"])
        #expect(try world.names(in: "store/refreshed") == ["moved"])
        let held = ChainBuilder(in: store, for: world.path, on: nil)
        let tree = try held.tree()
        store.sweeper.sweepWork()
        #expect(try world.names(in: "store/work").count == 1)
        #expect(try world.names(in: "store/refreshed") == ["moved"])
        store.sweeper.sweepLocks()
        #expect(try world.names(in: "store/refreshed") == [])
        #expect(try tree.fd.entries().isEmpty)
        extendLifetime(held)
    }
}

/// The blobs of an image as a socket gives them: in pieces of any size, none of them a multiple of anything.
private struct PiecemealBlobs: BlobSource {
    let layout: ImageLayout

    func bytes(of blob: Descriptor) throws -> sending any ByteSource {
        PiecemealBytes(try layout.bytes(of: blob))
    }
}

@safe
private final class PiecemealBytes: ByteSource {
    private let source: any ByteSource
    private var rest = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
    private var size = 1

    init(_ source: sending any ByteSource) { self.source = source }

    func next() throws -> UnsafeRawBufferPointer {
        if unsafe rest.isEmpty { unsafe rest = try unsafe source.next() }
        size = size % 1021 + 7
        let piece = unsafe UnsafeRawBufferPointer(rebasing: rest.prefix(size))
        unsafe rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(piece.count))
        return unsafe piece
    }
}
