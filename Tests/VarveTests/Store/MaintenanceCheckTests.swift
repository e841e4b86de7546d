import VarveArchive
import VarveBtrfs
import VarveLayers
import VarveOCI
import VarveSystem
import TestSupport
import Testing

@testable import VarveStore

/// `store check`, and what is never used again.
@Suite struct MaintenanceCheckTests {
    /// What somebody does to the store. `$chain` is the topmost chain's directory, `$store` the store's.
    struct Damage: Sendable, CustomTestStringConvertible {
        var name: String
        var script: String
        /// Begins the problem that is found; nil if nothing is wrong.
        var problem: String?
        /// Whether the chain is used by the next unpack.
        var isUsed: Bool
        /// Whether --repair removes it.
        var isRepaired = true
        var testDescription: String { name }
    }

    static let damages = [
        // Reading and taking snapshots of a chain leave it as it is.
        Damage(
            name: "read and snapshot",
            script: "cat $chain/rootfs/etc/* >/dev/null; btrfs -q subvolume snapshot $chain copy",
            problem: nil, isUsed: true),
        // To and fro, with nothing written between.
        Damage(
            name: "writable and back",
            script: "btrfs property set $chain ro false; btrfs property set $chain ro true", problem: nil,
            isUsed: true),
        // Somebody may be writing to it at this moment.
        Damage(
            name: "writable", script: "btrfs property set $chain ro false",
            problem: "it was made writable after it was published", isUsed: false),
        Damage(
            name: "content changed",
            script:
                "btrfs property set $chain ro false; echo x >>$chain/rootfs/etc/os; btrfs property set $chain ro true",
            problem: "it was changed after it was published", isUsed: false),
        // Nothing but a time.
        Damage(
            name: "time changed",
            script:
                "btrfs property set $chain ro false; touch -d @5 $chain/rootfs/etc/os; btrfs property set $chain ro true",
            problem: "it was changed after it was published", isUsed: false),
        Damage(
            name: "attribute changed",
            script:
                "btrfs property set $chain ro false; setfattr -n user.x -v y $chain/rootfs/etc; btrfs property set $chain ro true",
            problem: "it was changed after it was published", isUsed: false),
        // Written by a descriptor that was open before the chain became read-only again.
        Damage(
            name: "written late",
            script:
                "btrfs property set $chain ro false; exec 9>>$chain/rootfs/etc/os; btrfs property set $chain ro true; sync; echo x >&9",
            problem: "it was changed after it was published", isUsed: false),
        // The same, and it has not left the memory yet.
        Damage(
            name: "overwritten late, not written out",
            script:
                "btrfs property set $chain ro false; exec 9<>$chain/rootfs/etc/passwd; btrfs property set $chain ro true; sync; printf x >&9",
            problem: "it was changed after it was published", isUsed: false),
        // A changed copy under the old name: nothing was written to it after it became what it is.
        Damage(
            name: "replaced",
            script:
                "btrfs -q subvolume snapshot $chain copy; echo x >copy/rootfs/etc/os; btrfs -q subvolume delete $chain; btrfs -q subvolume snapshot -r copy $chain",
            problem: "it is not what was published under that name", isUsed: false),
        Damage(
            name: "made by hand",
            script:
                "btrfs -q subvolume delete $chain; btrfs -q subvolume create $chain; mkdir $chain/rootfs; btrfs property set $chain ro true",
            problem: "it does not say what it was published as", isUsed: false),
        Damage(
            name: "file in chains", script: "echo mine >$store/chains/notes",
            problem: "it is not named as a chain",
            isUsed: true, isRepaired: false),
        Damage(
            name: "leftover", script: "echo x >$store/.store.json.abc",
            problem: "an interrupted command left it",
            isUsed: true),
        Damage(
            name: "mode", script: "chmod 777 $store/chains", problem: "others may write to it", isUsed: true),
    ]

