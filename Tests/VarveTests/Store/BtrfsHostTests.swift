import Logging
import VarveBtrfs
import VarveLayers
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage
import TestSupport
import Testing

@testable import VarveCommands

/// What users of btrfs do to a host with a store on it.
@Suite struct BtrfsHostTests {
    private static func run(_ store: BytePath?, _ words: [BytePath]) -> CommandRun {
        varve(words, variables: store.map { ["VARVE_STORE": "\($0)"] } ?? [:])
    }

    private static func addImage(to shop: borrowing Workshop, _ tag: String = "a") throws {
        let bundle = shop.bundle("seed-\(tag)")
        #expect(shop.text("unpack", "--image", shop.image("empty"), bundle) == "")
        try shell("cd \"$1/rootfs\"; echo a > f; mkdir d; echo b > d/g; mkdir mnt", bundle)
        #expect(shop.text("repack", "--image", shop.image(tag), bundle) == "")
        #expect(shop.text("bundle", "rm", bundle) == "")
    }

    /// How many blobs the layout has.
    private static func blobs(_ shop: borrowing Workshop) throws -> Int {
        let opened = try FileDescriptor.workingDirectory.openDirectory(shop.layout.appending("blobs/sha256"))
        return try opened.fd.entries().count
    }

    /// The store lies in a subvolume whose snapshot takes its place: empty directories with inode number 2 stand for
    /// chains, bundles, snapshots and states of refreshed bundles.
    @Test func rollbackLeavesStubsThatCountAsAbsent() throws {
        let shop = try Workshop()
        try Self.addImage(to: shop)
        let (before, after) = (shop.bundle("before"), shop.bundle("after"))
        try runSuccessfully(["btrfs", "-q", "subvolume", "create", "\(before)"])
        let old = before.appending("store")
        for words in [
            ["store", "init", old], ["unpack", "--image", shop.image("a"), old.appending("bundles/b")],
            ["snapshot", "create", old.appending("bundles/b"), "kept"],
        ] as [[BytePath]] {
            let run = Self.run(old, words)
            #expect(run.code == 0 && run.errors.isEmpty, "\(words): \(run)")
        }
        try shell("echo x > \"$1/rootfs/x\"", old.appending("bundles/b"))
        let refresh = Self.run(
            old, ["repack", "--refresh-bundle", "--image", shop.image("r"), old.appending("bundles/b")])
        #expect(refresh.code == 0, "\(refresh)")
        // A work subvolume of a command that runs at that moment is a stub, too.
        try runSuccessfully(["btrfs", "-q", "subvolume", "create", "\(old.appending("work/abcdefghijkl"))"])
        try runSuccessfully(["btrfs", "-q", "subvolume", "snapshot", "\(before)", "\(after)"])
        try runSuccessfully(["btrfs", "-q", "subvolume", "delete", "\(old.appending("work/abcdefghijkl"))"])
        let store = after.appending("store")
        let chains = try FileDescriptor.workingDirectory.openDirectory(store.appending("chains"))
        let stubs = try chains.fd.entries()
        #expect(stubs.count >= 2)
        for stub in stubs { #expect(try chains.fd.status(of: stub.name).inode == 2) }

        let check = Self.run(store, ["store", "check"])
        #expect(check.code == 1 && check.text.contains("it counts as absent"), "\(check)")
        for words in [
            ["store", "ls"], ["snapshot", "ls"],
            ["unpack", "--image", shop.image("a"), store.appending("bundles/b")],
            ["diff", store.appending("bundles/b")],
            ["snapshot", "create", store.appending("bundles/b"), "kept"],
            ["snapshot", "restore", "kept", store.appending("bundles/c")], ["store", "gc"],
            ["store", "check", "--repair"], ["store", "check"],
            ["unpack", "--image", shop.image("r"), store.appending("bundles/d")],
        ] as [[BytePath]] {
            let run = Self.run(store, words)
            #expect(run.code == 0 && run.errors.isEmpty, "\(words): \(run)")
        }
        for place in ["chains", "snapshots", "refreshed", "bundles"] {
            let opened = try FileDescriptor.workingDirectory.openDirectory(store.appending(place))
            for entry in try opened.fd.entries() {
                #expect(try opened.fd.status(of: entry.name).inode == 256, "\(place)/\(entry.name)")
            }
        }
        #expect(Self.run(store, ["store", "ls", "-q"]).text.split(separator: "\n").count >= 2)
    }

    struct Place: Sendable, CustomTestStringConvertible {
        var testDescription: String
        /// Of the bundle, below the volume.
        var bundle: BytePath
    }

    @Test(arguments: [
        Place(testDescription: "in the store's directory", bundle: "store/bundles/a"),
        Place(testDescription: "elsewhere on its btrfs", bundle: "web/a"),
    ])
    func bundleFindsItsStore(_ place: Place) throws {
        let shop = try Workshop()
        try Self.addImage(to: shop)
        let bundle = shop.bundle("\(place.bundle)")
        let unpack = Self.run(nil, ["--store", shop.store, "unpack", "--image", shop.image("a"), bundle])
        #expect(unpack.code == 0 && unpack.errors.isEmpty, "\(unpack)")
        try shell("echo n > \"$1/rootfs/n\"", bundle)
        // Another store in the environment is not that of the bundle.
        for elsewhere in [nil, "/nonexistent" as BytePath?] {
            let diff = Self.run(elsewhere, ["diff", bundle])
            #expect(diff.text == "M .\nA n\n" && diff.code == 0 && diff.errors.isEmpty, "\(diff)")
        }
        for words in [
            ["snapshot", "create", bundle, "s"], ["repack", "--image", shop.image("b"), bundle],
            ["--store", shop.store, "snapshot", "restore", "s", shop.bundle("restored")],
            ["diff", shop.bundle("restored")], ["bundle", "rm", bundle, shop.bundle("restored")],
        ] as [[BytePath]] {
            let run = Self.run(nil, words)
            #expect(run.code == 0 && run.errors.isEmpty, "\(words): \(run)")
        }
        // One that is to be made in a store's directory is made by that store.
        let made = Self.run(nil, ["unpack", "--image", shop.image("b"), shop.store.appending("bundles/new")])
        #expect(made.code == 0 && made.errors.isEmpty, "\(made)")
        // What is named is what is used.
        let wrong = Self.run(nil, ["--store", "/nonexistent", "diff", shop.store.appending("bundles/new")])
        #expect(wrong.code == 4, "\(wrong)")
    }

    @Test func swapFileIsNamed() throws {
        let shop = try Workshop()
        try Self.addImage(to: shop)
        let bundle = shop.bundle("b")
        #expect(shop.text("unpack", "--image", shop.image("a"), bundle) == "")
        try shell(
            """
            cd "$1/rootfs"; truncate -s 0 'swap file'; chattr +C 'swap file'; fallocate -l 16M 'swap file'
            chmod 600 'swap file'; mkswap 'swap file' >/dev/null; swapon 'swap file'
            """, bundle)
        let file = bundle.appending("rootfs/swap file")
        defer { _ = try? runCommand(["swapoff", "\(file)"]) }
        for words in [
            ["diff", bundle], ["snapshot", "create", bundle, "s"],
            ["repack", "--image", shop.image("b"), bundle],
            ["diff", bundle, bundle],
        ] as [[BytePath]] {
            let run = shop.run(words)
            #expect(
                run.code == 5 && run.errorText.contains("\"\(file)\" is a swap file in use"),
                "\(words): \(run)")
            #expect(run.errorText.contains("swapoff"), "\(run)")
        }
        try runSuccessfully(["swapoff", "\(file)"])
        #expect(shop.text("diff", bundle) == "M .\nA swap file\n")
        #expect(try shop.entries("work") == [])
    }

