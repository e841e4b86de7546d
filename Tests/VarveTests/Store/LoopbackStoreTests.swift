import Logging
import VarveStore
import VarveSystem
import SystemPackage
import TestSupport
import Testing

@testable import VarveCommands

/// Loopback stores as part of a host: how large they are, what is compressed in them, what a boot brings back, and their end.
@Suite struct LoopbackStoreTests {
    /// A loopback store in a directory of its own, and both gone at the end.
    private struct Place: ~Copyable {
        let directory: TemporaryDirectory
        let store: BytePath

        init(_ options: BytePath...) throws {
            directory = try TemporaryDirectory()
            store = directory.path.appending("store")
            let run = varve(["store", "init", store, "--loopback", "300M"] + options)
            #expect(run.code == 0 && run.errors.isEmpty, "\(run)")
        }

        deinit {
            _ = try? runCommand(["sh", "-c", "mountpoint -q \"$1\" && umount \"$1\"", "sh", "\(store)"])
        }

        func imageSize() throws -> Int64 {
            try FileDescriptor.workingDirectory.status(of: store.appendingBytes(".btrfs")).size
        }

        func fileSystemSize() throws -> Int64 {
            let text = try shell(asText: "df --output=size --block-size=1 \"$1\" | tail -n 1", store)
            return try #require(Int64(text.filter(\.isNumber)))
        }
    }

