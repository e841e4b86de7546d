import Glibc
import VarveStore
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// Trees that are deeper than a process may have files open, and than a path may be long: whoever runs a container can make them in its
/// root.
@Suite struct DeepTreeTests {
    /// Few enough that a descriptor for each level is too many at once, and that a directory for each of 100 levels is too.
    private static let descriptors = 64
    private static let depth = 3_500

    /// Directories in directories below `path`, with one beside each and a file at the end.
    private static func makeDeep(_ path: BytePath, depth: Int) throws {
        var directory = SharedDescriptor(try FileDescriptor.workingDirectory.openDirectory(path))
        for _ in 0..<depth {
            for name in ["deep", "beside"] as [BytePath] { try directory.fd.makeDirectory(name, mode: 0o755) }
            directory = SharedDescriptor(try directory.fd.openDirectory("deep"))
        }
        try directory.fd.writeFileDurably("end", [1])
    }

    private static func limited(_ words: [String]) throws -> CommandResult {
        try runCommand(
            [
                "prlimit", "--nofile=\(descriptors):\(descriptors)", "env", "HOME=/nonexistent",
                try builtProgram("varve"),
            ]
                + words)
    }

    /// A bundle of the driver `directory`, as its commands name it.
    private final class World {
        let directory: TemporaryDirectory
        var layout: String { "\(directory.path)/layout" }
        var bundle: BytePath { directory.path.appending("bundle") }

        init() throws {
            directory = try TemporaryDirectory()
            for words in [
                ["init", "--layout", layout], ["new", "--image", "\(layout):a"],
                ["unpack", "--driver", "directory", "--image", "\(layout):a", "\(bundle)"],
            ] { try runSuccessfully([try builtProgram("varve")] + words) }
        }
    }

    @Test("A bundle whose tree is deeper than a process may have files open is deleted whole")
    func removal() throws {
        let world = try World()
        try Self.makeDeep(world.bundle.appending("rootfs"), depth: Self.depth)
        let run = try Self.limited(["bundle", "rm", "\(world.bundle)"])
        #expect(run.status == 0 && run.errorText == "", "\(run.errorText)")
        let left = try FileDescriptor.workingDirectory.openDirectory(world.directory.path)
        #expect(try left.fd.entries().map(\.name.description) == ["layout"])
    }

    @Test("A deep tree is compared, recorded and packed with few descriptors") func walks() throws {
        let world = try World()
        // As deep as a layer can say.
        try Self.makeDeep(world.bundle.appending("rootfs"), depth: 700)
        let before = try Self.limited(["diff", "--driver", "directory", "\(world.bundle)"])
        #expect(before.status == 0, "\(before.errorText)")
        #expect(before.outputText.split(separator: "\n").count == 2 * 700 + 2)
        let repack = try Self.limited(
            [
                "repack", "--refresh-bundle", "--driver", "directory", "--image", "\(world.layout):b",
                "\(world.bundle)",
            ])
        #expect(repack.status == 0, "\(repack.errorText)")
        let after = try Self.limited(["diff", "--driver", "directory", "\(world.bundle)"])
        #expect(after.status == 0 && after.outputText == "", "\(after.errorText)")
        // Both sides are deep now.
        try shell("touch \"$1/rootfs/deep/deep/deep/new\"", world.bundle)
        let changed = try Self.limited(["diff", "--driver", "directory", "\(world.bundle)"])
        #expect(changed.outputText == "M deep/deep/deep\nA deep/deep/deep/new\n", "\(changed.errorText)")
        let whole = try runCommand([
            try builtProgram("varve"), "raw", "unpack", "--image", "\(world.layout):b",
            "\(world.directory.path)/whole",
        ])
        #expect(whole.status == 0, "\(whole.errorText)")
        try shell(
            "cd \"$1\"; find whole | wc -l > a; find bundle/rootfs ! -name new | wc -l > b; cmp a b",
            world.directory.path)
    }

    @Test("A whiteout deletes a deep tree of a lower layer with few descriptors") func whiteouts() throws {
        let world = try World()
        try Self.makeDeep(world.bundle.appending("rootfs"), depth: 700)
        for step in [
            [
                "repack", "--refresh-bundle", "--driver", "directory", "--image", "\(world.layout):b",
                "\(world.bundle)",
            ],
            ["bundle", "rm", "\(world.bundle)"],
        ] { #expect(try Self.limited(step).status == 0) }
        let again = ["unpack", "--driver", "directory", "--image", "\(world.layout):b", "\(world.bundle)"]
        try runSuccessfully([try builtProgram("varve")] + again)
        try shell("rm -r \"$1/rootfs/deep\"", world.bundle)
        #expect(
            try Self.limited([
                "repack", "--driver", "directory", "--image", "\(world.layout):c", "\(world.bundle)",
            ])
            .status == 0)
        // 128 directories may be open while entries are put into them.
        let run = try runCommand([
            "prlimit", "--nofile=200:200", try builtProgram("varve"), "raw", "unpack", "--image",
            "\(world.layout):c",
            "\(world.directory.path)/c",
        ])
        #expect(run.status == 0, "\(run.errorText)")
        try shell("cd \"$1/c\"; ls > ../names; echo beside | cmp - ../names", world.directory.path)
    }

