import Glibc
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage
import TestSupport
import Testing

@testable import VarveCommands

/// Bundles as plain directories, by the command line.
@Suite struct CommandsDriverTests {
    /// A layout with an image `a` and one with no layers, and room for bundles; no store.
    final class Bench {
        let directory: SharedTemporaryDirectory
        var layout: BytePath { directory.path.appending("L") }
        func bundle(_ name: String = "b") -> BytePath { directory.path.appending(name) }
        func image(_ tag: String) -> BytePath { layout.appendingBytes(BytePath(":\(tag)")) }

        init() throws {
            directory = try SharedTemporaryDirectory()
            for words in [
                ["init", "--layout", layout], ["new", "--image", image("empty")],
                ["unpack", "--driver", "directory", "--image", image("empty"), bundle("first")],
            ] as [[BytePath]] {
                let run = varve(words)
                #expect(run.code == 0 && run.errors.isEmpty && run.output.isEmpty, "\(run)")
            }
            try shell(
                "cd \"$1/rootfs\"; mkdir d; echo x > d/f; ln d/f g; touch -d @1000 d d/f .", bundle("first"))
            #expect(text("repack", "--image", image("a"), bundle("first")) == "")
            #expect(text("bundle", "rm", bundle("first")) == "")
            #expect(text("unpack", "--driver", "directory", "--image", image("a"), bundle()) == "")
        }

        /// What a command that must succeed in silence prints.
        func text(_ words: BytePath..., sourceLocation: SourceLocation = #_sourceLocation) -> String {
            let run = varve(words)
            #expect(run.code == 0 && run.errors.isEmpty, "\(words): \(run)", sourceLocation: sourceLocation)
            return run.text
        }

        func names(_ directory: BytePath) throws -> [String] {
            let opened = try FileDescriptor.workingDirectory.open(directory, [.directory])
            return try opened.fd.entries().map(\.name.description).sorted()
        }
    }

