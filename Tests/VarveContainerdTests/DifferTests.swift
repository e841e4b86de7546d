import ContainerdChecks
import TestSupport
import Testing
import VarveArchive
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage

@testable import VarveContainerd

/// Layers that become trees, and trees that become layers.
@Suite(.serialized) struct DifferTests {
    private static let base =
        tarEntry("etc/", "5") + tarEntry("etc/a", "0", "one") + tarEntry("etc/b", "0", "two")
    private static let upper = tarEntry("etc/.wh.a") + tarEntry("etc/c", "0", "three")

    private func diff(
        _ left: [SnapshotMount], _ right: [SnapshotMount], _ snapshotter: Snapshotter,
        _ room: borrowing DaemonRoom,
        mediaType: String = ""
    ) throws -> Descriptor {
        try Differ(snapshotter, logger: DaemonRoom.quiet).diff(
            from: left, to: right, mediaType: mediaType, reference: "", labels: ["l": "m"], latestTime: nil,
            into: room.content, threads: 2, Cancellation())
    }

    /// Makes, applies and commits layers, one upon the other, as containerd unpacks an image. Returns the ChainIDs.
    private func unpack(
        _ layers: [Descriptor], _ snapshotter: Snapshotter, _ room: borrowing DaemonRoom, prefix: String = ""
    ) throws -> [ChainID] {
        var chains: [ChainID] = []
        for layer in layers {
            let parent = SnapshotKey(chains.last.map { prefix + $0.description } ?? "")
            let key = SnapshotKey(prefix + "extract \(chains.count)")
            let mounts = try snapshotter.make(.active, key, parent: parent, labels: [:])
            let applied = try room.apply(layer, to: mounts, snapshotter)
            let diffID = DiffID(applied.digest)
            chains.append(chains.last?.appending(diffID) ?? ChainID(diffID.digest))
            try snapshotter.commit(
                SnapshotKey(prefix + "\(chains[chains.count - 1])"), from: key, labels: [:])
        }
        return chains
    }

    private func layers(_ room: borrowing DaemonRoom) throws -> [Descriptor] {
        [
            room.content.add(Self.base + endOfTar),
            room.content.add(try gzip(Self.upper + endOfTar), LayerCompression.gzip.mediaType),
        ]
    }

    private func gzip(_ bytes: [UInt8]) throws -> [UInt8] {
        try runSuccessfully(["gzip", "-c"], input: bytes).output
    }