    @Test func refreshOfReadOnlyBundleChangesNothing() throws {
        let shop = try Workshop()
        try Self.addImage(to: shop)
        let bundle = shop.bundle("b")
        #expect(shop.text("unpack", "--image", shop.image("a"), bundle) == "")
        try shell("echo n > \"$1/rootfs/n\"; btrfs property set \"$1\" ro true", bundle)
        let tags = shop.text("ls", "--layout", shop.layout)
        let run = shop.run("repack", "--refresh-bundle", "--image", shop.image("new"), bundle)
        #expect(run.code == 1 && run.errorText.contains("is read-only and cannot be refreshed"), "\(run)")
        #expect(shop.text("ls", "--layout", shop.layout) == tags)
        #expect(try shop.entries("refreshed") == [])
        // Without a refresh nothing is written to it.
        #expect(shop.text("repack", "--image", shop.image("new"), bundle) == "")
    }

    struct Obstacle: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var driver = "btrfs"
        /// Sets it, with the volume as `$1` and the bundle as `$2`.
        var script: String
        var undo: String
        /// What the message names.
        var named: String
    }

    @Test("Root of the host is told of flags, not to be root of the host")
    func flagOfTheWorkArea() throws {
        let shop = try Workshop()
        try shell("chattr +a \"$1/store/work\"", shop.volume.path)
        let run = shop.run("unpack", "--image", shop.image("empty"), shop.bundle("b"))
        try shell("chattr -a \"$1/store/work\"; rm -rf \"$1\"/store/work/*", shop.volume.path)
        #expect(run.code == 5 && run.errorText.contains("lsattr -d"), "\(run)")
        #expect(!run.errorText.contains("root of the host"), "\(run)")
    }

    /// All that a refresh changes is looked at before the image is tagged.
    @Test(
        "What forbids to refresh a bundle is found before the image changes",
        arguments: [
            Obstacle(
                testDescription: "umoci.json, immutable", script: "chattr +i b/umoci.json",
                undo: "chattr -i b/umoci.json", named: "b/umoci.json\" bears the flag i of chattr(1)"),
            Obstacle(
                testDescription: "umoci.json of a plain directory", driver: "directory",
                script: "chattr +i b/umoci.json", undo: "chattr -i b/umoci.json",
                named: "b/umoci.json\" bears the flag i of chattr(1)"),
            Obstacle(
                testDescription: "the record", driver: "directory", script: "chattr +i b/*.record",
                undo: "chattr -i b/*.record", named: ".record\" bears the flag i of chattr(1)"),
            Obstacle(
                testDescription: "the mtree file", script: "chattr +a b/*.mtree", undo: "chattr -a b/*.mtree",
                named: ".mtree\" bears the flag a of chattr(1)"),
            Obstacle(
                testDescription: "the bundle, append-only", script: "chattr +a b", undo: "chattr -a b",
                named: "/b\" bears the flag a of chattr(1)"),
            Obstacle(
                testDescription: "the bundle, immutable", driver: "directory", script: "chattr +i b",
                undo: "chattr -i b", named: "/b\" bears the flag i of chattr(1)"),
            Obstacle(
                testDescription: "the store", script: "chattr +i store/refreshed",
                undo: "chattr -i store/refreshed", named: "store/refreshed\" bears the flag i of chattr(1)"),
            Obstacle(
                testDescription: "a mount", script: "mount --bind L/oci-layout b/umoci.json",
                undo: "umount b/umoci.json", named: "is no bundle"),
            Obstacle(
                testDescription: "a mount of the same", driver: "directory",
                script: "cp b/umoci.json j; mount --bind j b/umoci.json", undo: "umount b/umoci.json",
                named: "something is mounted at"),
        ])
    func refreshLooksFirst(_ obstacle: Obstacle) throws {
        let shop = try Workshop()
        try Self.addImage(to: shop)
        let bundle = shop.bundle("b")
        #expect(
            shop.text(
                "unpack", "--mtree", "--driver", BytePath(obstacle.driver), "--image", shop.image("a"), bundle
            )
                == "")
        try shell("echo n > \"$1/rootfs/n\"", bundle)
        let files = try runSuccessfully(["sh", "-c", "cd '\(bundle)'; sha256sum *.* umoci.json"]).outputText
        let tags = shop.text("ls", "--layout", shop.layout)
        let blobs = try Self.blobs(shop)
        try shell("cd \"$1\"; \(obstacle.script)", shop.volume.path)
        let run = shop.run("repack", "--refresh-bundle", "--image", shop.image("new"), bundle)
        try shell("cd \"$1\"; \(obstacle.undo)", shop.volume.path)
        #expect(run.code != 0, "\(run)")
        if obstacle.named != "is no bundle" {
            #expect(run.code == 5 && run.errorText.contains(obstacle.named), "\(run)")
        }
        #expect(shop.text("ls", "--layout", shop.layout) == tags)
        #expect(try Self.blobs(shop) == blobs)
        #expect(try shop.entries("refreshed") == [] && shop.entries("work") == [])
        #expect(
            try runSuccessfully(["sh", "-c", "cd '\(bundle)'; sha256sum *.* umoci.json"]).outputText == files)
        #expect(shop.text("diff", bundle) == "M .\nA n\n")
        #expect(shop.text("repack", "--refresh-bundle", "--image", shop.image("new"), bundle) == "")
        #expect(shop.text("diff", bundle) == "")
    }

    /// A snapshot has the flags of what it was taken of: with them it could be neither moved nor deleted.
    @Test("Flags of chattr(1) on a bundle leave nothing behind in the store", arguments: ["i", "a"])
    func flaggedBundle(_ flag: String) throws {
        let shop = try Workshop()
        try Self.addImage(to: shop)
        let (bundle, other) = (shop.bundle("b"), shop.bundle("c"))
        #expect(shop.text("unpack", "--image", shop.image("a"), bundle) == "")
        try shell("echo n > \"$1/rootfs/n\"; chattr +\(flag) \"$1\"", bundle)
        #expect(shop.text("diff", bundle) == "M .\nA n\n")
        #expect(shop.text("snapshot", "create", bundle, "s") == "")
        #expect(shop.text("repack", "--image", shop.image("r"), bundle) == "")
        #expect(shop.text("snapshot", "restore", "s", other) == "")
        #expect(shop.text("diff", other) == "M .\nA n\n")
        #expect(shop.text("snapshot", "rm", "s") == "")
        #expect(shop.text("bundle", "rm", bundle, other) == "")
        #expect(try shop.entries("work") == [] && shop.entries("snapshots") == [])
        #expect(shop.text("store", "check") == "")
    }

    /// A property is kept in the attribute `btrfs.compression`, which is no part of an image.
    @Test("A property of btrfs on a chain itself changes nothing")
    func compressionProperty() throws {
        let shop = try Workshop()
        try Self.addImage(to: shop)
        let bundle = shop.bundle("b")
        #expect(shop.text("unpack", "--image", shop.image("a"), bundle) == "")
        try shell("echo n > \"$1/rootfs/n\"", bundle)
        #expect(shop.text("repack", "--refresh-bundle", "--image", shop.image("r"), bundle) == "")
        let script = """
            cd "$1"; for one in chains/* refreshed/*; do
                btrfs property set "$one" ro false; $2 "$one"; btrfs property set "$one" ro true
            done; sync
            """
        try shell(
            script.replacing("$2 \"$one\"", with: "btrfs property set \"$one\" compression zstd"), shop.store)
        #expect(shop.text("store", "check") == "")
        #expect(!shop.text("store", "ls").contains("not used"))
        #expect(shop.text("diff", bundle) == "")
        #expect(shop.text("unpack", "--image", shop.image("r"), shop.bundle("c")) == "")
        #expect(shop.text("diff", shop.bundle("c")) == "")
        // Below it, nobody can tell what it was that changed: it counts as changed, and is built anew.
        try shell(
            script.replacing("$2 \"$one\"", with: "btrfs property set \"$one/rootfs/d\" compression zstd"),
            shop.store)
        #expect(shop.run("store", "check").code == 1)
        let anew = shop.run("unpack", "--image", shop.image("r"), shop.bundle("d"))
        #expect(anew.code == 0 && anew.errorText.contains("is not used"), "\(anew)")
        // The same of another root file system in its place, which changes nothing else of the chain.
        try shell(
            script.replacing(
                "$2 \"$one\"", with: "mv \"$one/rootfs\" \"$one/old\"; mv \"$one/old/d\" \"$one/rootfs\""),
            shop.store)
        #expect(shop.run("store", "check").code == 1)
    }

    /// `btrfs receive` fills what it makes after it made it.
    @Test("What was received counts from when it was received")
    func receivedSnapshots() throws {
        let shop = try Workshop()
        try Self.addImage(to: shop)
        let bundle = shop.bundle("b")
        #expect(shop.text("unpack", "--image", shop.image("a"), bundle) == "")
        #expect(shop.text("snapshot", "create", bundle, "one") == "")
        try shell("head -c 300000 /dev/urandom > \"$1/rootfs/big\"", bundle)
        #expect(shop.text("snapshot", "create", bundle, "two") == "")
        let other = shop.bundle("other")
        #expect(Self.run(other, ["store", "init", other]).code == 0)
        // Data that is not written out yet gets its extents after the receipt.
        try shell(
            """
            btrfs -q send "$1/snapshots/one" | btrfs -q receive "$2/snapshots"
            btrfs -q send -p "$1/snapshots/one" "$1/snapshots/two" | btrfs -q receive "$2/snapshots"; sync
            """, shop.store, other)
        let check = Self.run(other, ["store", "check"])
        #expect(check.code == 0 && check.text.isEmpty && check.errors.isEmpty, "\(check)")
        for (old, new, expected) in [("one", "two", "M .\nA big\n"), ("two", "one", "M .\nD big\n")] {
            let diff = Self.run(other, ["diff", BytePath(old), BytePath(new)])
            #expect(diff.text == expected && diff.errors.isEmpty, "\(diff)")
        }
        // What was written to it later is a change.
        try shell(
            """
            cd "$1/snapshots"; sleep 0.05; btrfs property set -f one ro false; echo z >> one/rootfs/f; sync
            btrfs property set one ro true
            """, other)
        let changed = Self.run(other, ["store", "check"])
        #expect(
            changed.code == 1 && changed.text.contains("snapshots/one: it was changed after it was"),
            "\(changed)")
    }

    /// The attribute on its directory says which store it came from, wherever it lies.
    @Test("A copy of a bundle on another file system finds its store", arguments: ["cp", "receive"])
    func copyElsewhere(_ way: String) throws {
        let shop = try Workshop()
        try Self.addImage(to: shop)
        let elsewhere = try LoopVolume(size: 256 << 20)
        let bundle = shop.bundle("b")
        let copy = elsewhere.path.appending("b")
        #expect(shop.text("unpack", "--image", shop.image("a"), bundle) == "")
        try shell(
            way == "cp"
                ? "echo n > \"$1/rootfs/n\"; cp -a \"$1\" \"$2/b\""
                : """
                echo n > "$1/rootfs/n"; btrfs property set "$1" ro true; btrfs -q send "$1" | btrfs -q receive "$2"
                btrfs property set "$1" ro false; btrfs property set -f "$2/b" ro false
                """, bundle, elsewhere.path)
        let diff = Self.run(nil, ["diff", copy])
        #expect(diff.text == "M .\nA n\n" && diff.errors.isEmpty, "\(diff)")
        try shell("echo m > \"$1/rootfs/m\"", copy)
        for (words, expected) in [
            (["repack", "--refresh-bundle", "--image", shop.image("copied"), copy], ""),
            (["diff", copy], ""),
            (["--store", shop.store, "diff", bundle], "M .\nA n\n"), (["bundle", "rm", copy], ""),
        ] as [([BytePath], String)] {
            let run = Self.run(nil, words)
            #expect(run.code == 0 && run.text == expected && run.errors.isEmpty, "\(words): \(run)")
        }
        let again = shop.bundle("again")
        #expect(shop.text("unpack", "--image", shop.image("copied"), again) == "")
        #expect(
            try runSuccessfully(["ls", "\(again.appending("rootfs"))"]).outputText == "d\nf\nm\nmnt\nn\n")
        #expect(try elsewhere.root.entries().isEmpty)
        // Without its attributes it is none, and says why.
        let bare = elsewhere.path.appending("bare")
        try runSuccessfully(["cp", "-r", "\(bundle)", "\(bare)"])
        let lost = shop.run("diff", bare)
        #expect(
            lost.code == 4 && lost.errorText.contains("a copy without extended attributes loses"), "\(lost)")
    }

    /// SELinux writes labels with a NUL at the end, other tools without one: to the kernel they are bytes.
    @Test(
        "An attribute keeps its bytes, with a NUL at the end or without", arguments: ["btrfs", "directory"])
    func labels(_ driver: String) throws {
        let shop = try Workshop()
        try Self.addImage(to: shop)
        let (one, two) = (shop.bundle("one"), shop.bundle("two"))
        let unpack: [BytePath] = ["unpack", "--driver", BytePath(driver), "--image"]
        #expect(shop.run(unpack + [shop.image("a"), one]).code == 0)
        try shell(
            """
            cd "$1/rootfs"; setfattr -n security.selinux -v system_u:object_r:bin_t:s0 f
            setfattr -n security.selinux -v 0x73797374656d5f753a00 d/g; setfattr -n security.selinux -v 0x00 d
            """, one)
        #expect(shop.text("diff", one) == "M d\nM d/g\nM f\n")
        #expect(shop.text("repack", "--refresh-bundle", "--image", shop.image("b"), one) == "")
        let other = shop.run(unpack + [shop.image("b"), two])
        #expect(other.code == 0 && other.errors.isEmpty, "\(other)")
        func values(_ bundle: BytePath) throws -> String {
            try runSuccessfully([
                "sh", "-c", "cd '\(bundle)/rootfs'; getfattr -e hex -n security.selinux f d/g d",
            ]).outputText
        }
        #expect(try values(two) == values(one))
        #expect(try values(two).contains("=0x73797374656d5f753a6f626a6563745f723a62696e5f743a7330\n"))
        #expect(shop.text("diff", two) == "" && shop.text("diff", one) == "")
    }

    /// `cp -a B C`: a plain directory, which names its chain all the same.
    @Test func copyOfABundle() throws {
        let shop = try Workshop()
        try Self.addImage(to: shop)
        let (bundle, copy) = (shop.bundle("b"), shop.bundle("c"))
        #expect(shop.text("unpack", "--image", shop.image("a"), bundle) == "")
        try shell("echo n > \"$1/rootfs/n\"; cp -a \"$1\" \"$2\"; sync", bundle, copy)
        #expect(shop.text("diff", copy) == "M .\nA n\n")
        // Equal size and time: seen by reading alone. And the other side has nothing of it.
        try shell(
            "t=$(stat -c %y \"$1/rootfs/f\"); echo z > \"$1/rootfs/f\"; touch -d \"$t\" \"$1/rootfs/f\"", copy
        )
        #expect(shop.text("diff", copy) == "M .\nM f\nA n\n")
        #expect(shop.text("diff", "--source", "walk", copy) == "M .\nM f\nA n\n")
        #expect(shop.run("diff", "--source", "search", copy).errorText.contains("is a copy of a bundle"))
        #expect(shop.text("diff", bundle) == "M .\nA n\n")
        #expect(shop.text("repack", "--refresh-bundle", "--image", shop.image("copied"), copy) == "")
        #expect(shop.text("diff", copy) == "")
        #expect(try BundleKind.of(copy) == .directory)
        let again = shop.bundle("d")
        #expect(shop.text("unpack", "--image", shop.image("copied"), again) == "")
        let roots = try [copy, again].map {
            SharedDescriptor(try FileDescriptor.workingDirectory.openDirectory($0.appending("rootfs")))
        }
        #expect(try TreeCompare.differences(roots[0].fd, roots[1].fd) == [])
        // The chain is gone.
        let orphan = shop.bundle("e")
        try shell("cp -a \"$1\" \"$2\"", bundle, orphan)
        for name in shop.text("store", "ls", "-q").split(separator: "\n") {
            #expect(shop.text("store", "rm", BytePath(String(name))) == "")
        }
        let run = shop.run("diff", orphan)
        #expect(run.code == 4 && run.errorText.contains("is a copy"), "\(run)")
        #expect(shop.text("bundle", "rm", orphan) == "")
    }

    /// A chain that was received, or copied as files, is not used; who looks sees why, and no talk of an attack.
    @Test func copiedChainsAreMarked() throws {
        let shop = try Workshop()
        try Self.addImage(to: shop)
        #expect(shop.text("unpack", "--image", shop.image("a"), shop.bundle("b")) == "")
        let names = shop.text("store", "ls", "-q").split(separator: "\n").map(String.init)
        let name = try #require(names.first)
        #expect(!shop.text("store", "ls").contains("not used"))
        try shell(
            """
            cd "$1"; mkdir aside; btrfs -q subvolume snapshot -r "chains/$2" "aside/$2"
            btrfs -q subvolume delete "chains/$2"; btrfs -q subvolume snapshot -r "aside/$2" "chains/$2"
            """, shop.store, BytePath(name))
        let copied = shop.run("store", "ls", "--no-trunc")
        #expect(
            copied.text.contains("not used: it is not what was published under that name, but a copy ("),
            "\(copied)")
        try shell(
            """
            cd "$1"; btrfs -q subvolume delete "chains/$2"; btrfs -q send "aside/$2" | btrfs -q receive chains
            btrfs -q subvolume delete "aside/$2"; rmdir aside
            """, shop.store, BytePath(name))
        let received = shop.run("store", "ls", "--no-trunc")
        #expect(received.text.contains("but a copy that was received"), "\(received)")
        let json = shop.run("store", "ls", "--format", "json")
        #expect(json.code == 0 && json.text.contains("notUsed"))
        // It is built anew where it is needed.
        let run = shop.run("unpack", "--image", shop.image("a"), shop.bundle("c"))
        #expect(run.code == 0, "\(run)")
        #expect(!shop.text("store", "ls").contains("not used"))
        #expect(shop.text("diff", shop.bundle("c")) == "")
    }

    /// Defragmentation and deduplication give inodes a later transaction and change nothing, of snapshots and of the state of a
    /// refreshed bundle as little as of chains.
    @Test func maintenanceOfSnapshotsChangesNothing() throws {
        let shop = try Workshop()
        try Self.addImage(to: shop)
        let bundle = shop.bundle("b")
        #expect(shop.text("unpack", "--image", shop.image("a"), bundle) == "")
        try shell("yes | head -c 300000 > \"$1/rootfs/big\"", bundle)
        #expect(shop.text("repack", "--refresh-bundle", "--image", shop.image("r"), bundle) == "")
        #expect(shop.text("snapshot", "create", bundle, "s") == "")
        try shell(
            """
            cd "$1"
            for one in snapshots/s refreshed/*; do
                btrfs -q property set "$one" ro false; btrfs filesystem defragment -f -czstd "$one/rootfs/big"
                sync; btrfs property set "$one" ro true
            done
            """, shop.store)
        #expect(shop.run("store", "check").code == 0)
        let run = shop.run("diff", bundle)
        #expect(run.code == 0 && run.text.isEmpty && run.errors.isEmpty, "\(run)")
        // An honest change is found.
        try shell(
            """
            cd "$1"
            for one in snapshots/s refreshed/*; do
                btrfs -q property set "$one" ro false; echo z >> "$one/rootfs/f"; btrfs property set "$one" ro true
            done
            """, shop.store)
        let check = shop.run("store", "check")
        #expect(
            check.code == 1 && check.text.components(of: "it was changed after it was taken") == 2, "\(check)"
        )
        // Nothing is left of what they were when they are gone.
        #expect(shop.text("snapshot", "rm", "s") == "")
        #expect(shop.text("bundle", "rm", bundle) == "")
        let before = try shop.entries("published").count
        #expect(shop.run("store", "gc").code == 0)
        #expect(try shop.entries("published").count < before)
    }

    /// `cp -a` makes plain directories of chains and snapshots.
    @Test func copiedStoreIsBuiltAnew() throws {
        let shop = try Workshop()
        try Self.addImage(to: shop)
        #expect(shop.text("unpack", "--image", shop.image("a"), shop.bundle("b")) == "")
        #expect(shop.text("snapshot", "create", shop.bundle("b"), "kept") == "")
        let copy = shop.bundle("copied-store")
        try runSuccessfully(["cp", "-a", "\(shop.store)", "\(copy)"])
        // It is marked as what it is, and used by nobody.
        let reason = "it is no subvolume but a plain directory, as cp -a of a store makes it"
        let (chains, snapshots) = (
            Self.run(copy, ["store", "ls", "--no-trunc"]), Self.run(copy, ["snapshot", "ls", "--no-trunc"])
        )
        #expect(
            chains.code == 0 && chains.text.contains("<none>") && chains.text.contains("not used: \(reason)"),
            "\(chains)")
        #expect(snapshots.code == 0 && snapshots.text.contains("not used: \(reason)"), "\(snapshots)")
        for list in ["store", "snapshot"] as [BytePath] {
            #expect(
                Self.run(copy, [list, "ls", "--format", "json"]).text.contains("\"notUsed\":\"\(reason)\""))
        }
        let absent = Self.run(copy, ["snapshot", "restore", "other", shop.bundle("restored")])
        for words in [["snapshot", "restore", "kept", shop.bundle("restored")], ["diff", "kept", "kept"]]
            as [[BytePath]]
        {
            let refused = Self.run(copy, words)
            #expect(
                refused.code == absent.code && refused.errorText.contains("cannot be used: \(reason)"),
                "\(refused)")
            #expect(refused.errorText.contains("copy what is wanted of it from "), "\(refused)")
        }
        #expect(Self.run(copy, ["store", "gc"]).code == 0)
        func chainEntries() throws -> Int {
            let directory = try shop.volume.root.openDirectory("copied-store/chains")
            return try directory.fd.entries().count
        }
        let names = try chainEntries()
        #expect(names > 0, "what is no subvolume is not collected")
        let check = Self.run(copy, ["store", "check"])
        #expect(check.code == 1 && check.text.components(of: reason) == names + 1, "\(check)")
        // The store's own go, and what a user kept stays until the user says so.
        let repaired = Self.run(copy, ["store", "check", "--repair"])
        #expect(repaired.code == 1 && repaired.text.components(of: "deleted it") == names, "\(repaired)")
        #expect(try chainEntries() == 0)
        #expect(Self.run(copy, ["store", "check"]).text.contains("varve snapshot rm kept"))
        try runSuccessfully(["rm", "-r", "\(copy)"])
        try runSuccessfully(["cp", "-a", "\(shop.store)", "\(copy)"])
        for name in ["one", "two"] as [BytePath] {
            let run = Self.run(
                copy, ["unpack", "--image", shop.image("a"), shop.bundle("copied").appending(name)])
            #expect(run.code == 0, "\(run)")
            let diff = Self.run(copy, ["diff", shop.bundle("copied").appending(name)])
            #expect(diff.code == 0 && diff.output.isEmpty, "\(diff)")
        }
        #expect(Self.run(copy, ["snapshot", "rm", "kept"]).code == 0)
        #expect(Self.run(copy, ["store", "check"]).code == 0)
    }

    @Test("A read-only subvolume is told from a read-only mount")
    func readOnlySubvolume() throws {
        let shop = try Workshop()
        try shell("cd \"$1\"; btrfs -q subvolume create 'read only'", shop.volume.path)
        let place = shop.volume.path.appending("read only")
        let store = place.appending("store")
        #expect(varve("store", "init", store).code == 0)
        try Self.addImage(to: shop)
        try shell("btrfs property set \"$1\" ro true", place)
        let remedy = "btrfs property set '\(place)' ro false\n"
        for words in [
            ["store", "init", place.appending("new")],
            ["unpack", "--image", shop.image("a"), place.appending("bundle")],
        ] as [[BytePath]] {
            let refused = Self.run(store, words)
            #expect(refused.code == 1 && refused.errorText.hasSuffix(remedy), "\(words): \(refused)")
        }
        let unpack = Self.run(store, ["unpack", "--image", shop.image("a"), shop.bundle("b")])
        #expect(unpack.code == 1 && unpack.errorText.hasSuffix(remedy), "\(unpack)")
        try shell("btrfs property set \"$1\" ro false", place)
        #expect(Self.run(store, ["unpack", "--image", shop.image("a"), shop.bundle("b")]).code == 0)
    }

    @Test(
        "More ranges of ids than the kernel takes are refused, on the command line and in a bundle",
        arguments: [340, 341])
    func manyRanges(_ count: Int) throws {
        let shop = try Workshop()
        try Self.addImage(to: shop)
        let bundle = shop.bundle("b")
        var words: [BytePath] = ["unpack", "--image", shop.image("a")]
        for id in 0..<count {
            words += [
                "--uid-map", BytePath("\(id):\(1000 + 2 * id):1"), "--gid-map", BytePath("\(id):\(id):1"),
            ]
        }
        let run = shop.run(words + [bundle])
        if count == 340 {
            #expect(run.code == 0, "\(run)")
            #expect(shop.run("diff", bundle).code == 0)
            // One more, as somebody may write it.
            try shell(
                """
                python3 -c 'import json, sys
                place = sys.argv[1] + "/umoci.json"
                document = json.load(open(place))
                document["map_options"]["uid_mappings"].append({"containerID": 9000, "hostID": 9000, "size": 1})
                json.dump(document, open(place, "w"))' "$1"
                """, bundle)
            let refused = shop.run("repack", "--image", shop.image("b"), bundle)
            #expect(
                refused.code == 3
                    && refused.errorText.contains(
                        "its uid_mappings has 341 ranges, and the kernel takes 340 at most"),
                "\(refused)")
        } else {
            #expect(
                run.code == 2
                    && run.errorText.hasSuffix(
                        "the id map of users has 341 ranges, and the kernel takes 340 at most; join ranges that lie side by side\n"
                    ), "\(run)")
            #expect(try !shop.volume.root.entries().contains { $0.name == "b" })
        }
    }

    @Test(
        "A side that is written to while it is compared is why a chosen source fails",
        arguments: [DeltaSource.search, .auto])
    func writtenWhileCompared(_ source: DeltaSource) throws {
        let world = try StoreWorld()
        try world.shell(
            """
            btrfs -q subvolume create old; echo 1 > old/f; echo 1 > old/g; btrfs -q subvolume snapshot old new
            btrfs property set old ro true; echo 2 > new/g
            """)
        let side = try world.open("new")
        let writer = SharedDescriptor(try side.fd.open("f", [.writeOnly]))
        try world.shell("btrfs property set new ro true")
        let comparison = SubvolumeComparison(store: try world.store(), logger: Logger(label: "test"))
        func compare() throws -> [String] {
            try comparison.delta(
                from: world.path.appending("old"), to: world.path.appending("new"), source: source
            ) { [writer] in
                try writer.fd.writeFull([50])
                try writer.fd.synchronize()
            }.changes.map { "\($0.path)" }
        }
        if source == .auto {
            #expect(try compare() == ["f", "g"])
        } else {
            #expect { try compare() } throws: { if case LayerError.treeChanged = $0 { true } else { false } }
        }
    }

    /// The kernel lets nobody delete a subvolume that is being sent. The send is certain to be in progress: nobody reads its pipe.
    @Test("A chain that is being sent stays, and goes when that has ended", arguments: ["rm", "gc"])
    func sentChain(_ verb: String) throws {
        let shop = try Workshop()
        try Self.addImage(to: shop)
        let bundle = shop.bundle("b")
        #expect(shop.text("unpack", "--image", shop.image("a"), bundle) == "")
        try shell("yes | head -c 3000000 > \"$1/rootfs/big\"", bundle)
        #expect(shop.text("repack", "--image", shop.image("big"), bundle) == "")
        #expect(shop.text("bundle", "rm", bundle) == "")
        #expect(shop.text("unpack", "--image", shop.image("big"), bundle) == "")
        #expect(shop.text("bundle", "rm", bundle) == "")
        let chains = try shop.entries("chains")
        let top = try #require(
            chains.first {
                FileDescriptor.workingDirectory.has(shop.store.appending("chains/\($0)/rootfs/big"))
            })
        let words: [BytePath] = verb == "rm" ? ["store", "rm", BytePath(top)] : ["store", "gc"]
        try shell(
            """
            cd "$1"; mkfifo pipe; btrfs -q send "$2" > pipe & echo $! > sender; exec 9< pipe
            head -c 100000 <&9 > /dev/null; sleep 600 <&9 & echo $! > holder
            """, shop.volume.path, shop.store.appending("chains/\(top)"))
        let refused = shop.run(words)
        #expect(refused.code != 0 && refused.errorText.contains("is being sent"), "\(refused)")
        #expect(try shop.entries("chains").contains(top))
        try shell(
            "cd \"$1\"; kill $(cat holder) $(cat sender) 2>/dev/null || true; sleep 1; rm pipe",
            shop.volume.path)
        #expect(shop.run(words).code == 0)
        #expect(try !shop.entries("chains").contains(top))
        #expect(shop.run("store", "check").code == 0)
    }

    /// The layers are gone, so a command that looked at the place last would speak of them.
    @Test("A place that cannot be replaced is refused before anything is read")
    func placeThatCannotBeReplaced() throws {
        let shop = try Workshop()
        try Self.addImage(to: shop)
        try shell(
            """
            cd "$1"; mkdir mounted; btrfs -q subvolume create subvolume; mkdir -p other/in; mkdir again
            for f in L/blobs/sha256/*; do if [ "$(head -c 1 "$f")" != '{' ]; then rm "$f"; fi; done
            """, shop.volume.path)
        let (image, bundle) = (shop.image("a"), shop.bundle("mounted"))
        #expect(shop.run("store", "gc").code == 0)
        let hidden = shop.run("unpack", "--image", image, shop.bundle("new"))
        #expect(hidden.code != 0 && !hidden.errorText.contains("mount"), "\(hidden)")
        try shell(
            "mount -t tmpfs none \"$1\"; mount --bind \"$2\" \"$3\"", bundle, shop.volume.path,
            shop.bundle("again"))
        defer { try? shell("umount \"$1\"; umount \"$2\"", bundle, shop.bundle("again")) }
        for words in [
            ["unpack", "--image", image, bundle],
            ["unpack", "--driver", "directory", "--image", image, bundle],
            ["raw", "unpack", "--image", image, bundle],
        ] as [[BytePath]] {
            let refused = shop.run(words)
            #expect(
                refused.code == 5
                    && refused.errorText.hasSuffix(
                        "it is a mount point, which cannot be replaced; name a directory in it, or unmount it first\n"
                    ),
                "\(words): \(refused)")
        }
        let subvolume = shop.run("raw", "unpack", "--image", image, shop.bundle("subvolume"))
        #expect(
            subvolume.code == 5
                && subvolume.errorText.contains("it is a subvolume, which a directory cannot replace"),
            "\(subvolume)")
        let elsewhere = shop.run("unpack", "--image", image, shop.bundle("again").appending("b"))
        #expect(
            elsewhere.code == 5
                && elsewhere.errorText.contains("lies on another mount of the store's file system"),
            "\(elsewhere)")
    }

    /// The image file is sparse, so a size beyond what is free is taken, but not in silence.
    @Test func loopbackLargerThanItsDiskIsSaid() throws {
        let volume = try LoopVolume(size: 512 << 20)
        let store = volume.path.appending("s")
        let run = varve("store", "init", store, "--loopback", "900G")
        #expect(run.code == 0 && run.errorText.contains("may grow to 900 GiB"), "\(run)")
        #expect(run.errorText.contains(" MiB free"), "\(run)")
        #expect(varve("store", "unmount", store).code == 0)
        let fits = varve("store", "init", volume.path.appending("t"), "--loopback", "256M")
        #expect(fits.code == 0 && fits.errors.isEmpty, "\(fits)")
        #expect(varve("store", "unmount", volume.path.appending("t")).code == 0)
    }

    /// The image that a snapshot or a bundle came from has no tag any more, and is needed to repack it.
    @Test(arguments: ["snapshot", "bundle"]) func collectionOfLayoutKeepsWhatIsNeeded(_ user: String) throws {
        let shop = try Workshop()
        try Self.addImage(to: shop)
        let bundle = shop.bundle("b")
        #expect(shop.text("unpack", "--image", shop.image("a"), bundle) == "")
        try shell("echo n > \"$1/rootfs/n\"", bundle)
        #expect(shop.text("repack", "--refresh-bundle", "--image", shop.image("t1"), bundle) == "")
        if user == "snapshot" {
            #expect(shop.text("snapshot", "create", bundle, "s") == "")
            #expect(shop.text("bundle", "rm", bundle) == "")
        }
        #expect(shop.text("rm", "--image", shop.image("t1")) == "")
        let count = try Self.blobs(shop)
        #expect(shop.text("gc", "--layout", shop.layout) == "")
        #expect(try Self.blobs(shop) == count)
        if user == "snapshot" { #expect(shop.text("snapshot", "restore", "s", bundle) == "") }
        try shell("echo o > \"$1/rootfs/o\"", bundle)
        #expect(shop.text("repack", "--image", shop.image("t2"), bundle) == "")
        #expect(shop.text("rm", "--image", shop.image("t2")) == "")
        #expect(shop.text("bundle", "rm", bundle) == "")
        if user == "snapshot" { #expect(shop.text("snapshot", "rm", "s") == "") }
        // Nothing needs it now.
        #expect(shop.text("gc", "--layout", shop.layout) == "")
        #expect(try Self.blobs(shop) < count)
    }

    @Test func severalAreRemovedAtOnce() throws {
        let shop = try Workshop()
        let bundles = ["a", "b", "c"].map { shop.bundle($0) }
        for bundle in bundles { #expect(shop.text("unpack", "--image", shop.image("empty"), bundle) == "") }
        for name in ["x", "y", "z"] as [BytePath] {
            #expect(shop.text("snapshot", "create", bundles[0], name) == "")
        }
        // The others go all the same; the exit code is that of the first that failed.
        let missing = shop.run("bundle", "rm", bundles[0], shop.bundle("nope"), bundles[1])
        #expect(missing.code == 4 && missing.errorText.split(separator: "\n").count == 1, "\(missing)")
        for bundle in bundles[..<2] {
            #expect(try FileDescriptor.workingDirectory.statusIfPresent(of: bundle) == nil)
        }
        let snapshots = shop.run("snapshot", "rm", "x", "nope", "y")
        #expect(snapshots.code == 4 && snapshots.errorText.contains("\"nope\""), "\(snapshots)")
        #expect(try shop.entries("snapshots") == ["z"])
        #expect(shop.text("snapshot", "rm", "z") == "")
        #expect(shop.text("bundle", "rm", bundles[2]) == "")
        #expect(shop.run("bundle", "rm").code == 2)
    }

    /// Users of umoci delete bundles with rm(1).
    @Test func bundleDeletedByHandIsForCollection() throws {
        let shop = try Workshop()
        let bundle = shop.bundle("b")
        #expect(shop.text("unpack", "--image", shop.image("empty"), bundle) == "")
        try shell("echo n > \"$1/rootfs/n\"", bundle)
        #expect(shop.text("repack", "--refresh-bundle", "--image", shop.image("t"), bundle) == "")
        try runSuccessfully(["rm", "-rf", "\(bundle)"])
        #expect(try shop.entries("refreshed").count == 1)
        #expect(shop.text("store", "check") == "")
        #expect(shop.run("store", "gc").code == 0)
        #expect(try shop.entries("refreshed") == [])
    }
}

extension String {
    fileprivate func components(of part: String) -> Int {
        split(separator: part, omittingEmptySubsequences: false).count - 1
    }
}

extension FileDescriptor {
    fileprivate func has(_ path: BytePath) -> Bool { (try? status(of: path)) != nil }
}