    @Test("A store grows and shrinks while it is used, and no further than what is in it allows")
    func resize() throws {
        let place = try Place()
        let start = try place.imageSize()
        #expect(start == 300 << 20)
        try shell("dd if=/dev/urandom of=\"$1/bundles.x\" bs=1M count=60 status=none", place.store)
        func resize(_ words: BytePath...) -> CommandRun {
            varve(["store", "resize"] + words + [place.store])
        }
        for (size, bytes) in [("+300M", 600), ("-100M", 500), ("400MiB", 400), ("700M", 700)] {
            let run = resize(BytePath(size))
            #expect(run.code == 0 && run.output.isEmpty && run.errors.isEmpty, "\(run)")
            #expect(try place.imageSize() == Int64(bytes) << 20)
            #expect(try place.fileSystemSize() == Int64(bytes) << 20)
        }
        try shell(
            "dd if=/dev/urandom of=\"$1/bundles.y\" bs=1M count=300 status=none; sync -f \"$1\"", place.store)
        let tight = resize("256M")
        #expect(
            tight.code == 7 && tight.errorText.contains("does not fit into 256 MiB; collect garbage"),
            "\(tight)")
        #expect(try place.imageSize() == 700 << 20 && place.fileSystemSize() == 700 << 20)
        for (size, says) in [
            ("1M", "a loopback store needs at least 256 MiB"), ("-690M", "at least 256 MiB"),
            ("+9223372036854775807", "would be more than a file can have"),
        ] {
            let run = resize(BytePath(size))
            #expect(run.code == 2 && run.errorText.contains(says), "\(run)")
        }
        let text = try shell(
            asText: "sha256sum <\"$1/bundles.x\"; umount \"$1\"; btrfs check \"$1.btrfs\" 2>&1", place.store)
        #expect(text.contains("no error found"), "\(text)")
        let unmounted = resize("+1G")
        #expect(
            unmounted.code == 4 && unmounted.errorText.contains("is not mounted; mount it with"),
            "\(unmounted)")
    }

    @Test("Only stores in image files have a size of their own")
    func resizeOfAnother() throws {
        let shop = try Workshop()
        let run = shop.run("store", "resize", "+1G")
        #expect(run.code == 5 && run.errorText.contains("is not in an image file of its own"), "\(run)")
    }

    @Test("What is compressed stays so after a reboot")
    func compression() throws {
        let place = try Place("--compress", "zstd:1")
        func option() throws -> String {
            try shell(asText: "findmnt --noheadings --output FS-OPTIONS \"$1\"", place.store)
        }
        #expect(try option().contains("compress=zstd:1"))
        try shell("head -c 20M /dev/zero | tr '\\0' x >\"$1/bundles.x\"; sync -f \"$1\"", place.store)
        #expect(
            try shell(asText: "du -m \"$1.btrfs\"", place.store).split(separator: "\t").first.flatMap {
                Int($0)
            } ?? 99 < 15)
        try shell("rm \"$1/bundles.x\"", place.store)
        #expect(varve("store", "unmount", place.store).code == 0)
        #expect(varve("store", "mount", place.store).code == 0)
        #expect(try option().contains("compress=zstd:1"))
        #expect(varve("store", "stat", place.store).text.contains("noatime, compression zstd:1"))
        // What an administrator has made of the mount stays.
        try shell("mount -o remount,bind,nosuid,nodev,ro \"$1\"", place.store)
        let options = try shell(asText: "findmnt --noheadings --output VFS-OPTIONS \"$1\"", place.store)
        #expect(options.contains("nosuid") && options.hasPrefix("ro"))
        #expect(varve("store", "mount", place.store).code == 0)
        #expect(try shell(asText: "findmnt --noheadings --output VFS-OPTIONS \"$1\"", place.store) == options)
    }

    @Test(arguments: ["lzo", "zstd:0", "zstd:16", "zstd:+1", "zstd:", "zstd:1:2", ""])
    func wrongCompression(_ text: String) {
        #expect(StoreCompression(text) == nil)
        let run = varve("store", "init", "--loopback", "300M", BytePath("--compress=\(text)"), "/nowhere")
        #expect(run.code == 2 && run.errorText.contains("invalid for '--compress"), "\(run)")
    }

    // MARK: Boots

    /// A host's files, with a systemd that runs or without.
    private func host(systemd: Bool) throws -> TemporaryDirectory {
        let root = try TemporaryDirectory()
        try shell(
            "mkdir -p \"$1/etc/systemd/system\" \"$1/run/systemd\"; echo '/dev/sda1 / ext4 defaults 0 1' >\"$1/etc/fstab\"",
            root.path)
        if systemd { try shell("mkdir \"$1/run/systemd/system\"", root.path) }
        return root
    }

    private func tree(_ root: borrowing TemporaryDirectory) throws -> String {
        try shell(asText: "cd \"$1\"; find . | sort; cat etc/fstab", root.path)
    }

    @Test("A mount unit, where systemd runs: made, made anew, and taken away without a trace")
    func unit() throws {
        let place = try Place("--compress", "zstd")
        let root = try host(systemd: true)
        let before = try tree(root)
        let mount = try BootMount(of: place.store, root: root.path, logger: Logger(label: "test"))
        #expect(!mount.isInstalled)
        for _ in 1...2 {
            try mount.install()
            #expect(mount.isInstalled)
        }
        let name = try runSuccessfully(["systemd-escape", "--path", "--suffix=mount", "\(place.store)"])
            .outputText.filter { $0 != "\n" }
        let text = try shell(asText: "cat \"$1\"/etc/systemd/system/*.mount", root.path)
        for line in [
            "What=\(place.store).btrfs", "Where=\(place.store)", "Type=btrfs",
            "Options=loop,noatime,user_subvol_rm_allowed,compress=zstd", "WantedBy=local-fs.target",
        ] { #expect(text.contains("\n\(line)\n"), "\(line) in \(text)") }
        #expect(
            try shell(asText: "readlink \"$1/etc/systemd/system/local-fs.target.wants/\"*", root.path)
                == "/etc/systemd/system/\(name)\n")
        try runSuccessfully([
            "systemd-analyze", "verify", "--man=no", "\(root.path)/etc/systemd/system/\(name)",
        ])
        #expect(try mount.remove() && !mount.isInstalled && !mount.remove())
        #expect(try tree(root) == before)

        // One that somebody else wrote is left alone.
        _ = try runSuccessfully([
            "sh", "-c", "echo '[Mount]' >\"$1\"", "sh", "\(root.path)/etc/systemd/system/\(name)",
        ])
        let others = try tree(root)
        #expect { try mount.install() } throws: { isStoreError($0, .failed) }
        #expect(try !mount.remove() && !mount.isInstalled)
        #expect(try tree(root) == others)
    }

    @Test("A line in fstab, where no systemd runs")
    func line() throws {
        let place = try Place()
        let root = try host(systemd: false)
        let before = try tree(root)
        let mount = try BootMount(of: place.store, root: root.path, logger: Logger(label: "test"))
        for _ in 1...2 { try mount.install() }
        #expect(mount.isInstalled)
        let line =
            "\(place.store).btrfs \(place.store) btrfs loop,noatime,user_subvol_rm_allowed,nofail,x-varve.store 0 0\n"
        #expect(try tree(root) == before + line)
        // As mount(8) takes it.
        try shell(
            "umount \"$1\"; mount --fstab \"$2/etc/fstab\" \"$1\"; findmnt -n -o OPTIONS \"$1\" | grep -q noatime",
            place.store, root.path)
        #expect(varve("store", "stat", place.store).code == 0)
        #expect(try mount.remove() && !mount.isInstalled)
        #expect(try tree(root) == before)
        try shell("echo '\(line.replacing(",x-varve.store", with: ""))' >>\"$1/etc/fstab\"", root.path)
        #expect(try !mount.remove() && !mount.isInstalled)
    }

    @Test("Names with blanks and dashes, as systemd and fstab have them")
    func names() throws {
        let directory = try TemporaryDirectory()
        let root = try host(systemd: false)
        let store = directory.path.appending("a b-c%d.e")
        let mount = try BootMount(of: store, root: root.path, logger: Logger(label: "test"))
        #expect(
            mount.unitName.string
                == (try runSuccessfully(["systemd-escape", "--path", "--suffix=mount", "\(store)"]).outputText
                    .filter { $0 != "\n" }))
        #expect {
            try BootMount(
                of: directory.path.appending("a\nb"), root: root.path, logger: Logger(label: "test"))
        } throws: {
            isStoreError($0, .usage)
        }
    }

    // MARK: The end

    @Test("A store in an image file goes with it, and not while it is in use")
    func destroyImage() throws {
        let place = try Place()
        let asked = varve("store", "destroy", place.store)
        #expect(
            asked.code == 2
                && asked.errorText.contains("with 0 chains, 0 snapshots and 0 bundles; say so with --yes"),
            "\(asked)")
        do {
            let opened = try FileDescriptor.workingDirectory.openDirectory(place.store)
            let busy = varve("store", "destroy", "--yes", place.store)
            #expect(busy.code == 1 && busy.errorText.contains("is in use"), "\(busy)")
            #expect(try opened.fd.entries().count > 4)
        }
        #expect(varve("store", "stat", place.store).code == 0)
        let run = varve("store", "destroy", "--yes", place.store)
        #expect(run.code == 0 && run.errors.isEmpty, "\(run)")
        #expect(try shell(asText: "ls -A \"$1\"", place.directory.path) == "")
        let again = varve("store", "destroy", "--yes", place.store)
        #expect(again.code == 4, "\(again)")
    }

    @Test("One that is in use for a moment alone, as by a process that is being started, is unmounted")
    func unmountSoon() throws {
        let place = try Place()
        try shell("cd \"$1\"; { exec >/dev/null 2>&1; sleep 0.4; } &", place.store)
        let run = varve("store", "unmount", place.store)
        #expect(run.code == 0 && run.errors.isEmpty, "\(run)")
    }

    @Test("One that is mounted in another mount name space too stays")
    func destroyElsewhereMounted() throws {
        let place = try Place()
        let other = try runSuccessfully([
            "sh", "-c", "unshare --mount --propagation private sleep 60 >/dev/null 2>&1 & echo $!",
        ]).outputText.filter(\.isNumber)
        defer { _ = try? runCommand(["kill", other]) }
        try shell(
            "until [ \"$(readlink /proc/\(other)/ns/mnt)\" != \"$(readlink /proc/self/ns/mnt)\" ]; do sleep 0.05; done"
        )
        let run = varve("store", "destroy", "--yes", place.store)
        #expect(run.code == 1 && run.errorText.contains("another mount name space"), "\(run)")
        #expect(varve("store", "stat", place.store).code == 0)
    }

    @Test("One that is not mounted goes too")
    func destroyUnmounted() throws {
        let place = try Place()
        #expect(varve("store", "unmount", place.store).code == 0)
        let run = varve("store", "destroy", "--yes", place.store)
        #expect(run.code == 0 && run.errors.isEmpty, "\(run)")
        #expect(try shell(asText: "ls -A \"$1\"", place.directory.path) == "")
    }

    @Test("A store in a directory goes with its bundles, snapshots and images, and nothing beside it")
    func destroyDirectory() throws {
        let shop = try Workshop()
        try shell("echo kept >\"$1/beside\"", shop.volume.path)
        for bundle in [shop.store.appending("bundles/in"), shop.bundle("out")] {
            #expect(shop.text("unpack", "--image", shop.image("empty"), bundle) == "")
            try shell("echo a >\"$1/rootfs/a\"", bundle)
            #expect(shop.text("repack", "--image", shop.image("a"), bundle) == "")
        }
        #expect(shop.text("snapshot", "create", shop.bundle("out"), "kept") == "")
        #expect(shop.text("pull", BytePath("oci:\(shop.layout):a")) != "")
        // Somebody's file, a mount, and a lock of another command.
        for (prepare, undo, says) in [
            ("touch \"$1/mine\"", "rm \"$1/mine\"", "is not the store's"),
            (
                "mount -t tmpfs none \"$1/bundles/in/rootfs\"", "umount \"$1/bundles/in/rootfs\"",
                "something is mounted at"
            ),
        ] {
            try shell(prepare, shop.store)
            let run = shop.run("store", "destroy", "--yes")
            #expect(run.code == 1 && run.errorText.contains(says), "\(run)")
            try shell(undo, shop.store)
        }
        #expect(shop.text("store", "check") == "")
        let run = shop.run("store", "destroy", "--yes")
        #expect(run.code == 0 && run.errors.isEmpty, "\(run)")
        #expect(
            try shell(asText: "cd \"$1\"; ls -A; cat beside out/rootfs/a", shop.volume.path)
                == "L\nbeside\nout\nkept\na\n")
        #expect(try shell(asText: "btrfs subvolume list -o \"$1\" | wc -l", shop.volume.path) == "1\n")
    }

    @Test("What is mounted there and does not lie in the image file is not what is destroyed")
    func destroyAnother() throws {
        let place = try Place()
        #expect(varve("store", "unmount", place.store).code == 0)
        try shell(
            "truncate -s 300M \"$1.disk\"; mkfs.btrfs -q \"$1.disk\"; mount -o loop,noatime \"$1.disk\" \"$1\"; rm \"$1.disk\"",
            place.store)
        #expect(varve("store", "init", place.store).code == 0)
        let run = varve("store", "destroy", "--yes", place.store)
        #expect(run.code == 5 && run.errorText.contains("does not lie in its image file"), "\(run)")
        #expect(varve("store", "stat", place.store).code == 0)
        #expect(try place.imageSize() == 300 << 20)
        let mount = varve("store", "mount", place.store)
        #expect(mount.code == 5 && mount.errorText.contains("does not lie in its image file"), "\(mount)")
    }

    // MARK: Two at once

    /// Runs a script with the store as `$S` and the command as `$V`; see `TogetherTests` for `stop` and `go`.
    private func play(_ script: String, _ place: borrowing Place) throws -> String {
        try runCommand(
            [
                "env", "V=\(try builtProgram("varve"))", "S=\(place.store)", "/bin/bash", "-c",
                "exec 2>&1\n\(TogetherTests.stops)\n\(script)",
            ]
        ).outputText
    }

    @Test("An image file is shown by one loop device, whoever has it mounted")
    func mountedTwice() throws {
        let place = try Place()
        let said = try play(
            """
            unshare --mount --propagation private sleep 60 & other=$!
            until [ "$(readlink /proc/$other/ns/mnt)" != "$(readlink /proc/self/ns/mnt)" ]; do sleep 0.05; done
            $V store unmount $S; $V store mount $S; echo "mount $?"; losetup -j $S.btrfs | wc -l
            $V store stat $S > /dev/null; echo "stat $?"; $V store unmount $S; kill $other; wait
            while [ "$(losetup -j $S.btrfs)" ]; do sleep 0.05; done
            for i in $(seq 10); do
                for j in 1 2 3; do ($V store mount $S || echo failed) & done; wait
                [ "$(losetup -j $S.btrfs | wc -l)" = 1 ] && [ "$(grep -c " $S " /proc/self/mountinfo)" = 1 ] || echo twice
                $V store unmount $S; while [ "$(losetup -j $S.btrfs)" ]; do sleep 0.05; done
            done
            """, place)
        #expect(said.contains("mount 0\n1\nstat 0"), "\(said)")
        #expect(!said.contains("twice") && !said.contains("failed"), "\(said)")
    }

    @Test("Two that change the size of a store do so one after the other")
    func resizedTwice() throws {
        let place = try Place()
        let said = try play(
            """
            stop resize-store $V store resize +300M $S; $V store resize +800M $S & other=$!; sleep 0.5; go first; wait $other; echo "other $?"
            """, place)
        #expect(said.contains("first 0") && said.contains("other 0"), "\(said)")
        #expect(try place.imageSize() == 1400 << 20 && place.fileSystemSize() == 1400 << 20)
    }

    @Test(
        "A store that was whole when its making was ended is kept by the next try", arguments: [true, false])
    func endedAtTheLast(isMounted: Bool) throws {
        let place = try Place()
        let said = try play(
            """
            $V store destroy --yes $S; stop finish-image $V store init --loopback 300M $S; kill -9 $process; wait $process
            mkdir $S/bundles; echo kept > $S/bundles/work; \(isMounted ? ":" : "umount $S")
            $V store init --loopback 300M $S; echo "init $?"; cat $S/bundles/work; ls -d $S.*; $V --store $S store check; echo "check $?"
            """, place)
        #expect(said.contains("init 0\nkept\n\(place.store).btrfs\ncheck 0\n"), "\(said)")
    }

    /// Leaves an image that was never finished, with a whole store in it, unmounted.
    private static let unfinishedImage = """
        $V store destroy --yes $S; stop finish-image $V store init --loopback 300M $S; kill -9 $process; wait $process
        mkdir $S/bundles; echo kept > $S/bundles/work; umount $S
        while [ "$(losetup -j $S.btrfs.new)" ]; do sleep 0.05; done
        """

    @Test(
        "An image that was never finished and cannot be mounted just now is left as it is",
        arguments: [
            "setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin",
            "unshare -m sh -c 'mount --bind /dev/null /dev/loop-control; exec \"$@\"' sh",
        ])
    func endedAtTheLastAndNotMountable(prefix: String) throws {
        let place = try Place()
        let said = try play(
            """
            \(Self.unfinishedImage)
            \(prefix) $V store init --loopback 300M $S; echo "refused $?"; ls -d $S.*
            $V store init --loopback 300M $S; echo "init $?"; cat $S/bundles/work
            """, place)
        #expect(said.contains("may hold a store, and is left as it is"), "\(said)")
        #expect(!said.contains("refused 0") && said.contains("\n\(place.store).btrfs.new\n"), "\(said)")
        #expect(said.contains("init 0\nkept\n"), "\(said)")
    }

    @Test("An image that was never finished is named, and kept where its first super block is damaged")
    func endedAtTheLastAndDamaged() throws {
        let place = try Place()
        let said = try play(
            """
            \(Self.unfinishedImage)
            $V store stat $S; echo "stat $?"; $V store mount $S; echo "mount $?"
            dd if=/dev/zero of=$S.btrfs.new bs=4096 seek=16 count=1 conv=notrunc status=none
            $V store init --loopback 300M $S; echo "damaged $?"; ls -d $S.*
            btrfs rescue super-recover -y $S.btrfs.new > /dev/null; $V store init --loopback 300M $S; echo "init $?"; cat $S/bundles/work
            """, place)
        let named = "there is no store at \"\(place.store)\", but \"\(place.store).btrfs.new\""
        #expect(
            said.contains("\(named), which") && said.contains("stat 4") && said.contains("mount 4"), "\(said)"
        )
        #expect(said.contains("may hold a store, and is left as it is"), "\(said)")
        #expect(!said.contains("damaged 0") && said.contains("\n\(place.store).btrfs.new\n"), "\(said)")
        #expect(said.contains("init 0\nkept\n"), "\(said)")
    }

    @Test(
        "What somebody has mounted at the place of an unfinished image stays mounted, and the image as it is",
        arguments: [
            "mount -t tmpfs none $S",
            "truncate -s 200M $S.disk; mkfs.btrfs -q $S.disk; mount -o loop $S.disk $S; rm $S.disk",
        ])
    func endedAtTheLastAndSomethingMounted(mount: String) throws {
        let place = try Place()
        let said = try play(
            """
            \(Self.unfinishedImage)
            \(mount); echo theirs > $S/file
            $V store init --loopback 300M $S; echo "init $?"; $V store unmount $S; echo "unmount $?"; $V store destroy --yes $S; echo "destroy $?"
            cat $S/file; umount $S; $V store init --loopback 300M $S; echo "then $?"; cat $S/bundles/work
            """, place)
        for code in ["init 0", "unmount 0", "destroy 0"] { #expect(!said.contains(code), "\(said)") }
        #expect(said.contains("\ntheirs\nthen 0\nkept\n"), "\(said)")
    }

    @Test(
        "What holds no store is made anew",
        arguments: ["head -c 1M /dev/zero >", "truncate -s 300M $S.btrfs.new; mkfs.btrfs -q"])
    func unfinishedWithoutStore(make: String) throws {
        let place = try Place()
        let said = try play(
            "$V store destroy --yes $S; umask 077; \(make) $S.btrfs.new; $V store init --loopback 300M $S; echo \"init $?\"; ls -d $S.*",
            place)
        #expect(said.contains("init 0\n\(place.store).btrfs\n"), "\(said)")
    }

    @Test("A store that is destroyed while it is mounted goes, or stays with its image file")
    func destroyedAndMounted() throws {
        let place = try Place()
        let said = try play(
            """
            for i in $(seq 12); do
                $V store unmount $S; $V store destroy --yes $S > d 2>&1 & sleep 0.0$i; $V store mount $S > m 2>&1; wait
                if mountpoint -q $S && [ ! -e $S.btrfs ]; then echo "lost in round $i"; fi
                if [ ! -e $S.btrfs ]; then $V store init --loopback 300M $S; elif ! mountpoint -q $S; then $V store mount $S; fi
            done; rm -f d m
            """, place)
        #expect(!said.contains("lost"), "\(said)")
    }

    @Test("Two that want a line in fstab each get one")
    func twoLines() async throws {
        let root = try host(systemd: false)
        let table = root.path.appending("etc/fstab")
        func install(_ name: BytePath, _ path: BytePath, _ root: BytePath) throws {
            try BootMount(of: path.appending(name), root: root, logger: Logger(label: "test")).install()
        }
        let (base, place) = (root.path, root.path)
        try shell("cd \"$1\"; for i in $(seq 0 39); do mkdir a$i b$i; done", place)
        for round in 0..<40 {
            async let first: Void = install(BytePath("a\(round)"), place, base)
            async let second: Void = install(BytePath("b\(round)"), place, base)
            _ = try await (first, second)
        }
        let text = try shell(asText: "grep -c x-varve.store \"$1\"; ls -A \"$2/etc\"", table, root.path)
        #expect(text.hasPrefix("80\n") && !text.contains("lock"), "\(text)")
    }

    @Test("No image file is made for a place where something is mounted")
    func initOnMounted() throws {
        let volume = try LoopVolume(size: 256 << 20)
        let run = varve("store", "init", "--loopback", "300M", volume.path)
        #expect(run.code == 1 && run.errorText.contains("something is mounted there"), "\(run)")
        let unmount = varve("store", "unmount", volume.path)
        #expect(unmount.code == 4 && unmount.errorText.contains("no store is mounted at"), "\(unmount)")
        #expect(try shell(asText: "ls -d \"$1\".* 2>/dev/null || ls -A \"$1\"", volume.path) == "")
        extendLifetime(volume)
    }

    // MARK: How it is

    @Test("stat shows where a store lies, how full it is, and what helps")
    func status() throws {
        let shop = try Workshop()
        #expect(shop.text("unpack", "--image", shop.image("empty"), shop.bundle("b")) == "")
        #expect(shop.text("snapshot", "create", shop.bundle("b"), "s") == "")
        let text = shop.text("store", "stat")
        for part in [
            "store:       \(shop.store)\n", "mounted at \(shop.volume.path)\n",
            "options:     noatime, no compression",
            "size:        512 MiB\n", "contents:    0 chains, 1 bundle, 1 snapshot\n",
        ] { #expect(text.contains(part), "\(part) in \(text)") }
        #expect(!text.contains("\n\n"), "\(text)")
        let json = shop.text("store", "stat", "--format", "json")
        for part in [
            "\"image\":null", "\"isNoAccessTime\":true", "\"hasQuotas\":false", "\"size\":536870912",
            "\"bundles\":1",
            "\"snapshots\":1", "\"problems\":[]",
        ] { #expect(json.contains(part), "\(part) in \(json)") }

        try shell(
            "mount -o remount,atime,relatime \"$1\"; btrfs quota enable \"$1\"; dd if=/dev/zero of=\"$1/full\" bs=1M 2>/dev/null || true; sync -f \"$1\"",
            shop.volume.path)
        let full = shop.text("store", "stat")
        for part in [
            "access times, no compression, quota groups", "there is little space left",
            "mount -o remount,noatime",
            "store gc, or enlarge the file system",
        ] { #expect(full.contains(part), "\(part) in \(full)") }
    }
}
