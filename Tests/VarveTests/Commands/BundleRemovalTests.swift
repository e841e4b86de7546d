import Glibc
import VarveStore
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// `bundle rm` deletes a bundle or leaves it as it was.
@Suite struct BundleRemovalTests {
    /// A store, an image with something of everything in it, and a file of the host that must never be touched.
    private struct World: ~Copyable {
        let shop: Workshop
        let secrets: BytePath
        var secret: BytePath { secrets.appending("secret") }

        init() throws {
            let made = try Workshop()
            let seed = made.bundle("seed")
            #expect(made.text("unpack", "--image", made.image("empty"), seed) == "")
            try shell("cd \"$1/rootfs\"; mkdir -p mnt d/e; echo f > f; echo g > d/e/g", seed)
            #expect(made.text("repack", "--image", made.image("a"), seed) == "")
            #expect(made.text("bundle", "rm", seed) == "")
            let place = made.bundle("secrets")
            try shell("mkdir \"$1\"; echo host > \"$1/secret\"", place)
            shop = made
            secrets = place
        }

        func unpack(_ driver: String, _ name: String = "b") -> BytePath {
            let bundle = shop.bundle(name)
            #expect(
                shop.text("unpack", "--driver", BytePath(driver), "--image", shop.image("a"), bundle) == "")
            return bundle
        }

        /// That nothing of the bundle was moved or deleted, and nothing lies beside it.
        func expectWhole(_ bundle: BytePath, sourceLocation: SourceLocation = #_sourceLocation) throws {
            for name in ["config.json", "umoci.json", "rootfs/d/e/g", "rootfs/f"] {
                let there = try FileDescriptor.workingDirectory.statusIfPresent(of: bundle.appending(name))
                #expect(there != nil, "\(name)", sourceLocation: sourceLocation)
            }
            #expect(try leftovers() == [], sourceLocation: sourceLocation)
        }

        func leftovers() throws -> [String] {
            let beside = try shop.volume.root.entries().map(\.name.description)
            return try beside.filter { $0.hasPrefix(".varve-work-") } + shop.entries("work")
        }

