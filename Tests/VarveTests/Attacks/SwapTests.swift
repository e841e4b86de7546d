import Glibc
import SystemPackage
import TestSupport
import Testing
import VarveArchive
import VarveSystem

@testable import VarveStore

/// What the owner of a directory can do with the names in it: give them to other files and directories of root's, which lie there
/// too. Each moment is made certain by a stop (`racePoint`).
@Suite(.serialized) struct SwapTests {
    private static let user = NeighbourTests.user

    /// Runs a command line in the volume's root, stopped at each point of that name for the script of its number, or for none.
    /// Returns its exit code.
    @discardableResult
    private func run(
        _ words: [String], in world: StoreWorld, stopAt point: String, attacks: [Int: String],
        isEachReached: Bool = true
    ) throws -> CInt {
        let process = try VarveProcess(words, in: world.path, stopAt: point)
        var status: CInt = 0
        var stops = 0
        while process.hasStopped(&status) {
            if let attack = attacks[stops] { try world.shell(attack) }
            stops += 1
            kill(process.pid, SIGCONT)
        }
        #expect(stops > (isEachReached ? attacks.keys.max() ?? 0 : 0), "it stopped \(stops) times")
        // WIFEXITED and WEXITSTATUS of wait(2).
        return status & 0x7f == 0 ? (status >> 8) & 0xff : -1
    }

    /// Unpacks the image `a` by the command.
    private func makeBundle(in world: StoreWorld, by driver: BytePath = "auto") throws {
        let unpacked = varve(
            "--store", world.storePath, "unpack", "--driver", driver, "--image",
            world.layoutPath.appendingBytes(":a"), world.bundle())
        try #require(unpacked.code == 0, "\(unpacked)")
    }

    @Test("What has the name of a folder of blobs, and was not made now, is given to nobody")
    func foreignFolderOfBlobs() throws {
        let world = try StoreWorld(makesStore: false)
        try world.addImage("a", [try StoreLayer([.directory("./")])])
        try world.shell(
            "chown -R \(Self.user) layout; mv layout/blobs aside; mkdir -m 700 layout/blobs; echo x > layout/blobs/file"
        )
        _ = varve("new", "--image", world.layoutPath.appendingBytes(":new"))
        #expect(try world.shell("stat -c '%u %a' layout/blobs layout/blobs/file") == "0 700\n0 644\n")
    }

    @Test("A directory that takes the place of a new folder of blobs is given to nobody", arguments: [0, 1])
    func swappedFolderOfBlobs(_ stop: Int) throws {
        let world = try StoreWorld(makesStore: false)
        try world.shell(
            """
            mkdir layout; echo '{"imageLayoutVersion":"1.0.0"}' > layout/oci-layout
            echo '{"schemaVersion":2,"manifests":[]}' > layout/index.json
            chown -R \(Self.user) layout
            """)
        let name = ["blobs", "blobs/sha256"][stop]
        let code = try run(
            ["new", "--image", "layout:a"], in: world, stopAt: "make-blobs",
            attacks: [stop: "mv layout/\(name) layout/made; mkdir -m 700 layout/\(name)"])
        #expect(code == 1)
        #expect(try world.shell("stat -c '%u %a' layout/\(name)") == "0 700\n")
    }