    @Test("A bundle in which more subvolumes lie in each other than files may be open is deleted whole")
    func nestedSubvolumes() throws {
        let volume = try LoopVolume(size: 512 << 20, options: "user_subvol_rm_allowed")
        let count = 100
        let script = """
            cd "$1"; export HOME=/nonexistent VARVE_STORE=$PWD/store;
            v=$2; "$v" store init; "$v" init --layout L; "$v" new --image L:a; "$v" unpack --image L:a b
            (cd b/rootfs; for i in $(seq \(count)); do
                btrfs -q subvolume create s; mkdir -p s/d/e; btrfs -q subvolume create s/d/e/beside; cd -P s/d/e
            done)
            [ $(btrfs subvolume list -o b | wc -l) -gt 0 ]
            prlimit --nofile=\(Self.descriptors):\(Self.descriptors) "$v" bundle rm b; ls
            """
        let run = try runCommand(
            ["bash", "-ec", script, "bash", "\(volume.path)", try builtProgram("varve")])
        #expect(
            run.status == 0 && run.outputText == "L\nstore\n",
            "\(run.status) \(run.outputText) \(run.errorText)")
    }

    /// A tree of any depth costs what one of the deepest paths that a layer holds costs.
    @Test("What is deeper than a layer can say is refused before it is walked, packed or held in memory")
    func refusedInTime() throws {
        let world = try World()
        let rootfs = world.bundle.appending("rootfs")
        func cost(_ words: [String]) throws -> Double {
            let run = try runCommand(
                [
                    "bash", "-c", "\"$@\"; code=$?; times | tail -1; exit $code", "bash",
                    try builtProgram("varve"),
                ] + words)
            #expect(
                run.status == 1 && run.errorText.contains("/deep")
                    && run.errorText.contains("4094 is the most"),
                "\(words): \(run.status) \(run.errorText.suffix(300))")
            // `0m0.012s 0m0.034s`
            return run.outputText.split(whereSeparator: { " \n".contains($0) }).suffix(2).reduce(0) {
                let parts = $1.dropLast().split(separator: "m").compactMap { Double($0) }
                return parts.count == 2 ? $0 + parts[0] * 60 + parts[1] : .infinity
            }
        }
        let commands = [
            ["diff", "\(world.bundle)"], ["repack", "--image", "\(world.layout):b", "\(world.bundle)"],
            ["insert", "--image", "\(world.layout):a", "\(rootfs)", "/x"],
        ]
        try Self.makeDeep(rootfs, depth: 1_000)
        let small = try commands.map(cost)
        try shell("mv \"$1/rootfs/deep\" \"$1/rootfs/shallow\"", world.bundle)
        try shell("rm -r \"$1/rootfs/shallow\" \"$1/rootfs/beside\"", world.bundle)
        try Self.makeDeep(rootfs, depth: 8_000)
        let large = try commands.map(cost)
        for (small, large) in zip(small, large) {
            #expect(large <= 3 * max(small, 0.05), "\(small) \(large)")
        }
        // What is masked may be as deep as it likes.
        let masked = try Self.limited([
            "repack", "--mask-path", "/deep", "--image", "\(world.layout):b", "\(world.bundle)",
        ])
        #expect(masked.status == 0, "\(masked.errorText.suffix(300))")
        try runSuccessfully([try builtProgram("varve"), "bundle", "rm", "\(world.bundle)"])
    }

    /// The removal stops where it is about to go back to a directory that it has closed. The directory that it is in is then moved
    /// into another user's.
    @Test("A tree whose directories are moved while it is deleted leads the removal to nothing outside")
    func moved() throws {
        let world = try World()
        try Self.makeDeep(world.bundle.appending("rootfs"), depth: 40)
        try shell("mkdir -p \"$1/victim/deep2\"; echo x > \"$1/victim/file\"", world.directory.path)
        let script = """
            VARVE_STOP_AT=directory-above HOME=/nonexistent "$2" bundle rm "$1/bundle" 2>"$1/errors" & process=$!
            while state=$(cut -d' ' -f3 /proc/$process/stat) && [ "$state" != T ]; do sleep 0.01; done
            cd "$1"; inside=$(readlink /proc/$process/fd/* | grep -F /deep/ | awk '{ print length, $0 }' | sort -n | tail -1 | cut -d' ' -f2-)
            [ -n "$inside" ]; mv "$inside" victim/deep3
            kill -CONT $process; while kill -CONT $process 2>/dev/null; do sleep 0.01; done
            wait $process && exit 1; grep -q 'another file was put in its place' errors
            [ "$(cat victim/file)" = x ]; [ -d victim/deep2 ]
            """
        let run = try runCommand(
            ["bash", "-ec", script, "bash", "\(world.directory.path)", try builtProgram("varve")])
        let errors = try runCommand(["cat", "\(world.directory.path)/errors"]).outputText
        #expect(run.status == 0, "\(run.errorText)\(errors)")
    }
}