        func expectGone(_ bundle: BytePath, sourceLocation: SourceLocation = #_sourceLocation) throws {
            let there = try FileDescriptor.workingDirectory.statusIfPresent(of: bundle)
            #expect(there == nil, sourceLocation: sourceLocation)
            #expect(try leftovers() == [], sourceLocation: sourceLocation)
            #expect(
                try FileDescriptor.workingDirectory.statusIfPresent(of: secret) != nil,
                sourceLocation: sourceLocation)
        }
    }

    struct Mount: Sendable, CustomTestStringConvertible {
        var driver: String
        /// Below the bundle.
        var point: BytePath
        var isFile = false
        var testDescription: String { "\(driver), \(point)" }
    }

    @Test(
        "What is mounted in a bundle forbids to delete it, and is named",
        arguments: ["btrfs", "directory"].flatMap { driver in
            [
                Mount(driver: driver, point: "rootfs/mnt"),
                Mount(driver: driver, point: "rootfs/d/e/g", isFile: true),
                Mount(driver: driver, point: "rootfs"),
                Mount(driver: driver, point: "config.json", isFile: true),
            ]
        })
    func mounts(_ mount: Mount) throws {
        let world = try World()
        let bundle = world.unpack(mount.driver)
        let point = bundle.appending(mount.point)
        let source = mount.isFile ? world.secret : world.secrets
        try runSuccessfully(["mount", "--bind", "\(source)", "\(point)"])
        defer { _ = try? runCommand(["umount", "\(point)"]) }
        let run = world.shop.run("bundle", "rm", bundle)
        #expect(run.code == 5, "\(run)")
        #expect(
            run.errorText.contains(
                "something is mounted at \"\(point)\"; unmount it first: umount \(point)\n"), "\(run)")
        #expect(try FileDescriptor.workingDirectory.statusIfPresent(of: world.secret) != nil)
        try runSuccessfully(["umount", "\(point)"])
        try world.expectWhole(bundle)
        #expect(world.shop.text("bundle", "rm", bundle) == "")
        try world.expectGone(bundle)
    }

    @Test("A swap file in use forbids to delete its bundle, and is named", arguments: ["btrfs", "directory"])
    func swapFile(_ driver: String) throws {
        let world = try World()
        let bundle = world.unpack(driver)
        let file = bundle.appending("rootfs/swap")
        try shell(
            """
            truncate -s 0 "$1"; chattr +C "$1"; fallocate -l 16M "$1"; chmod 600 "$1"; mkswap "$1" >/dev/null; swapon "$1"
            """, file)
        defer { _ = try? runCommand(["swapoff", "\(file)"]) }
        let run = world.shop.run("bundle", "rm", bundle)
        #expect(run.code == 5, "\(run)")
        #expect(
            run.errorText.contains("\"\(file)\" is a swap file in use; turn it off first: swapoff \(file)\n"),
            "\(run)")
        try world.expectWhole(bundle)
        try runSuccessfully(["swapoff", "\(file)"])
        #expect(world.shop.text("bundle", "rm", bundle) == "")
        try world.expectGone(bundle)
    }

    @Test("Root takes away the flags of chattr(1) that keep a file", arguments: ["btrfs", "directory"])
    func flags(_ driver: String) throws {
        let world = try World()
        let bundle = world.unpack(driver)
        try shell(
            """
            cd "$1"; mkfifo rootfs/d/pipe; chattr +i rootfs/d/e/g rootfs/f; chattr +a rootfs/d; chattr +i rootfs/d/e; chattr +i rootfs
            chattr +i config.json; chattr +i .
            """, bundle)
        #expect(world.shop.text("bundle", "rm", bundle) == "")
        try world.expectGone(bundle)
    }

    @Test("Root takes away the flags around nested subvolumes")
    func flagsAroundSubvolumes() throws {
        let world = try World()
        let bundle = world.unpack("btrfs")
        try shell(
            """
            cd "$1/rootfs"; mkdir p; btrfs -q subvolume create p/in; btrfs -q subvolume create own; btrfs -q subvolume create first
            echo x > first/f; mkdir own/d; btrfs -q subvolume create own/d/deep; chattr +i own/d; chattr +i own; chattr +i p
            """, bundle)
        #expect(world.shop.text("bundle", "rm", bundle) == "")
        try world.expectGone(bundle)
    }

    @Test("What is the store's own is no bundle", arguments: ["chains", "snapshots"])
    func storesOwn(_ place: String) throws {
        let world = try World()
        let bundle = world.unpack("btrfs")
        #expect(world.shop.text("snapshot", "create", bundle, "kept") == "")
        let name = try #require(try world.shop.entries(place).first)
        let own = world.shop.store.appending(BytePath(place)).appending(BytePath(name))
        let run = world.shop.run("bundle", "rm", own)
        #expect(run.code == 2 && run.errorText.contains("of a store, not a bundle"), "\(run)")
        #expect(try FileDescriptor.workingDirectory.statusIfPresent(of: own) != nil)
        #expect(world.shop.text("diff", bundle) == "")
    }

    /// A mount that comes when the bundle was moved away already.
    @Test("What turns up later puts the bundle back", arguments: ["btrfs", "directory"])
    func later(_ driver: String) throws {
        let world = try World()
        let bundle = world.unpack(driver)
        // A swap file for the subvolume, which the kernel deletes whatever is mounted in it.
        try shell(
            """
            cd "$1/rootfs"; truncate -s 0 swap; chattr +C swap; fallocate -l 16M swap; chmod 600 swap; mkswap swap >/dev/null
            """, bundle)
        let errors = world.shop.bundle("errors")
        let pid = try startProgram([
            "/bin/bash", "-c",
            "exec env VARVE_STORE=\"$1\" VARVE_STOP_AT=2 \"${@:3}\" </dev/null >/dev/null 2>\"$2\"",
            "bash", "\(world.shop.store)", "\(errors)", try builtProgram("varve"), "bundle", "rm",
            "\(bundle)",
        ])
        var status: CInt = 0
        while unsafe waitpid(pid, &status, WUNTRACED) < 0, errno == EINTR {}
        try #require(status & 0xff == 0x7f, "it did not stop")
        #expect(
            try FileDescriptor.workingDirectory.statusIfPresent(of: bundle) == nil, "it is to be moved away")
        var moved = world.shop.store.appending("work")
        if driver == "directory" {
            moved = world.shop.volume.path.appending(BytePath(try #require(try world.leftovers().first)))
        }
        let work = SharedDescriptor(try FileDescriptor.workingDirectory.openDirectory(moved))
        moved = moved.appending(try #require(try work.fd.entries().first?.name))
        let obstacle = moved.appending(driver == "btrfs" ? "rootfs/swap" : "rootfs/mnt")
        try runSuccessfully(
            driver == "btrfs"
                ? ["swapon", "\(obstacle)"] : ["mount", "--bind", "\(world.secrets)", "\(obstacle)"])
        let place = bundle.appending(driver == "btrfs" ? "rootfs/swap" : "rootfs/mnt")
        defer {
            for path in [obstacle, place] {
                _ = try? runCommand([driver == "btrfs" ? "swapoff" : "umount", "\(path)"])
            }
        }
        kill(pid, SIGCONT)
        let code = EngineKillTests.wait(pid) >> 8
        let said = String(
            decoding: try FileDescriptor.workingDirectory.readFile(errors, limit: 1 << 16), as: UTF8.self)
        #expect(code == 5 && said.contains("\"\(place)\""), "\(code) \(said)")
        #expect(try world.leftovers() == [])
        for name in ["config.json", "umoci.json", "rootfs"] {
            #expect(
                try FileDescriptor.workingDirectory.statusIfPresent(of: bundle.appending(name)) != nil,
                "\(name)")
        }
        #expect(try FileDescriptor.workingDirectory.statusIfPresent(of: world.secret) != nil)
        try runSuccessfully([driver == "btrfs" ? "swapoff" : "umount", "\(place)"])
        #expect(world.shop.text("bundle", "rm", bundle) == "")
        try world.expectGone(bundle)
    }

    /// The kernel does not delete it, and its siblings would be gone by then.
    @Test(
        "The default subvolume in a bundle keeps all of it",
        arguments: ["nested", "deep", "itself", "directory"])
    func defaultSubvolume(_ place: String) throws {
        let world = try World()
        let bundle = world.unpack(place == "directory" ? "directory" : "btrfs")
        try shell(
            """
            cd "$1/rootfs"; for one in s1 s2 s3; do btrfs -q subvolume create $one; echo x > $one/f; done
            btrfs -q subvolume create s2/in; btrfs property set s3 ro true
            """, bundle)
        let named = ["nested": "rootfs/s2", "deep": "rootfs/s2/in", "itself": ".", "directory": "rootfs/s2"]
        let subvolume = bundle.appending(BytePath(named[place] ?? "."))
        try runSuccessfully(["btrfs", "subvolume", "set-default", "\(subvolume)"])
        let run = world.shop.run("bundle", "rm", bundle)
        let shown = place == "itself" ? bundle : subvolume
        #expect(
            run.code == 5
                && run.errorText.contains(
                    "\"\(shown)\" is the default subvolume of the file system; make another"),
            "\(run)")
        try world.expectWhole(bundle)
        try shell(
            "cd \"$1/rootfs\"; [ -e s1/f ] && [ -e s2/f ] && [ -e s3/f ] && [ -e s2/in ]; btrfs property get s3 ro | grep -q true",
            bundle)
        try runSuccessfully(["btrfs", "subvolume", "set-default", "5", "\(world.shop.volume.path)"])
        #expect(world.shop.text("bundle", "rm", bundle) == "")
        try world.expectGone(bundle)
    }

    /// The parent is the user's: nothing in it is changed that was not asked for.
    @Test(
        "Flags on the directory around a bundle are named, before anything is made or moved",
        arguments: ["i", "a"])
    func flagsOfParent(_ flag: String) throws {
        let world = try World()
        let parent = world.shop.bundle("p q")
        try FileDescriptor.workingDirectory.makeDirectory(parent, mode: 0o755)
        let (one, two) = (parent.appending("one"), parent.appending("two"))
        #expect(world.shop.text("unpack", "--image", world.shop.image("a"), one) == "")
        #expect(
            world.shop.text("unpack", "--driver", "directory", "--image", world.shop.image("a"), two) == "")
        #expect(world.shop.text("snapshot", "create", one, "s") == "")
        try runSuccessfully(["chattr", "+\(flag)", "\(parent)"])
        defer { _ = try? runCommand(["chattr", "-\(flag)", "\(parent)"]) }
        let image = world.shop.image("a")
        for words in [
            ["bundle", "rm", one], ["bundle", "rm", two],
            ["unpack", "--image", image, parent.appending("new")],
            ["unpack", "--driver", "directory", "--image", image, parent.appending("new")],
            ["raw", "unpack", "--image", image, parent.appending("new")],
            ["snapshot", "restore", "s", parent.appending("new")],
        ] as [[BytePath]] {
            let run = world.shop.run(words)
            #expect(
                run.code == 5
                    && run.errorText.contains(
                        "\"\(parent)\" bears the flag \(flag) of chattr(1); take it away as root: chattr -\(flag) '\(parent)'\n"
                    ),
                "\(words): \(run)")
        }
        try world.expectWhole(one)
        try world.expectWhole(two)
        let names = try runSuccessfully(["ls", "-A", "\(parent)"]).outputText
        #expect(names == "one\ntwo\n")
        try runSuccessfully(["chattr", "-\(flag)", "\(parent)"])
        #expect(world.shop.text("bundle", "rm", one, two) == "")
    }

    @Test("What is no bundle is told what it is")
    func noBundles() throws {
        let world = try World()
        let plain = world.shop.bundle("a plain one")
        try runSuccessfully(["btrfs", "-q", "subvolume", "create", "\(plain)"])
        // No store is needed to see it.
        let run = varve("bundle", "rm", plain)
        #expect(
            run.code == 4
                && run.errorText.contains(
                    "is a subvolume, but no bundle: it has no rootfs/; delete it with: btrfs subvolume delete '\(plain)'\n"
                ),
            "\(run)")
        let bundle = world.unpack("btrfs")
        let dot = world.shop.run("bundle", "rm", bundle.appending("."))
        #expect(dot.code == 2 && dot.errorText.contains("; name it as \(bundle)\n"), "\(dot)")
        try world.expectWhole(bundle)
    }

    @Test func whatIsNotThereIsSaid() throws {
        let run = varve("bundle", "rm", "/nonexistent/bundle")
        #expect(run.code == 4)
        #expect(
            run.errorText == "varve: there is no bundle \"/nonexistent/bundle\" to delete; correct its path\n"
        )
    }

    /// Directories of mode 0, that only the user name space of unpack could read.
    @Test func ownerDeletesRootlessBundle() throws {
        let user = try OrdinaryUser()
        try user.makeImage()
        for driver in ["directory", "btrfs"] {
            if driver == "btrfs" { try user.text("varve store init store") }
            try user.text(
                """
                varve unpack --rootless --driver \(driver) --image L:full b
                mkdir -p b/rootfs/deep/er; echo x > b/rootfs/deep/er/f; chmod 0 b/rootfs/deep/er; chmod 0 b/rootfs/deep b/rootfs/etc
                varve bundle rm b; [ ! -e b ]
                """)
        }
        // Neither what belongs to another nor what only root can change is half deleted.
        try user.text(
            "varve unpack --rootless --driver directory --image L:full b; mkdir b/rootfs/other; echo x > b/rootfs/other/f"
        )
        try user.asRoot("chown 0:0 b/rootfs/other; chmod 0700 b/rootfs/other")
        let other = try user.run("varve bundle rm b")
        #expect(
            other.status == 5
                && other.errorText.contains("\"b/rootfs/other\" in it belongs to another user; run as root\n"),
            "\(other)")
        // One that may be entered, but not written to: its path is its own too.
        try user.asRoot("chmod 0755 b/rootfs/other")
        let readable = try user.run("varve bundle rm b")
        #expect(
            readable.status == 5
                && readable.errorText.contains("\"b/rootfs/other\" in it belongs to another user; "),
            "\(readable)")
        try user.asRoot(
            "chown -R \(OrdinaryUser.id) b/rootfs/other; chattr +i b/rootfs/other/f; [ -e b/umoci.json ]")
        let flagged = try user.run("varve bundle rm b")
        #expect(
            flagged.status == 5
                && flagged.errorText.contains("\"b/rootfs/other/f\" bears the flag i of chattr(1)"),
            "\(flagged)")
        try user.asRoot("[ -e b/umoci.json ]; [ -e b/rootfs/etc ]; chattr -i b/rootfs/other/f")
        try user.text("varve bundle rm b; [ ! -e b ]; [ \"$(ls -A | grep varve-work)\" = '' ]")
    }
}