    /// What was applied to a chain that nobody touched is a chain, and the store has it under its name.
    @Test func chains() throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        let chains = try unpack(try layers(room), snapshotter, room)
        let archives = [Self.base + endOfTar, Self.upper + endOfTar]
        #expect(chains == ChainID.prefixes(of: archives.map { DiffID(Digest(of: $0)) }))
        let store = try room.store
        #expect(
            try store.chains.all().map(\.name.chainID) == chains.sorted { $0.description < $1.description })
        for chain in chains {
            #expect(try snapshotter.record(SnapshotKey("\(chain)")).chain == chain)
        }
        let view = try snapshotter.make(
            .view, SnapshotKey("v"), parent: SnapshotKey("\(chains[1])"), labels: [:])
        try room.run("test \"$(ls etc)\" = \"$(printf 'b\\nc')\"; test \"$(cat etc/c)\" = three", in: view)
        snapshotter.cleanUp()
        #expect(try room.trees().count == 3, "the empty tree and two layers, one of which the view shares")
        #expect(try snapshotter.usage(SnapshotKey("\(chains[0])")).inodes >= 4)
        #expect(try snapshotter.usage(SnapshotKey("\(chains[1])")).inodes < 4)
    }

    /// What the store holds is neither fetched nor applied: for a second containerd, and in another name space of the first.
    @Test func skipped() throws {
        let room = try DaemonRoom()
        let layers = try layers(room)
        let chains: [ChainID]
        do { chains = try unpack(layers, room.snapshotter(), room) }
        let reads = room.content.reads
        let other = try room.snapshotter("other")
        for round in ["a", "b"] {
            var parent = ""
            for chain in chains {
                let labels = [Snapshotter.referenceLabel: chain.description]
                let key = "\(round) extract \(chain)"
                #expect(
                    code {
                        _ = try other.make(
                            .active, SnapshotKey(key), parent: SnapshotKey(parent), labels: labels)
                    }
                        == .alreadyExists)
                let filter = try SnapshotFilter(
                    "labels.\"containerd.io/snapshot.ref\"==\(chain),parent==\"\(parent)\"")
                let found = other.list([filter])
                #expect(found.count == 1 && found.first?.kind == .committed, "once for all name spaces")
                parent = found.first?.key.text ?? ""
            }
            let active = try other.make(
                .active, SnapshotKey("\(round) c"), parent: SnapshotKey(parent), labels: [:])
            try room.run("test \"$(ls etc)\" = \"$(printf 'b\\nc')\"; echo x >x", in: active)
        }
        #expect(room.content.reads == reads)
        // One that the store has not is made as any other.
        let unknown = ChainID(Digest(of: [9]))
        let labels = [Snapshotter.referenceLabel: unknown.description]
        _ = try other.make(.active, SnapshotKey("u"), parent: SnapshotKey(""), labels: labels)
        #expect(try other.record(SnapshotKey("u")).kind == .active)
        // So is one that cannot lie on that parent, be it none.
        let top = other.list([]).first { $0.kind == .committed && $0.chain == chains[1] }?.key
        for (number, parent) in [SnapshotKey(""), try #require(top)].enumerated() {
            let labels = [Snapshotter.referenceLabel: "\(chains[1])"]
            let key = SnapshotKey("elsewhere \(number)")
            _ = try other.make(.active, key, parent: parent, labels: labels)
            #expect(try other.record(key).kind == .active, "on \(parent)")
        }
    }

    /// A blob of which the store holds the chain is not read again, by whoever applies it: containerd 1.7 names no ChainID when it imports.
    @Test func isReadOnce() throws {
        let room = try DaemonRoom()
        let layers = try layers(room)
        let chains: [ChainID]
        do { chains = try unpack(layers, room.snapshotter(), room) }
        #expect(room.content.reads == 2)
        let other = try room.snapshotter("other")
        #expect(try unpack(layers, other, room) == chains && room.content.reads == 2)
        for chain in chains { #expect(try other.record(SnapshotKey("\(chain)")).chain == chain) }
        let view = try other.make(.view, SnapshotKey("v"), parent: SnapshotKey("\(chains[1])"), labels: [:])
        try room.run("test \"$(ls etc)\" = \"$(printf 'b\\nc')\"; test \"$(cat etc/c)\" = three", in: view)
        // On top of something else it makes another chain, and with another size it is another blob.
        let alone = try other.make(.active, SnapshotKey("alone"), parent: SnapshotKey(""), labels: [:])
        let liar = Descriptor(
            mediaType: layers[0].mediaType, digest: layers[0].digest, size: layers[0].size + 1)
        #expect(code { _ = try room.apply(liar, to: alone, other) } == .invalidArgument)
        #expect(room.content.reads == 3)
        _ = try room.apply(layers[1], to: alone, other)
        #expect(room.content.reads == 4)
        try room.run("test \"$(ls etc)\" = c", in: alone)

        // What a chain says of another blob, or of itself as another chain, is worth nothing.
        let chain = "\(room.path)/chains/\(chains[1].fileName)"
        let attribute = try runSuccessfully(["getfattr", "--only-values", "-n", "user.varve.layer", chain])
            .outputText
        for lie in [
            attribute.replacing("\(layers[1].digest)", with: "\(Digest(of: [1]))"),
            attribute.replacing(
                "\(DiffID(Digest(of: Self.upper + endOfTar)))", with: "\(DiffID(Digest(of: [1])))"),
            attribute + "x", "",
        ] {
            try runSuccessfully([
                "sh", "-euc",
                "btrfs property set -f -t subvol \"$1\" ro false; setfattr -n user.varve.layer -v \"$2\" \"$1\"; btrfs property set -t subvol \"$1\" ro true",
                "sh", chain, lie,
            ])
            let reads = room.content.reads
            let third = try room.snapshotter("third")
            #expect(try unpack(layers, third, room) == chains && room.content.reads == reads + 1)
            while let record = third.list([]).first(where: { record in
                !third.list([]).contains { $0.parent == record.key }
            }) {
                try third.remove(record.key)
            }
            third.cleanUp()
        }
    }

    /// The layers above the one that is applied are announced to the content store, where the client has named them.
    @Test func prefetched() throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        let layer = try layers(room)[0]
        let above = (0..<5).map { Digest(of: [$0]) }
        let names = ([layer.digest] + above).map { "\($0)" }
        for (number, label) in [
            names.joined(separator: ","), "x,\(names[0]),no digest,\(names[1])", names[0],
            names.dropFirst().joined(separator: ","), "",
        ].enumerated() {
            let before = room.content.prefetched.count
            let mounts = try snapshotter.make(
                .active, SnapshotKey("\(number)"), parent: SnapshotKey(""),
                labels: [Differ.layersLabel: label])
            _ = try room.apply(layer, to: mounts, snapshotter)
            let expected = number == 0 ? Array(above[..<3]) : number == 1 ? [above[0]] : []
            #expect(Array(room.content.prefetched[before...]) == expected, "\(label)")
        }
    }

    /// A tree that something else wrote to gets no name that others would believe.
    struct Touch: Sendable, CustomTestStringConvertible {
        var name: String
        var before = ""
        var after = ""
        var testDescription: String { name }
    }

    @Test(arguments: [
        Touch(name: "before Apply", before: "echo x >x"),
        Touch(name: "a time before Apply", before: "touch -d @1 ."),
        Touch(name: "after Apply", after: "echo x >x"),
        Touch(name: "an attribute after Apply", after: "chmod 700 etc"),
    ])
    func touched(_ touch: Touch) throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        let key = SnapshotKey("k")
        let mounts = try snapshotter.make(.active, key, parent: SnapshotKey(""), labels: [:])
        try room.run(touch.before, in: mounts)
        let applied = try room.apply(room.content.add(Self.base + endOfTar), to: mounts, snapshotter)
        #expect(
            applied.digest == Digest(of: Self.base + endOfTar)
                && applied.size == Int64((Self.base + endOfTar).count))
        try room.run(touch.after, in: mounts)
        try snapshotter.commit(SnapshotKey("c"), from: key, labels: [:])
        #expect(try snapshotter.record(SnapshotKey("c")).chain == nil)
        let view = try snapshotter.make(.view, SnapshotKey("v"), parent: SnapshotKey("c"), labels: [:])
        try room.run("test \"$(cat etc/a)\" = one", in: view)
        // A chain that was published before that is right, and still is.
        #expect(try StoreCheck(room.store).run().isEmpty)
        // On a private parent everything is private.
        let above = try snapshotter.make(.active, SnapshotKey("k2"), parent: SnapshotKey("c"), labels: [:])
        _ = try room.apply(room.content.add(Self.upper + endOfTar), to: above, snapshotter)
        try snapshotter.commit(SnapshotKey("c2"), from: SnapshotKey("k2"), labels: [:])
        #expect(try snapshotter.record(SnapshotKey("c2")).chain == nil)
    }

    /// Several layers are applied to one snapshot: what the first ones gave stays, also where nothing says any more which chain that was,
    /// and where a commit of which containerd did not hear has given the snapshot another tree.
    @Test(arguments: [false, true]) func layersOnALostChain(isCommitted: Bool) throws {
        let room = try DaemonRoom()
        let layers = try layers(room)
        let key = SnapshotKey("k")
        do {
            let snapshotter = try room.snapshotter()
            let mounts = try snapshotter.make(.active, key, parent: SnapshotKey(""), labels: [:])
            _ = try room.apply(layers[0], to: mounts, snapshotter)
            let active = try snapshotter.record(key)
            #expect(active.chain != nil)
            if isCommitted {
                try snapshotter.commit(SnapshotKey("name"), from: key, labels: [:])
                snapshotter.cleanUp()
                // As a daemon leaves it that is killed now.
                try RecordDirectory(snapshotter.trees.records).write(active)
            }
        }
        let chain = ChainID(Digest(of: Self.base + endOfTar))
        try runSuccessfully(["btrfs", "-q", "subvolume", "delete", "\(room.path)/chains/\(chain.fileName)"])
        let snapshotter = try room.snapshotter()
        let mounts = try snapshotter.mounts(key)
        _ = try room.apply(layers[1], to: mounts, snapshotter)
        #expect(try snapshotter.record(key).chain == nil)
        try room.run("test \"$(ls etc)\" = \"$(printf 'b\\nc')\"; test \"$(cat etc/b)\" = two", in: mounts)
        try snapshotter.commit(SnapshotKey("c"), from: key, labels: [:])
        #expect(try snapshotter.record(SnapshotKey("c")).chain == nil)
        #expect(try StoreCheck(room.store).run().isEmpty)
    }

    /// A blob that is not what it is said to be leaves nothing, and the snapshot as it was.
    @Test func badBlobs() throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        let key = SnapshotKey("k")
        let mounts = try snapshotter.make(.active, key, parent: SnapshotKey(""), labels: [:])
        let good = room.content.add(Self.base + endOfTar)
        let cases: [(Descriptor, ServiceError.Code)] = [
            (
                Descriptor(mediaType: good.mediaType, digest: good.digest, size: good.size + 1),
                .invalidArgument
            ),
            (
                Descriptor(mediaType: good.mediaType, digest: good.digest, size: good.size - 1),
                .invalidArgument
            ),
            (
                Descriptor(mediaType: LayerCompression.gzip.mediaType, digest: good.digest, size: good.size),
                .invalidArgument
            ),
            (Descriptor(mediaType: good.mediaType, digest: Digest(of: [1]), size: 1), .notFound),
            (Descriptor(mediaType: "application/x", digest: good.digest, size: good.size), .unimplemented),
            (
                Descriptor(mediaType: good.mediaType + "+encrypted", digest: good.digest, size: good.size),
                .unimplemented
            ),
            (room.content.add(Array("no archive".utf8)), .invalidArgument),
            (room.content.add(tarEntry("../../x", "0", "evil") + endOfTar), .invalidArgument),
        ]
        for (blob, expected) in cases {
            #expect(code { _ = try room.apply(blob, to: mounts, snapshotter) } == expected, "\(blob)")
        }
        try room.run("test -z \"$(ls -A)\"", in: mounts)
        #expect(try room.store.chains.all().isEmpty)
        _ = try room.apply(good, to: mounts, snapshotter)
        try snapshotter.commit(SnapshotKey("c"), from: key, labels: [:])
        #expect(try snapshotter.record(SnapshotKey("c")).chain != nil)
        snapshotter.cleanUp()
        #expect(try room.trees().count == 2)
    }

    /// Mounts of anything but a snapshot of this daemon's are the next differ's.
    @Test func hostileMounts() throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        let mounts = try snapshotter.make(.active, SnapshotKey("k"), parent: SnapshotKey(""), labels: [:])
        let view = try snapshotter.make(.view, SnapshotKey("v"), parent: SnapshotKey(""), labels: [:])
        let layer = room.content.add(Self.base + endOfTar)
        let own = try #require(mounts.first)
        let store = "\(room.path)"
        try runSuccessfully(["ln", "-s", own.source, "\(room.volume.path)/link"])
        let sources = [
            "/", "/etc", "", "rootfs", own.source + "/", own.source + "/etc", own.source + "/../../1/rootfs",
            own.source.replacing("/trees/", with: "/trees/../trees/"),
            own.source.replacing("/trees/", with: "//trees/"),
            own.source.replacing("/trees/1/", with: "/trees/01/"),
            own.source.replacing("/trees/1/", with: "/trees/0/"),
            own.source.replacing("/trees/1/", with: "/trees/99999999999999999999/"),
            own.source.replacing("/trees/1/", with: "/trees/-1/"), own.source + "\u{0}",
            "\(room.volume.path)/link",
            "\(store)/chains/x/rootfs", "\(store)/containerd/other/trees/1/rootfs",
        ]
        for source in sources {
            let mount = SnapshotMount(type: "bind", source: source, options: own.options)
            #expect(
                code { _ = try room.apply(layer, to: [mount], snapshotter) } == .unimplemented, "\(source)")
            #expect(code { _ = try diff([], [mount], snapshotter, room) } == .unimplemented, "\(source)")
            #expect(code { _ = try diff([mount], mounts, snapshotter, room) } == .unimplemented, "\(source)")
        }
        let others = [
            SnapshotMount(type: "overlay", source: own.source, options: own.options),
            SnapshotMount(type: "bind", source: own.source, target: "x", options: own.options),
            SnapshotMount(type: "bind", source: own.source, options: ["rw", "rbind", "suid"]),
        ]
        for mount in others {
            #expect(code { _ = try room.apply(layer, to: [mount], snapshotter) } == .unimplemented)
        }
        #expect(code { _ = try room.apply(layer, to: [], snapshotter) } == .unimplemented)
        #expect(code { _ = try room.apply(layer, to: mounts + mounts, snapshotter) } == .unimplemented)
        #expect(code { _ = try room.apply(layer, to: view, snapshotter) } == .failedPrecondition)
        #expect(
            code { _ = try diff([], mounts, snapshotter, room, mediaType: "application/x") } == .unimplemented
        )
    }

    /// The diff of any two snapshots, applied to the one, gives the other.
    @Test(arguments: ["", LayerCompression.none.mediaType, LayerCompression.zstd.mediaType])
    func diffs(_ mediaType: String) throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        let chains = try unpack(try layers(room), snapshotter, room)
        let top = SnapshotKey("\(chains[1])")
        let changed = try snapshotter.make(.active, SnapshotKey("changed"), parent: top, labels: [:])
        try room.run(
            "rm etc/b; mkdir -p var/log; echo new >var/log/n; ln var/log/n var/m; chmod 600 etc/c",
            in: changed)
        let lower = try snapshotter.make(.view, SnapshotKey("lower"), parent: top, labels: [:])
        let blob = try diff(lower, changed, snapshotter, room, mediaType: mediaType)
        #expect(blob.mediaType == (mediaType.isEmpty ? LayerCompression.gzip.mediaType : mediaType))
        let labels = try #require(room.content.labels(blob))
        #expect(
            labels["l"] == "m"
                && (labels[Differ.uncompressedLabel] == nil) == (mediaType == LayerCompression.none.mediaType)
        )

        let copy = try snapshotter.make(.active, SnapshotKey("copy"), parent: top, labels: [:])
        let applied = try room.apply(blob, to: copy, snapshotter)
        #expect(labels[Differ.uncompressedLabel].map { $0 == applied.digest.description } ?? true)
        try expectEqual(changed, copy)
        // The same once both are committed, where the one is a chain and the other private.
        try snapshotter.commit(SnapshotKey("copied"), from: SnapshotKey("copy"), labels: [:])
        try snapshotter.commit(SnapshotKey("kept"), from: SnapshotKey("changed"), labels: [:])
        #expect(try snapshotter.record(SnapshotKey("copied")).chain != nil)
        #expect(try snapshotter.record(SnapshotKey("kept")).chain == nil)
        let kept = try snapshotter.make(
            .view, SnapshotKey("kept view"), parent: SnapshotKey("kept"), labels: [:])
        let copied = try snapshotter.make(
            .view, SnapshotKey("copied view"), parent: SnapshotKey("copied"), labels: [:])
        try expectEqual(kept, copied)
        #expect(try diff(lower, kept, snapshotter, room, mediaType: mediaType).digest == blob.digest)
        #expect(try diff(lower, copied, snapshotter, room, mediaType: mediaType).digest == blob.digest)
        // From nothing: a layer that is the whole tree.
        let whole = try diff([], kept, snapshotter, room, mediaType: mediaType)
        let alone = try snapshotter.make(.active, SnapshotKey("alone"), parent: SnapshotKey(""), labels: [:])
        _ = try room.apply(whole, to: alone, snapshotter)
        try expectEqual(kept, alone)
    }

    /// A layer that was written of a tree is not read when it is applied: the tree becomes the chain.
    @Test func adopted() throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        let chains = try unpack(try layers(room), snapshotter, room)
        // As a build makes and exports them: two steps, then both layers, then what they give.
        var parent = SnapshotKey("\(chains[1])")
        for (step, script) in [
            "echo 1 >etc/one; rm etc/c; ln etc/one two", "mkdir d; mv two d; chmod 700 etc",
        ]
        .enumerated() {
            let mounts = try snapshotter.make(
                .active, SnapshotKey("step \(step)"), parent: parent, labels: [:])
            try room.run(script, in: mounts)
            parent = SnapshotKey("step \(step) done")
            try snapshotter.commit(parent, from: SnapshotKey("step \(step)"), labels: [:])
        }
        let base = try snapshotter.make(
            .view, SnapshotKey("v"), parent: SnapshotKey("\(chains[1])"), labels: [:])
        let first = try snapshotter.make(
            .view, SnapshotKey("v0"), parent: SnapshotKey("step 0 done"), labels: [:])
        let second = try snapshotter.make(
            .view, SnapshotKey("v1"), parent: SnapshotKey("step 1 done"), labels: [:])
        let upper = try diff(first, second, snapshotter, room)
        let lower = try diff(base, first, snapshotter, room)

        let reads = room.content.reads
        let active = try snapshotter.make(
            .active, SnapshotKey("a"), parent: SnapshotKey("\(chains[1])"), labels: [:])
        let applied = try room.apply(lower, to: active, snapshotter)
        #expect(
            snapshotter.metrics.text(snapshotter.present()).contains(
                "varve_layers_total{outcome=\"adopted\"} 1\n"))
        let chain = chains[1].appending(DiffID(applied.digest))
        try snapshotter.commit(SnapshotKey("\(chain)"), from: SnapshotKey("a"), labels: [:])
        #expect(try snapshotter.record(SnapshotKey("\(chain)")).chain == chain)
        // The next one by its name, as containerd asks for it.
        let labels = try #require(room.content.labels(upper))
        let diffID = try #require(labels[Differ.uncompressedLabel].flatMap { Digest($0) })
        let top = chain.appending(DiffID(diffID))
        #expect(
            code {
                _ = try snapshotter.make(
                    .active, SnapshotKey("b"), parent: SnapshotKey("\(chain)"),
                    labels: [Snapshotter.referenceLabel: "\(top)"])
            } == .alreadyExists)
        #expect(room.content.reads == reads, "no layer was read")
        #expect(try StoreCheck(room.store).run().isEmpty)

        // What the layers themselves give, in a store that knows of neither.
        let other = try DaemonRoom()
        let strange = try other.snapshotter()
        for blob in try layers(room) + [lower, upper] {
            _ = other.content.add(try room.content.copy(blob), blob.mediaType)
        }
        let built = try unpack(try layers(room) + [lower, upper], strange, other)
        #expect(Array(built.suffix(2)) == [chain, top])
        for (layer, name) in zip([chain, top], ["x", "y"]) {
            let found = try snapshotter.make(
                .active, SnapshotKey(name), parent: SnapshotKey(layer == top ? "b" : "\(chain)"), labels: [:])
            let wanted = try strange.make(
                .active, SnapshotKey(name), parent: SnapshotKey("\(layer)"), labels: [:])
            try expectEqual(wanted, found)
        }
        // What a change on top of it is, is told as on any other chain.
        let changed = try snapshotter.make(.active, SnapshotKey("z"), parent: SnapshotKey("b"), labels: [:])
        try room.run("echo 2 >etc/one", in: changed)
        let view = try snapshotter.make(.view, SnapshotKey("w"), parent: SnapshotKey("b"), labels: [:])
        let blob = try diff(view, changed, snapshotter, room, mediaType: LayerCompression.none.mediaType)
        let names = try runSuccessfully(["tar", "-t"], input: room.content.copy(blob)).outputText
        #expect(names == "d/two\netc/one\n" || names == "etc/one\nd/two\n", "\(names)")
    }

    /// What a layer cannot carry must not get into a chain, and a tree that is gone or another cannot become one: then it is read.
    @Test(arguments: [
        Touch(name: "a flag", before: "touch f; chattr +A f"),
        Touch(
            name: "a socket", before: "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"s\")'"),
        Touch(name: "a subvolume", before: "echo x >x; btrfs -q subvolume create sub"),
        Touch(name: "gone", before: "echo x >x", after: "remove"),
        Touch(name: "written to", before: "echo x >x", after: "write"),
    ])
    func notAdopted(_ touch: Touch) throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        let chains = try unpack(try layers(room), snapshotter, room)
        let parent = SnapshotKey("\(chains[1])")
        let step = try snapshotter.make(.active, SnapshotKey("step"), parent: parent, labels: [:])
        try room.run(touch.before, in: step)
        try snapshotter.commit(SnapshotKey("done"), from: SnapshotKey("step"), labels: [:])
        let base = try snapshotter.make(.view, SnapshotKey("v"), parent: parent, labels: [:])
        let view = try snapshotter.make(.view, SnapshotKey("w"), parent: SnapshotKey("done"), labels: [:])
        let layer = try diff(base, view, snapshotter, room)
        if touch.after == "remove" {
            try snapshotter.remove(SnapshotKey("w"))
            try snapshotter.remove(SnapshotKey("done"))
            snapshotter.cleanUp()
        } else if touch.after == "write" {
            try room.run(
                "btrfs property set -f -t subvol .. ro false; echo evil >x; btrfs property set -t subvol .. ro true",
                in: view)
        }
        let reads = room.content.reads
        let active = try snapshotter.make(.active, SnapshotKey("a"), parent: parent, labels: [:])
        let applied = try room.apply(layer, to: active, snapshotter)
        #expect(room.content.reads == reads + 1)
        try room.run(
            "test ! -e x || test \"$(cat x)\" = x; test ! -e s; test -z \"$(lsattr -R . | grep A)\"",
            in: active)
        try snapshotter.commit(SnapshotKey("c"), from: SnapshotKey("a"), labels: [:])
        #expect(
            try snapshotter.record(SnapshotKey("c")).chain == chains[1].appending(DiffID(applied.digest)))
    }

    private func expectEqual(_ left: [SnapshotMount], _ right: [SnapshotMount]) throws {
        let first = try FileDescriptor.workingDirectory.openDirectory(BytePath(#require(left.first).source))
        let second = try FileDescriptor.workingDirectory.openDirectory(BytePath(#require(right.first).source))
        #expect(try TreeCompare.differences(first.fd, second.fd).isEmpty)
    }

    /// A tree that somebody has mounted is written to where it is.
    @Test func mounted() throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        let mounts = try snapshotter.make(.active, SnapshotKey("k"), parent: SnapshotKey(""), labels: [:])
        let source = try #require(mounts.first).source
        let point = "\(room.volume.path)/point"
        try runSuccessfully(["sh", "-euc", "mkdir \(point); mount --bind '\(source)' \(point)"])
        defer { _ = try? runCommand(["umount", point]) }
        _ = try room.apply(room.content.add(Self.base + endOfTar), to: mounts, snapshotter)
        try runSuccessfully(["test", "-f", "\(point)/etc/a"])
        try snapshotter.commit(SnapshotKey("c"), from: SnapshotKey("k"), labels: [:])
        #expect(try snapshotter.record(SnapshotKey("c")).chain == nil)
    }

    /// A call that was cancelled leaves nothing.
    @Test func cancelled() throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        let mounts = try snapshotter.make(.active, SnapshotKey("k"), parent: SnapshotKey(""), labels: [:])
        let cancellation = Cancellation()
        cancellation.cancel()
        let differ = Differ(snapshotter, logger: DaemonRoom.quiet)
        let layer = room.content.add(Self.base + endOfTar)
        #expect(
            code {
                _ = try differ.apply(
                    layer, to: mounts, synchronizes: false, from: room.content,
                    memory: 8 << 20,
                    cancellation)
            } == .cancelled)
        #expect(
            code {
                _ = try differ.diff(
                    from: [], to: mounts, mediaType: "", reference: "", labels: [:], latestTime: nil,
                    into: room.content,
                    threads: 1, cancellation)
            } == .cancelled)
        try room.run("test -z \"$(ls -A)\"; touch still-writable", in: mounts)
    }
}