    @Test("A new folder of blobs belongs to the owner of the layout")
    func ownFolderOfBlobs() throws {
        let world = try StoreWorld(makesStore: false)
        try world.shell(
            """
            mkdir layout; echo '{"imageLayoutVersion":"1.0.0"}' > layout/oci-layout
            echo '{"schemaVersion":2,"manifests":[]}' > layout/index.json
            chown -R \(Self.user):7 layout
            """)
        let made = varve("new", "--image", world.layoutPath.appendingBytes(":a"))
        #expect(made.code == 0, "\(made)")
        #expect(
            try world.shell("stat -c '%u:%g %a' layout/blobs layout/blobs/sha256 | uniq")
                == "\(Self.user):7 755\n")
    }

    @Test(
        "The symbolic link that was checked is the one that is followed",
        arguments: ["follow-link", "read-link"])
    func swappedLink(_ point: String) throws {
        let world = try StoreWorld(makesStore: false)
        try world.addImage("a", [try StoreLayer([.directory("./")])])
        try world.shell(
            """
            mkdir home; chown \(Self.user) home
            mkdir -m 700 secret own; echo secret > secret/f; echo harmless > own/f
            ln -s ../own home/link; chown -hR \(Self.user) home/link own
            """)
        let code = try run(
            ["insert", "--image", "layout:a", "--tag", "new", "home/link/f", "/f"], in: world, stopAt: point,
            attacks: [
                0: "ln -s ../secret home/other; chown -h \(Self.user) home/other; mv -T home/other home/link"
            ])
        if point == "read-link" {
            #expect(code == 0)
            #expect(
                varve("raw", "unpack", "--image", world.layoutPath.appendingBytes(":new"), world.bundle())
                    .code == 0)
            #expect(try world.shell("cat bundle/f") == "harmless\n")
        } else {
            #expect(code == 1)
            #expect(varve("ls", "--layout", world.layoutPath).text == "a\n")
        }
    }

    /// Build systems make layouts of links: each document may be one.
    @Test(
        "Documents of a layout are read through links, but through none of another user to what is not theirs"
    )
    func linkedDocuments() throws {
        let world = try StoreWorld(makesStore: false)
        try world.addImage("a", [try StoreLayer([.directory("./")])])
        try world.shell(
            """
            cp -a layout linked; mkdir files
            for f in oci-layout index.json; do mv linked/$f files/; ln -s ../files/$f linked/$f; done
            cp -a linked theirs; chown -h \(Self.user) theirs theirs/*
            """)
        let read = varve("ls", "--layout", world.path.appending("linked"))
        #expect(read.code == 0 && read.text == "a\n", "\(read)")
        let refused = varve("ls", "--layout", world.path.appending("theirs"))
        #expect(
            refused.code == 3 && refused.errorText.contains("is a symbolic link of another user"),
            "\(refused)")
        // A change replaces the link, as with umoci; what it led to stays.
        #expect(varve("tag", "--image", world.path.appending("linked:a"), "b").code == 0)
        #expect(varve("ls", "--layout", world.path.appending("linked")).text == "a\nb\n")
        #expect(
            try world.shell(
                "cmp files/index.json layout/index.json; cat linked/oci-layout | cmp - layout/oci-layout")
                == "")
    }

    @Test("What another user calls a leftover work directory stays as it is")
    func foreignLeftovers() throws {
        let world = try StoreWorld(makesStore: false)
        try world.addImage("a", [try StoreLayer([.directory("./")])])
        try world.shell(
            """
            mkdir home own; chown \(Self.user) home
            for d in home own; do mkdir -m 700 $d/.varve-work-x; echo x > $d/.varve-work-x/f; done
            """)
        for place in ["home", "own"] {
            let run = varve(
                "unpack", "--driver", "directory", "--image", world.layoutPath.appendingBytes(":a"),
                world.path.appending(BytePath("\(place)/new")))
            #expect(run.code == 0, "\(run)")
        }
        #expect(
            try world.shell("ls -A home own; cat home/.varve-work-x/f")
                == "home:\n.varve-work-x\nnew\n\nown:\nnew\nx\n")
    }

    @Test("What takes the name of a bundle while it is deleted stays", arguments: ["directory", "btrfs"])
    func swappedBundle(_ driver: String) throws {
        let world = try StoreWorld()
        try world.addImage("a", [try StoreLayer([.file("f", "x")])])
        try makeBundle(in: world, by: BytePath(driver))
        try world.shell("mkdir -m 700 data; echo x > data/file")
        let code = try run(
            ["bundle", "rm", "bundle"], in: world, stopAt: "discard-bundle",
            attacks: [0: "mv bundle aside; mv data bundle"])
        #expect(code == 1)
        #expect(try world.shell("ls bundle; cat aside/rootfs/f; ls -A | grep work || true") == "file\nx")
    }

    @Test(
        "What takes the name of a bundle while it is deleted stays, also where the name is taken again",
        arguments: ["directory", "btrfs"])
    func swappedTwice(_ driver: String) throws {
        let world = try StoreWorld()
        try world.addImage("a", [try StoreLayer([.file("f", "x")])])
        try makeBundle(in: world, by: BytePath(driver))
        // Beside bundles of a store lie subvolumes.
        try world.shell(
            driver == "btrfs"
                ? "btrfs -q subvolume create data; echo x > data/file" : "mkdir data; echo x > data/file")
        let code = try run(
            ["bundle", "rm", "bundle"], in: world, stopAt: "discard-bundle,put-back",
            attacks: [0: "mv bundle aside; mv data bundle", 1: "mkdir bundle"])
        #expect(code == 1)
        #expect(
            try world.shell("cat bundle.varve-*/file; cat aside/rootfs/f; ls -A bundle store/work")
                == "x\nxbundle:\n\nstore/work:\n")
    }

    @Test("What a killed command had moved away by mistake is deleted by no later one")
    func movedByMistake() throws {
        let world = try StoreWorld()
        try world.addImage("a", [try StoreLayer([.file("f", "x")])])
        try world.shell(
            """
            mkdir -p -m 700 .varve-work-x/discard-5; echo x > .varve-work-x/discard-5/file
            mkdir -p store/work/discard-5-x; echo x > store/work/discard-5-x/file
            btrfs -q subvolume create store/work/discard-6-x; echo x > store/work/discard-6-x/file
            """)
        try makeBundle(in: world, by: "directory")
        let checked = varve("--store", world.storePath, "store", "check")
        #expect(
            checked.code == 1 && checked.text.contains("discard-5-x") && checked.text.contains("discard-6-x"),
            "\(checked)")
        #expect(try world.shell("cat .varve-work-x/discard-5/file store/work/discard-*/file") == "x\nx\nx\n")
        try world.shell(
            "rm -rf .varve-work-x store/work/discard-5-x; btrfs -q subvolume delete store/work/discard-6-x")
    }

    @Test("A bundle of another user that names a chain which they may not read tells nothing of it")
    func foreignChain() throws {
        let world = try StoreWorld()
        try world.addImage("a", [try StoreLayer([.file("secret-name", "x")])])
        try makeBundle(in: world)
        try world.shell(
            """
            btrfs -q subvolume create theirs; mkdir theirs/rootfs; cp bundle/umoci.json theirs
            setfattr -n user.varve.chain -v "$(getfattr --only-values -n user.varve.chain bundle)" theirs
            chown -R \(Self.user) theirs; cp -a theirs copy 2> /dev/null || true
            btrfs -q subvolume snapshot bundle own; chown \(Self.user) bundle
            """)
        let delta = varve("--store", world.storePath, "diff", world.path.appending("theirs"))
        #expect(
            delta.code == 1 && delta.text == "" && delta.errorText.contains("theirs\" belongs to"), "\(delta)"
        )
        // Theirs by now, and a snapshot of the chain all the same; and one of root's that is none.
        for name in ["bundle", "own"] {
            let delta = varve("--store", world.storePath, "diff", world.path.appending(BytePath(name)))
            #expect(delta.code == 0, "\(name): \(delta)")
        }
    }

    @Test("A chain that another user wrote becomes none of root's by way of a snapshot")
    func foreignChainOfSnapshot() throws {
        let world = try StoreWorld()
        try world.addImage("a", [try StoreLayer([.file("secret-name", "x")])])
        try makeBundle(in: world)
        // Two that anybody may write to: one names a chain that the store has, one a chain that it may have once.
        try world.shell(
            """
            chain="$(getfattr --only-values -n user.varve.chain bundle)"
            for name in here later; do
                btrfs -q subvolume create $name; mkdir $name/rootfs; cp bundle/umoci.json $name; chmod 777 $name
            done
            setfattr -n user.varve.chain -v "$chain" here
            setfattr -n user.varve.chain -v "${chain% *} sha256-$(printf %064d 0)" later
            btrfs -q subvolume snapshot -r here store/snapshots/here; btrfs -q subvolume snapshot -r later store/snapshots/later
            """)
        func snapshot(_ words: BytePath...) -> CommandRun {
            varve(["--store", world.storePath, "snapshot"] + words)
        }
        for name in ["here", "later"] as [BytePath] {
            let made = snapshot("create", world.path.appending(name), "new")
            #expect(
                made.code == 1 && made.errorText.contains("others may write to the bundle"),
                "\(name): \(made)")
            let restored = snapshot("restore", name, world.path.appending("restored"))
            #expect(
                restored.code == 1
                    && restored.errorText.contains("others may write to the snapshot \"\(name)\""),
                "\(name): \(restored)")
        }
        #expect(try world.names(in: "store/snapshots") == ["here", "later"])
        #expect(try !world.names(in: ".").contains("restored"))
        // Theirs by now, and a snapshot of the chain all the same.
        try world.shell("chown \(Self.user) bundle")
        #expect(snapshot("create", world.bundle(), "own").code == 0)
        #expect(snapshot("restore", "own", world.path.appending("restored")).code == 0)
        let delta = varve("--store", world.storePath, "diff", world.path.appending("restored"))
        #expect(delta.code == 0 && delta.text == "", "\(delta)")
    }

    @Test("What another user names keeps no chain, and what they have of the chain itself does")
    func foreignPins() throws {
        let world = try StoreWorld()
        try world.addImage("a", [try StoreLayer([.file("f", "x")])])
        try makeBundle(in: world)
        func run(_ words: BytePath...) {
            #expect(varve(["--store", world.storePath] + words).code == 0, "\(words)")
        }
        run("snapshot", "create", world.bundle(), "s")
        run("snapshot", "restore", "s", world.path.appending("mine"))
        try world.shell(
            """
            btrfs -q subvolume create theirs; setfattr -n user.varve.chain -v "$(getfattr --only-values -n user.varve.chain bundle)" theirs
            chown \(Self.user) theirs mine
            """)
        // No snapshot of the chain is left: `mine` says by what root wrote that it comes from it.
        run("snapshot", "rm", "s")
        run("bundle", "rm", world.bundle())
        run("store", "gc")
        #expect(try world.chains.count == 1)
        run("bundle", "rm", world.path.appending("mine"))
        run("store", "gc")
        #expect(try world.chains.count == 0)
    }

    @Test("What root's subvolume names keeps the chain")
    func ownPins() throws {
        let world = try StoreWorld()
        try world.addImage("a", [try StoreLayer([.file("f", "x")])])
        try makeBundle(in: world)
        try world.shell(
            """
            btrfs -q subvolume create own; setfattr -n user.varve.chain -v "$(getfattr --only-values -n user.varve.chain bundle)" own
            """)
        for words in [["bundle", "rm", world.bundle()], ["store", "gc"]] as [[BytePath]] {
            #expect(varve(["--store", world.storePath] + words).code == 0, "\(words)")
        }
        #expect(try world.chains.count == 1)
    }

    @Test("A subvolume that lies in a bundle at the moment of its snapshot alone leaves nothing in the chain")
    func nestedForAMoment() throws {
        let world = try StoreWorld()
        try world.addImage("a", [try StoreLayer([.directory("./"), .file("f", "x")])])
        try makeBundle(in: world)
        try world.shell("echo y > bundle/rootfs/g")
        let code = try run(
            ["repack", "--image", "layout:new", "bundle"], in: world, stopAt: "freeze,frozen",
            attacks: [
                0: "btrfs -q subvolume create bundle/rootfs/nested",
                1: "btrfs -q subvolume delete bundle/rootfs/nested",
            ])
        #expect(code == 0)
        #expect(try world.chains.count == 2)
        #expect(try world.shell("ls store/chains/*/rootfs | grep -c nested || true") == "0\n")
    }

    @Test(
        "A bundle below another mount, which cannot be moved away, is deleted itself, whatever gets its name")
    func swappedOnAnotherMount() throws {
        let world = try StoreWorld()
        try world.shell(
            """
            mkdir home other; chown \(Self.user) home; btrfs -q subvolume create home/b; mkdir home/b/rootfs; echo > home/b/umoci.json
            btrfs -q subvolume create home/b/rootfs/nested; btrfs -q subvolume create home/own; chmod 700 home/own; echo x > home/own/file
            mount --bind . other
            """)
        defer { _ = try? world.shell("umount other") }
        let code = try run(
            ["--store", "store", "bundle", "rm", "other/home/b"], in: world, stopAt: "discard-in-place",
            attacks: [0: "mv home/b home/aside; mv home/own home/b"])
        #expect(code == 0)
        #expect(try world.shell("ls home; cat home/b/file") == "b\nx\n")
    }

    @Test(
        "Nothing is removed or made in a folder of blobs of another user's, to which the owner of a layout has linked it"
    )
    func linkedFolderOfAnother() throws {
        let world = try StoreWorld(makesStore: false)
        try world.addImage("a", [try StoreLayer([.file("f", "x")])])
        try world.shell(
            """
            mkdir home; mv layout home/own; chown \(Self.user) home; cp home/own/oci-layout home/own/index.json home
            chown \(Self.user) home/*.json home/oci-layout; ln -s own/blobs home/blobs; chown -h \(Self.user) home/blobs
            """)
        let before = try world.shell("find home/own -type f | sort")
        let home = world.path.appending("home")
        try world.shell("echo '{\"schemaVersion\":2,\"manifests\":[]}' > home/index.json")
        for words in [
            ["gc", "--layout", home], ["new", "--image", home.appendingBytes(":b")],
        ] as [[BytePath]] {
            #expect(varve(words, variables: [:]).code != 0, "\(words)")
        }
        #expect(try world.shell("find home/own -type f | sort") == before)
    }

    @Test("A program of a hook gets no path that another user can lead elsewhere")
    func pathsOfHooks() throws {
        let world = try StoreWorld(makesStore: false)
        try world.addImage("a", [try StoreLayer([.file("f", "x")])])
        let image = world.layoutPath.appendingBytes(":a")
        #expect(varve("unpack", "--driver", "directory", "--image", image, world.bundle("secret")).code == 0)
        try world.shell(
            """
            mkdir home; chown \(Self.user) home; ln -s ../secret home/link; chown -h \(Self.user) home/link
            printf '[hooks]\\n"unpack.ociv1.layer.post-extract" = { command = ["/bin/true"] }\\n' > hooks.toml
            """)
        let variables = ["VARVE_HOOKS": "\(world.path)/hooks.toml"]
        let home = world.path.appending("home")
        let words: [[BytePath]] = [
            [
                "repack", "--driver", "hooks", "--image", world.layoutPath.appendingBytes(":b"),
                home.appending("link"),
            ],
            ["diff", "--driver", "hooks", home.appending("link")],
            ["unpack", "--driver", "hooks", "--image", image, home.appending("new")],
        ]
        for words in words {
            let run = varve(words, variables: variables)
            #expect(run.code == 1 && run.errorText.contains("another user"), "\(run)")
        }
        #expect(
            try world.shell("ls home") == "link\n" && varve("ls", "--layout", world.layoutPath).text == "a\n")
    }

    @Test("A record with holes is not read into the memory")
    func sparseRecord() throws {
        let world = try StoreWorld(makesStore: false)
        try world.addImage("a", [try StoreLayer([.file("f", "x")])])
        let image = world.layoutPath.appendingBytes(":a")
        #expect(varve("unpack", "--driver", "directory", "--image", image, world.bundle()).code == 0)
        try world.shell("truncate -s 4000000000 bundle/*.record")
        let run = varve("diff", world.bundle())
        #expect(run.code == 1 && run.errorText.contains("File too large"), "\(run)")
    }

    @Test("The attributes of another file are not packed with the content of this one")
    func swappedAttributes() throws {
        let world = try StoreWorld(makesStore: false)
        try world.addImage("a", [try StoreLayer([.file("f", "x")])])
        let image = world.layoutPath.appendingBytes(":a")
        #expect(
            varve("unpack", "--driver", "directory", "--image", image, world.bundle()).code == 0)
        try world.shell(
            "cd bundle/rootfs; echo evil > f; mkdir ../aside; echo good > ../aside/good; setfattr -n user.right -v yes ../aside/good"
        )
        let code = try run(
            ["repack", "--driver", "directory", "--image", "layout:b", "bundle"], in: world,
            stopAt: "read-attributes",
            attacks: [0: "mv bundle/rootfs/f bundle/aside/f; mv bundle/aside/good bundle/rootfs/f"])
        #expect(code == 1)
        #expect(varve("ls", "--layout", world.layoutPath).text == "a\n")
    }

    /// A file that was changed and one that was not, each for a moment under the other's name. What is said of the one must not be taken for
    /// the other's: the change would be missed.
    @Test(
        "A file is not compared by the attributes or the target of another",
        arguments: [("f", "compare-attributes"), ("link", "compare-link")])
    func swappedComparison(_ name: String, _ point: String) throws {
        let world = try StoreWorld(makesStore: false)
        try world.addImage("a", [try StoreLayer([.file("f", "x"), .link("link", .symbolicLink, "good")])])
        let image = world.layoutPath.appendingBytes(":a")
        #expect(varve("unpack", "--driver", "directory", "--image", image, world.bundle()).code == 0)
        try world.shell(
            """
            cd bundle; mkdir aside; cp -a rootfs/\(name) aside/good; touch -r rootfs time
            if [ \(name) = f ]; then setfattr -n user.evil -v yes rootfs/f
            else ln -s evil aside/evil; touch -h -r rootfs/link aside/evil; mv -T aside/evil rootfs/link; fi
            touch -r time rootfs
            """)
        let changes = varve("diff", world.bundle())
        #expect(changes.code == 0 && changes.text == "M \(name)\n", "\(changes)")
        // At each stop the two change places: the one that is looked at is never the one that is asked.
        let swap = """
            cd bundle; mv -T rootfs/\(name) aside/t; mv -T aside/good rootfs/\(name); mv -T aside/t aside/good; touch -r time rootfs
            """
        let code = try run(
            ["repack", "--driver", "directory", "--image", "layout:b", "bundle"], in: world, stopAt: point,
            attacks: Dictionary(uniqueKeysWithValues: (0..<4).map { ($0, swap) }), isEachReached: false)
        #expect(code == 1)
        #expect(varve("ls", "--layout", world.layoutPath).text == "a\n")
    }

    @Test("What is left out is found in a time that does not depend on how much is left out")
    func masks() {
        func time(_ count: Int) -> Double {
            let mask = PathMask((0..<count).map { BytePath("/volume/of/many/\($0)") })
            let changes = (0..<count).map { BytePath("some/changed/file\($0)") }
            return ProcessorTime.least {
                #expect(!changes.contains { mask.covers($0) })
            }
        }
        #expect(ProcessorTime.isInProportion(time(1_000), toEightTimesAsMuch: time(8_000)))
        let mask = PathMask(["/a/b", "c/../d/", "x"])
        for path in ["a/b", "a/b/c", "d", "d/e/f", "x/y"] as [BytePath] {
            #expect(mask.covers(path), "\(path)")
        }
        for path in [".", "a", "a/bb", "c", "xy"] as [BytePath] { #expect(!mask.covers(path), "\(path)") }
        #expect(PathMask(["/"]).covers(".") && PathMask(["/"]).covers("a/b"))
    }

    @Test("What is left out takes no more memory than its paths, and is just that")
    func masksOfManyComponents() {
        let paths = (0..<100).map { BytePath("/\($0)/" + String(repeating: "a/", count: 1_900)) }
        #expect(PathMask(paths).size <= paths.reduce(0) { $0 + $1.count })
        // What lies below another says nothing new.
        #expect(PathMask((0..<100).map { BytePath("a/\($0)") } + ["./a/"]).size == 1)
        // Names with bytes before and behind the slash, in all orders.
        var random = HistoryRandom(seed: 7)
        func path() -> BytePath {
            let names = ["a", "a!", "a-", "a0", "!", "b", "..", "."] as [BytePath]
            return BytePath(
                joining: (0..<random.below(5)).map { _ in names[random.below(names.count)] })
        }
        for _ in 0..<300 {
            let masked = (0..<random.below(6)).map { _ in path() }
            let mask = PathMask(masked)
            for _ in 0..<30 {
                let asked = path()
                let isBelow = masked.contains {
                    asked.cleaned.components.starts(with: $0.cleaned.components)
                }
                #expect(mask.covers(asked) == isBelow, "\(masked) \(asked)")
            }
        }
    }
}