    @Test("auto says once why a bundle becomes a plain directory")
    func auto() throws {
        let bench = try Bench()
        let volume = try LoopVolume(size: 512 << 20)
        let store = volume.path.appending("store")
        #expect(varve("store", "init", store).code == 0)
        for (name, inStore) in [("away", false), ("in/the/store", true)] {
            let bundle = inStore ? volume.path.appending(name) : bench.bundle(name)
            let run = varve(
                "unpack", "--image", bench.image("a"), bundle, variables: ["VARVE_STORE": "\(store)"])
            let line =
                "varve: warning: \"\(bundle)\" becomes a plain directory and shares nothing with other bundles: it does not lie on the btrfs that holds the store \"\(store)\"\n"
            #expect(run.code == 0 && run.text == "" && run.errorText == (inStore ? "" : line), "\(run)")
            #expect(try BundleKind.of(bundle) == (inStore ? .btrfs : .directory))
        }
        // A store that is named must be there.
        let wrong = varve(
            "--store", bench.bundle("none"), "unpack", "--image", bench.image("a"), bench.bundle("c"))
        #expect(wrong.code == 4 && wrong.errorText.contains("there is no store in"), "\(wrong)")
        let none = varve("unpack", "--image", bench.image("a"), bench.bundle("d"))
        #expect(
            none.code == 0
                && none.errorText.hasPrefix("varve: warning: \"\(bench.bundle("d"))\" becomes a plain"))
        #expect(none.errorText.filter { $0 == "\n" }.count == 1, "\(none)")
        extendLifetime(volume)
    }

    @Test("diff and repack find out by themselves what a bundle is")
    func wholeLife() throws {
        let bench = try Bench()
        #expect(
            bench.text("diff", bench.bundle()) == "" && bench.text("diff", "--paranoid", bench.bundle()) == ""
        )
        try shell("cd \"$1/rootfs\"; rm g; echo n > n; touch -d @1000 .", bench.bundle())
        #expect(bench.text("diff", bench.bundle()) == "D g\nA n\n")
        for source in ["stream", "search"] {
            let run = varve("diff", "--source", BytePath(source), bench.bundle())
            #expect(run.code == 1 && run.errorText.contains("is no snapshot of a btrfs store"), "\(run)")
        }
        #expect(bench.text("diff", "--source", "walk", bench.bundle()) == "D g\nA n\n")
        #expect(
            bench.text(
                "repack", "--paranoid", "--refresh-bundle", "--image", bench.image("b"), bench.bundle())
                == "")
        #expect(bench.text("diff", bench.bundle()) == "")
        #expect(
            bench.text("unpack", "--driver", "directory", "--image", bench.image("b"), bench.bundle("c"))
                == "")
        #expect(try bench.names(bench.bundle("c").appending("rootfs")) == ["d", "n"])
        #expect(try bench.names(bench.directory.path) == ["L", "b", "c"])
        for name in ["b", "c"] { #expect(bench.text("bundle", "rm", bench.bundle(name)) == "") }
        #expect(try bench.names(bench.directory.path) == ["L"])
    }

    @Test(
        "Content that hides behind its old size and time is found; behind its change time too only by --paranoid"
    )
    func paranoid() throws {
        let bench = try Bench()
        let path = bench.bundle().appending("rootfs")
        try shell("cd \"$1\"; printf y > d/f; printf '\\n' >> d/f; touch -d @1000 d/f", path)
        #expect(bench.text("diff", bench.bundle()) == "M d/f\nM g\n")
        // Nobody but who writes below the file system can have the change time of before: as it would then be recorded. Of a bundle that was just
        // unpacked, as after a refresh no change time is believed on tmpfs.
        let other = bench.bundle("c")
        #expect(bench.text("unpack", "--driver", "directory", "--image", bench.image("a"), other) == "")
        let record = try #require(try bench.names(other).first { $0.hasSuffix(".record") })
        let file = other.appending(record)
        var bytes = try FileDescriptor.workingDirectory.readFile(file, limit: 1 << 20)
        let digest = Digest(of: "x\n".utf8).bytes
        let start = try #require(bytes.indices.first { bytes[$0...].starts(with: digest) })
        bytes[start] ^= 1
        bytes.replaceSubrange((bytes.count - 32)..., with: Digest(of: bytes.dropLast(32)).bytes)
        let directory = try FileDescriptor.workingDirectory.open(other, [.directory])
        try directory.fd.writeFileDurably(BytePath(record), bytes)
        #expect(bench.text("diff", other) == "")
        #expect(bench.text("diff", "--paranoid", other).hasPrefix("M "))
    }

    @Test("A bundle that was copied is compared by content, and nothing is found changed")
    func copied() throws {
        let bench = try Bench()
        try runSuccessfully(["cp", "-a", "\(bench.bundle())", "\(bench.bundle("copy"))"])
        #expect(bench.text("diff", bench.bundle("copy")) == "")
        try shell("cd \"$1/rootfs\"; cp -p g x; mv x g; touch -d @1000 .", bench.bundle("copy"))
        #expect(bench.text("diff", bench.bundle("copy")) == "M d/f\nM g\n")
    }

    @Test("A record that is damaged or gone is said to be so")
    func damaged() throws {
        let bench = try Bench()
        try shell("truncate -s -1 \"$1\"/*.record", bench.bundle())
        let run = varve("diff", bench.bundle())
        #expect(
            run.code == 3
                && run.errorText.hasSuffix(
                    "its checksum is wrong; what changed in the bundle cannot be told any more, unpack the image again\n"
                ), "\(run)")
        try shell("rm \"$1\"/*.record", bench.bundle())
        for words in [["diff", bench.bundle()], ["repack", "--image", bench.image("b"), bench.bundle()]]
            as [[BytePath]]
        {
            let run = varve(words)
            #expect(
                run.code == 4 && run.errorText.contains("does not say what it was unpacked as"),
                "\(run)")
        }
    }

    @Test("What is mounted in a bundle is neither taken for a deletion nor deleted")
    func mounted() throws {
        let bench = try Bench()
        let place = bench.bundle().appending("rootfs/d")
        try mount("none", at: place, type: "tmpfs")
        defer { try? unmount(place, detaching: true) }
        try shell("echo precious > \"$1/p\"", place)
        let run = varve("diff", bench.bundle())
        #expect(
            run.code == 5 && run.errorText.contains("\"\(place)\" is a mount point"),
            "\(run)")
        // Neither deleted nor moved, with all that is in it (`BundleRemovalTests`).
        #expect(varve("bundle", "rm", bench.bundle()).code == 5)
        #expect(
            try FileDescriptor.workingDirectory.readFile(place.appending("p"), limit: 10)
                == Array("precious\n".utf8))
        try unmount(place)
        #expect(bench.text("bundle", "rm", bench.bundle()) == "")
        #expect(try bench.names(bench.directory.path) == ["L"])
    }

    @Test("What a dead process left beside a bundle goes; what a living one is at stays")
    func leftovers() throws {
        let bench = try Bench()
        try shell(
            "cd \"$1\"; mkdir -p .varve-work-dead/rootfs/x .varve-work-live/rootfs; chmod 700 .varve-work-*; echo x > .varve-work-dead/rootfs/x/f",
            bench.directory.path)
        let live = try FileDescriptor.workingDirectory.open(
            bench.directory.path.appending(".varve-work-live"), [.directory])
        #expect(try live.fd.tryLock(.exclusive))
        #expect(
            bench.text("unpack", "--driver", "directory", "--image", bench.image("a"), bench.bundle("c"))
                == "")
        #expect(try bench.names(bench.directory.path) == [".varve-work-live", "L", "b", "c"])
    }

    @Test("What is no bundle is not deleted")
    func notRemoved() throws {
        let bench = try Bench()
        try shell("cd \"$1\"; mkdir -p x/rootfs; ln -s b link", bench.directory.path)
        for (name, code, message) in [
            ("x", 4, "is not a bundle"), ("L", 4, "is not a bundle"), ("link", 1, "is a symbolic link"),
            ("none", 4, "there is no bundle"), ("b/rootfs", 4, "is not a bundle"),
            ("b/.", 2, "does not end with the name of a bundle"),
        ] as [(String, Int32, String)] {
            let run = varve("bundle", "rm", bench.bundle(name))
            #expect(run.code == code && run.errorText.contains(message), "\(name): \(run)")
        }
        #expect(try bench.names(bench.bundle()).count == 4)
    }
}
