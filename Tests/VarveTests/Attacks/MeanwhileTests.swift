import Glibc
import SystemPackage
import TestSupport
import Testing
import VarveBtrfs
import VarveLayers
import VarveOCI
import VarveSystem

@testable import VarveStore

/// What else goes on while a command works, or has ended its process.
@Suite struct MeanwhileTests {
    @Test(
        "While a command runs in a bundle, nobody packs, copies or deletes it: its mount points are no changes"
    )
    func run() throws {
        let shop = try Workshop()
        _ = shop.text("unpack", "--image", shop.image("empty"), shop.bundle("b"))
        let before = try shell(asText: "find \"$1\" | sort", shop.bundle("b"))
        // What stands for a runtime runs until it is ended.
        try shell(
            "printf '#!/bin/sh\\necho > \"%s/began\"; exec sleep 1000\\n' \"$1\" > \"$1/crun\"; chmod +x \"$1/crun\"",
            shop.volume.path)
        let runtime = shop.volume.path.appending("crun")
        let process = try VarveProcess(
            ["run", "--runtime", "\(runtime)", "\(shop.bundle("b"))", "--", "true"], in: shop.volume.path)
        let began = shop.volume.path.appending("began")
        while (try? FileDescriptor.workingDirectory.status(of: began)) == nil { usleep(10_000) }
        let image = shop.image("x")
        for words: [BytePath] in [
            ["repack", "--image", image, shop.bundle("b")], ["snapshot", "create", shop.bundle("b"), "s"],
            ["bundle", "rm", shop.bundle("b")],
            ["repack", "--refresh-bundle", "--image", image, shop.bundle("b")],
            ["diff", shop.bundle("b")],
        ] {
            let run = shop.run(words)
            #expect(
                run.code == 1
                    && (run.errorText.contains("a command runs in the bundle")
                        || run.errorText.contains("another command is at work in the bundle")),
                "\(words): \(run)")
        }
        kill(process.pid, SIGTERM)
        #expect(process.end() == 143)
        #expect(try shell(asText: "find \"$1\" | sort", shop.bundle("b")) == before)
        #expect(shop.text("diff", shop.bundle("b")) == "")
    }

    @Test(
        "A run that cannot have its mount points leaves none of them, and hears a signal before its command runs"
    )
    func deepVolumes() throws {
        let shop = try Workshop()
        let deep = String(repeating: "/d", count: 600)
        try runSuccessfully(["umoci", "config", "--image", "\(shop.image("empty"))", "--config.volume", deep])
        _ = shop.text("unpack", "--image", shop.image("empty"), shop.bundle("b"))
        let run = shop.run(["run", "--runtime", "/bin/true", shop.bundle("b"), "--", "true"])
        #expect(run.code != 0 && run.errorText.contains("mount point"), "\(run)")
        #expect(try shell(asText: "ls \"$1/rootfs\"", shop.bundle("b")) == "")
    }

    @Test("A snapshot that is being sent is replaced, and goes when it is sent")
    func replacedWhileSent() throws {
        let shop = try Workshop()
        _ = shop.text("unpack", "--image", shop.image("empty"), shop.bundle("b"))
        try shell("head -c 4M /dev/urandom > \"$1/rootfs/f\"", shop.bundle("b"))
        _ = shop.text("snapshot", "create", shop.bundle("b"), "s")
        try shell("echo new > \"$1/rootfs/f\"", shop.bundle("b"))
        // It waits for whoever reads it.
        let snapshots = shop.store.appending("snapshots")
        let unread = try Unread(in: shop.volume.path)
        defer { extendLifetime(unread) }
        let sending = try startProgram([
            "/bin/sh", "-c", "exec btrfs send -q \"$1\" > \"$2\"", "sh", "\(snapshots)/s", "\(unread.path)",
        ])
        defer {
            kill(sending, SIGKILL)
            _ = EngineKillTests.wait(sending)
        }
        func names() throws -> [String] {
            let opened = SharedDescriptor(try FileDescriptor.workingDirectory.openDirectory(snapshots))
            return try opened.fd.entries().map(\.name.description).sorted()
        }
        // The kernel keeps a subvolume that is sent.
        try unread.waitForOutput()
        let replaced = shop.run(["snapshot", "create", "--replace", shop.bundle("b"), "s"])
        #expect(replaced.code == 0 && replaced.errorText.contains("cannot be deleted yet"), "\(replaced)")
        #expect(try names().count == 2)
        _ = shop.run(["snapshot", "ls"])
        #expect(try names().count == 2)
        kill(sending, SIGKILL)
        _ = EngineKillTests.wait(sending)
        for _ in 0..<3000 where try names().count == 2 {
            _ = shop.run(["snapshot", "ls"])
            usleep(10_000)
        }
        #expect(try names() == ["s"])
        #expect(try shell(asText: "cat \"$1/s/rootfs/f\"", snapshots) == "new\n")
    }

    @Test("A comparison of images that is killed leaves nothing that a collection does not take")
    func killedComparison() throws {
        let shop = try Workshop()
        try shell("seq 1000 > \"$1/file\"", shop.volume.path)
        _ = shop.text(
            "insert", "--image", shop.image("empty"), "--tag", "one", shop.volume.path.appending("file"), "/f"
        )
        let words = ["diff", "\(shop.image("empty"))", "\(shop.image("one"))"]
        var point = 0
        while true {
            point += 1
            let process = try VarveProcess(words, in: shop.volume.path, stopAt: point)
            var status: CInt = 0
            guard process.hasStopped(&status) else { break }
            kill(process.pid, point % 2 == 0 ? SIGTERM : SIGKILL)
            kill(process.pid, SIGCONT)
            _ = process.end()
            #expect(shop.run(["store", "gc"]).code == 0)
            let left = try shell(
                asText: "ls -A \"$1/bundles\" \"$1/work\" \"$1/chains\" | grep -v : || :", shop.store)
            #expect(left.split(separator: "\n").isEmpty, "point \(point): \(left)")
        }
        #expect(point > 3)
    }

    @Test("Space is counted only until somebody ends it")
    func cancelledFigures() throws {
        let world = try StoreWorld()
        try world.addImage("a", [try StoreLayer([.file("f", String(repeating: "x", count: 1 << 16))])])
        _ = varve(
            "--store", world.storePath, "unpack", "--image", world.layoutPath.appendingBytes(":a"),
            world.bundle())
        let cancellation = Cancellation()
        let opened = try FileDescriptor.workingDirectory.openDirectory(world.storePath)
        let search = try opened.fd.subvolumeInfo().id
        cancellation.cancel()
        #expect(throws: (any Error).self) {
            try SpaceUsage(opened.fd, cancellation).figures(of: [search, 5])
        }
        #expect(try SpaceUsage(opened.fd, Cancellation()).figures(of: [search]).figures.count == 1)
    }

    @Test(
        "The first signal ends the reading of what a bundle was unpacked as",
        arguments: [["--driver", "directory"], ["--driver", "directory", "--mtree"]] as [[BytePath]])
    func cancelledRecord(_ options: [BytePath]) throws {
        let shop = try Workshop()
        _ = shop.run(["unpack"] + options + ["--image", shop.image("empty"), shop.bundle("b")])
        if options.last == "--mtree" {
            try shell("cd \"$1\"; ls *.mtree; find . -maxdepth 1 -name '*.record*' -delete", shop.bundle("b"))
        }
        let kind = try BundleKind.of(shop.bundle("b"))
        #expect(kind == (options.last == "--mtree" ? .umoci : .directory))
        try shell("touch \"$1/rootfs/x\"", shop.bundle("b"))
        let cancellation = Cancellation()
        let context = RepackContext(bundle: shop.bundle("b"), cancellation: cancellation)
        let logger = StoreLog().logger
        let delta = try DirectoryFrozenBundle(context, logger: logger).delta {}
        #expect(delta.changes.contains { $0.path == "x" })
        cancellation.cancel()
        #expect { _ = try DirectoryFrozenBundle(context, logger: logger) } throws: {
            isStoreError($0, .interrupted)
        }
    }

    @Test("Output that nobody reads keeps no command from ending; a file that may not grow is an error")
    func limits() throws {
        let shop = try Workshop()
        try shell(
            """
            python3 - "$1/index.json" <<'END'
            import json, sys
            index = json.load(open(sys.argv[1]))
            entry = index["manifests"][0]
            index["manifests"] = [dict(entry, annotations={"org.opencontainers.image.ref.name": "tag-%06d" % n}) for n in range(20000)]
            json.dump(index, open(sys.argv[1], "w"))
            END
            """, shop.layout)
        let unread = try Unread(in: shop.volume.path)
        defer { extendLifetime(unread) }
        let process = try startProgram([
            "/bin/sh", "-c", "exec \"$1\" ls --layout \"$2\" > \"$3\"", "sh", try builtProgram("varve"),
            "\(shop.layout)", "\(unread.path)",
        ])
        // It waits in poll(2).
        func waits() throws -> Bool {
            let text = try FileDescriptor.workingDirectory.readFile(
                BytePath("/proc/\(process)/wchan"), limit: 256)
            return String(decoding: text, as: UTF8.self).contains("poll")
        }
        while try !waits() { usleep(10_000) }
        kill(process, SIGTERM)
        #expect(VarveProcess.code(EngineKillTests.wait(process)) == 143)

        try shell("head -c 1M /dev/urandom > \"$1/file\"", shop.volume.path)
        let run = try runCommand([
            "/bin/bash", "-c", "ulimit -f 64; exec \"$1\" insert --image \"$2\" --tag new \"$3\" /f", "bash",
            try builtProgram("varve"), "\(shop.image("tag-000001"))", "\(shop.volume.path)/file",
        ])
        #expect((1..<128).contains(run.status) && run.errorText.contains("File too large"), "\(run)")
        #expect(try shell(asText: "find \"$1\" -name '.varve-blob*'", shop.layout) == "")
    }

    @Test("A directory that is made on the way is dated the same, whatever number the file system gives it")
    func numbersGivenOutAgain() throws {
        let volume = try LoopVolume(size: 256 << 20)
        let run = try runCommand([
            "bash", "-ec",
            """
            cd "$1"; v=$2; export HOME=/nonexistent; "$v" init --layout L; "$v" new --image L:a
            python3 - <<'END'
            import io, tarfile
            with tarfile.open("layer.tar", "w", format=tarfile.PAX_FORMAT) as tar:
                def add(name, kind, **more):
                    entry = tarfile.TarInfo(name)
                    entry.type, entry.mtime, entry.mode, entry.linkname = kind, 111, 0o755, "x" if kind == tarfile.SYMTYPE else ""
                    entry.pax_headers = more
                    tar.addfile(entry)
                for n in range(40): add("a%d" % n, tarfile.DIRTYPE)
                for n in range(40): add("b%d" % n, tarfile.REGTYPE, **{"SCHILY.acl.access": "user::rwx,user:daemon:r-x,group::r-x,mask::r-x,other::r-x"})
                for n in range(40): add("a%d" % n, tarfile.REGTYPE)
                for n in range(40): add("b%d" % n, tarfile.SYMTYPE if n % 2 else tarfile.REGTYPE)
                for n in range(80): add("c%d/x" % n, tarfile.REGTYPE)
            END
            "$v" raw add-layer --image L:a layer.tar
            truncate -s 64M ext4; mkfs.ext4 -q -N 512 ext4; mkdir m; mount -o loop ext4 m; trap 'umount m' EXIT
            "$v" raw unpack --image L:a m/out
            stat -c %Y m/out/c* | sort | uniq -c; getfacl -R m/out | grep -c daemon || :
            """, "bash", "\(volume.path)", try builtProgram("varve"),
        ])
        #expect(run.status == 0 && run.outputText.trimmed == "80 0\n0", "\(run.outputText) \(run.errorText)")
    }
}

/// A FIFO that somebody has open for reading, and from which nobody reads.
private final class Unread {
    let path: BytePath
    private let reader: SharedDescriptor

    init(in directory: BytePath) throws {
        path = directory.appending("fifo")
        try runSuccessfully(["mkfifo", "\(path)"])
        reader = SharedDescriptor(
            try FileDescriptor.workingDirectory.open(path, [.readWrite, .nonBlocking]))
    }

    /// Waits for the first byte, and takes that.
    func waitForOutput() throws {
        var byte: UInt8 = 0
        while unsafe read(reader.fd.rawValue, &byte, 1) != 1 {
            guard errno == EAGAIN || errno == EINTR else { throw Errno(rawValue: errno) }
            usleep(10_000)
        }
    }
}

extension String {
    /// Without blanks around its lines.
    fileprivate var trimmed: String {
        split(separator: "\n").map { line in String(line.drop { $0 == " " }) }.joined(separator: "\n")
    }
}