    @Test(
        "What was changed after it was made is found without reading it, not used, and built anew",
        arguments: damages)
    func damage(_ damage: Damage) throws {
        let world = try StoreWorld(size: 512 << 20)
        let layers = try storeSampleLayers()
        try world.addImage("a", layers)
        try world.unpack("a")
        let top = try world.chainNames(layers)[2]
        #expect(try StoreCheck(try world.store()).run() == [])
        try world.shell("store=store chain=store/chains/\(top)\n\(damage.script)")

        let findings = try StoreCheck(try world.store()).run()
        if let problem = damage.problem {
            #expect(findings.count == 1 && findings[0].problem.hasPrefix(problem), "\(findings)")
        } else {
            #expect(findings == [])
        }
        let result = try world.unpack("a", "next")
        #expect(result.layersInPlace == (damage.isUsed ? 3 : 2))
        #expect(world.log.count("the chain \(top) is not used") == (damage.isUsed ? 0 : 1))
        let next = try world.open("next/rootfs")
        let reference = try world.reference(layers)
        #expect(try TreeCompare.differences(reference.fd, next.fd) == [])
        let chain = try world.open("store/chains/\(top)/rootfs")
        #expect(try TreeCompare.differences(reference.fd, chain.fd) == [])

        let repairs = try StoreCheck(try world.store(), repairs: true).run()
        // An unpack has put right what is wrong with a chain.
        let isLeft = damage.problem != nil && damage.isUsed
        #expect(repairs.map(\.isRepaired) == (isLeft ? [damage.isRepaired] : []), "\(repairs)")
        #expect(
            try StoreCheck(try world.store()).run().count == (isLeft && !damage.isRepaired ? 1 : 0))
        try world.expectClean()
    }

    /// What users of btrfs do to a file system as a whole, and to what lies on it. `$big` and `$twin` are files of one content.
    static let harmless = [
        (name: "deduplicated", script: "dedupe $twin $big"),
        (
            name: "deduplicated with a new extent",
            script: "cp --reflink=never $big new; sync; dedupe new $big"
        ),
        (
            name: "defragmented and compressed",
            script:
                "btrfs property set $chain ro false; btrfs filesystem defragment -f -czstd $big; btrfs property set $chain ro true"
        ),
        (name: "balanced", script: "btrfs balance start --full-balance ."),
        (name: "scrubbed", script: "btrfs scrub start -B ."),
        (
            name: "compressed by a property",
            script:
                "btrfs property set $big compression zstd || true; btrfs property set store compression zstd"
        ),
        (
            name: "a device added and removed",
            script: "loop; btrfs device add -f $device .; btrfs device remove $device ."
        ),
        (
            name: "a device replaced",
            script: "old=$(findmnt -no SOURCE .); loop; btrfs replace start -f -B $old $device ."
        ),
    ]

    /// FIDEDUPERANGE of a whole file: ioctl_fideduperange(2).
    private static let dedupe = """
        import fcntl, os, struct, sys
        source, target = (os.open(path, os.O_RDONLY) for path in sys.argv[1:])
        size = os.fstat(source).st_size // 4096 * 4096
        request = bytearray(struct.pack("<QQHHIqQQiI", 0, size, 1, 0, 0, target, 0, 0, 0, 0))
        fcntl.ioctl(source, 0xc0189436, request)
        assert struct.unpack("<QQHHIqQQiI", request)[7:9] == (size, 0), request
        """

    @Test("What changes no file leaves a chain as it is", arguments: harmless.indices)
    func unchanged(_ index: Int) throws {
        let world = try StoreWorld(size: 512 << 20)
        let big = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* $0 >> 7) }
        let layers = try [
            StoreLayer([.directory("./"), .bytes("big", big), .bytes("twin", big), .file("small", "s")]),
            StoreLayer([.file("top", "t")]),
        ]
        try world.addImage("a", layers)
        try world.unpack("a")
        try world.shell("echo changed >bundle/rootfs/small")
        for chain in try world.chainNames(layers).prefix(1) {
            try world.shell(
                """
                exec >/dev/null; dedupe='\(Self.dedupe)'
                chain=store/chains/\(chain) big=$chain/rootfs/big
                twin=$chain/rootfs/twin
                loop() {
                    image=${TMPDIR:-/var/tmp}/varve-test-$$.img; truncate -s 600M "$image"
                    device=$(losetup -f --show "$image"); rm "$image"
                    # While it is in use, this only says that it goes with its last user (loop_clr_fd, drivers/block/loop.c).
                    trap 'losetup -d $device' EXIT
                }
                dedupe() { python3 -c "$dedupe" "$1" "$2"; }
                \(Self.harmless[index].script)
                """)
        }
        #expect(try StoreCheck(try world.store()).run() == [], "\(Self.harmless[index].name)")
        #expect(try world.unpack("a", "next").layersInPlace == 2)
        #expect(try world.diff("bundle") == ["M small"])
        #expect(try world.diff("bundle", source: .walk) == ["M small"])
        // And an edit is still found.
        let bottom = try world.chainNames(layers)[0]
        try world.shell(
            """
            chain=store/chains/\(bottom)
            btrfs property set $chain ro false; t=$(stat -c %y $chain/rootfs/big)
            printf x | dd of=$chain/rootfs/big conv=notrunc status=none; touch -d "$t" $chain/rootfs/big
            btrfs property set $chain ro true
            """)
        #expect(try StoreCheck(try world.store()).run().count == 1)
    }

    @Test("An inode that bears a later transaction counts as changed where nobody wrote down its time")
    func missingTimes() throws {
        let world = try StoreWorld(size: 512 << 20)
        let layers = try storeSampleLayers()
        try world.addImage("a", layers)
        try world.unpack("a")
        let store = try world.store()
        let chain = try #require(try store.chains.all().first)
        var search = TreeSearch(chain.subvolume.fd)
        var times: [UInt64: Timestamp] = [:]
        try search.forEachInode(changedSince: 0) { times[$0.inode] = $0.changeTime }
        #expect(times.count > 3)
        #expect(store.chains.times.holds(times, of: chain.info.uuid))
        for (inode, time) in times {
            // A clock that was set back, while an edit was made.
            let earlier = Timestamp(seconds: time.seconds - 1, nanoseconds: time.nanoseconds)
            #expect(!store.chains.times.holds([inode: earlier], of: chain.info.uuid))
        }
        #expect(!store.chains.times.holds([1 << 40: .epoch], of: chain.info.uuid))
        try world.shell("for f in store/published/*; do printf x >>$f; done")
        #expect(!store.chains.times.holds(times, of: chain.info.uuid))
        try world.shell("rm store/published/*")
        #expect(!store.chains.times.holds(times, of: chain.info.uuid))
    }

    @Test("A write that only the log of a crashed file system has is found all the same")
    func logReplay() throws {
        let world = try StoreWorld(size: 512 << 20)
        let layers = try storeSampleLayers()
        try world.addImage("a", layers)
        try world.unpack("a")
        let top = try world.chainNames(layers)[2]
        // What is on disk after the fsync, and before the commit: the tree of the log holds the change.
        try world.shell(
            """
            btrfs property set store/chains/\(top) ro false
            sync -f .
            echo x >>store/chains/\(top)/rootfs/etc/os
            sync store/chains/\(top)/rootfs/etc/os
            """)
        let chain = try world.open("store/chains/\(top)")
        let info = try chain.fd.subvolumeInfo()
        #expect(info.changeTransaction > info.originTransaction)
        var search = TreeSearch(chain.fd)
        #expect(try search.hasInode(changedAfter: info.originTransaction))
        #expect(try !search.hasInode(changedAfter: info.changeTransaction))
    }

    @Test("--repair removes a changed chain, and the bundle that came from it says what to do")
    func repair() throws {
        let world = try StoreWorld(size: 512 << 20)
        let layers = try storeSampleLayers()
        try world.addImage("a", layers)
        try world.unpack("a")
        let top = try world.chainNames(layers)[2]
        try world.shell("cd store/chains\nbtrfs property set \(top) ro false\nrm -r \(top)/rootfs/etc")
        let findings = try StoreCheck(try world.store(), repairs: true).run()
        #expect(findings.map(\.repair) == ["deleted it; it is built anew where it is needed"])
        #expect(try world.chains.count == 2)
        #expect { try world.diff("bundle") } throws: { isStoreError($0, .notFound) }
        try world.unpack("a", "again")
        #expect(try world.diff("bundle") == [])
    }

    @Test("--deep finds a tree that is not its layers', whatever the records say")
    func deep() throws {
        let world = try StoreWorld(size: 512 << 20)
        let layers = try storeSampleLayers()
        try world.addImage("a", layers)
        try world.unpack("a")
        let images = [try world.layout().selection(of: nil)]
        var report = try StoreCheck(try world.store()).compare(with: images)
        #expect(report.findings == [] && report.compared.count == 3)
        // A chain published from a tree that is wrong: everything the file system records is in order.
        let names = try world.chainNames(layers)
        try world.shell(
            """
            cd store
            btrfs -q subvolume delete chains/\(names[1])
            btrfs -q subvolume snapshot chains/\(names[2]) other
            setfattr -n user.varve.published -v "$(printf '%s\\n%s\\n%s\\nx' \(names[1]) \
            $(btrfs subvolume show other | awk '$1 == "UUID:" {print $2}') \(names[0]))" other
            python3 -c 'import os; a = "user.varve.published"; v = os.getxattr("other", a); os.setxattr("other", a, v[:-1])'
            btrfs -q subvolume snapshot -r other chains/\(names[1])
            btrfs -q subvolume delete other
            """)
        #expect(try StoreCheck(try world.store()).run() == [])
        report = try StoreCheck(try world.store(), repairs: true).compare(with: images)
        #expect(report.findings.count == 1)
        #expect(report.findings.first?.path == BytePath("chains/\(names[1])"))
        #expect(report.findings.first?.problem.hasPrefix("its tree is not that of its layers: ") == true)
        #expect(try world.chains == [names[0], names[2]].sorted())
        try world.expectClean()
    }

    @Test("--deep says which chain cannot be compared, and goes on with the others")
    func incomparable() throws {
        let world = try StoreWorld(size: 512 << 20)
        // More names than the kernel lists (XATTR_LIST_MAX, 64 KiB).
        var file = StoreEntry.file("many")
        file.entry.extendedAttributes = (0..<8_000).map {
            ExtendedAttribute(name: BytePath("user.a\(10_000 + $0)"), value: [])
        }
        let many = [try StoreLayer([file])]
        let layers = try storeSampleLayers()
        try world.addImage("a", many)
        try world.addImage("b", layers)
        try world.addImage("c", many)
        for tag in ["a", "b", "c"] { try world.unpack(tag, tag) }
        let images = [try world.layout().selection(of: nil)]
        let report = try StoreCheck(try world.store()).compare(with: images)
        #expect(report.findings.count == 1 && report.compared.count == 3)
        let (first, name) = (try #require(report.findings.first), try world.chainNames(many)[0])
        #expect(first.path == BytePath("chains/\(name)"))
        #expect(
            first.problem.hasPrefix(
                "it cannot be compared with its layers: cannot read the attributes of \"many\": "),
            "\(first)")
        try world.expectClean()
    }

    @Test("Snapshots of users and states of refreshed bundles are looked at, and what is a user's stays")
    func others() throws {
        let world = try StoreWorld(size: 512 << 20)
        try world.addImage("a", try storeSampleLayers())
        try world.unpack("a")
        try world.store().createSnapshot(of: world.bundle(), name: "kept")
        try world.store().createSnapshot(of: world.bundle(), name: "changed")
        try world.shell("echo x >bundle/rootfs/x")
        try world.repack("bundle", "b") { $0.refreshesBundle = true }
        #expect(try StoreCheck(try world.store()).run() == [])
        try world.shell(
            """
            btrfs property set store/snapshots/kept ro false
            btrfs property set store/snapshots/changed ro false
            echo y >store/snapshots/changed/rootfs/y
            btrfs property set store/snapshots/changed ro true
            btrfs -q subvolume delete bundle
            """)
        let findings = try StoreCheck(try world.store(), repairs: true).run()
        #expect(
            findings.map { $0.problem } == [
                "it was changed after it was taken", "it was made writable after it was taken",
            ])
        #expect(findings.map(\.isRepaired) == [false, true])
        #expect(try world.names(in: "store/snapshots") == ["changed", "kept"])
        // The state of a bundle that was deleted by hand is for garbage collection.
        #expect(try world.names(in: "store/refreshed").count == 1)
        _ = try GarbageCollection(try world.store(), options: .init()).run()
        #expect(try world.names(in: "store/refreshed") == [])
        #expect(try StoreCheck(try world.store()).run().count == 1)
    }
}
