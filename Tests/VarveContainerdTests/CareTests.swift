import ContainerdChecks
import Synchronization
import TestSupport
import Testing
import VarveCommands
import VarveFormats
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage

@testable import VarveContainerd

/// What the command says of the snapshots that daemons have in a store, and does with them.
@Suite(.serialized) struct CareTests {
    private static let none = SnapshotKey("")

    /// What a command line gave.
    private struct Run {
        var code: Int32
        var output: String
        var errors: String
    }

    private final class Sink: Sendable {
        private let bytes = Mutex<[UInt8]>([])
        var all: [UInt8] { bytes.withLock { $0 } }
        var sink: OutputSink { OutputSink { [self] bytes in self.bytes.withLock { $0 += bytes } } }
    }

    private func varve(
        _ room: borrowing DaemonRoom, _ words: String..., answer: String? = nil, canAsk: Bool = false
    ) -> Run {
        let (output, errors) = (Sink(), Sink())
        var environment = CommandEnvironment(["VARVE_STORE": "\(room.path)"])
        environment.canAsk = canAsk
        environment.readAnswer = { answer }
        let code = VarveCommand.run(
            arguments: words.map { BytePath($0) }, standardOutput: output.sink, standardError: errors.sink,
            environment: environment)
        return Run(
            code: code, output: String(decoding: output.all, as: UTF8.self),
            errors: String(decoding: errors.all, as: UTF8.self))
    }

    private func json(_ room: borrowing DaemonRoom, _ group: String, _ command: String) throws -> [JSONObject]
    {
        let run = varve(room, group, command, "--format", "json")
        #expect(run.code == 0, "\(run)")
        return try JSONValue(parsing: Array(run.output.utf8)).array?.compactMap(\.object) ?? []
    }

    /// A chain, a private snapshot on it, an active one and a view.
    ///
    /// - Returns: the chain.
    @discardableResult
    private func fill(_ snapshotter: Snapshotter, _ room: borrowing DaemonRoom) throws -> ChainID {
        let layer = room.content.add(
            tarEntry("f", "0", String(repeating: "one", count: 4000)) + endOfTar)
        let mounts = try snapshotter.make(.active, SnapshotKey("k"), parent: Self.none, labels: [:])
        let applied = try room.apply(layer, to: mounts, snapshotter)
        try snapshotter.commit(SnapshotKey("chain"), from: SnapshotKey("k"), labels: [:])
        let writable = try snapshotter.make(
            .active, SnapshotKey("k"), parent: SnapshotKey("chain"), labels: [:])
        try room.run("dd if=/dev/urandom of=big bs=1M count=1 status=none", in: writable)
        try snapshotter.commit(SnapshotKey("own"), from: SnapshotKey("k"), labels: ["a": "b"])
        let active = try snapshotter.make(
            .active, SnapshotKey("default/3/a b\n"), parent: SnapshotKey("own"), labels: [:])
        try room.run("echo x >x; sync", in: active)
        _ = try snapshotter.make(.view, SnapshotKey("v"), parent: SnapshotKey("chain"), labels: [:])
        snapshotter.cleanUp()
        return ChainID(applied.digest)
    }

    @Test func list() throws {
        let room = try DaemonRoom()
        #expect(varve(room, "containerd", "ls").output == "ID KEY KIND SIZE USE PARENT CHAIN\n")
        #expect(try json(room, "containerd", "ls").isEmpty)
        let snapshotter = try room.snapshotter()
        let chain = try fill(snapshotter, room)
        _ = try room.snapshotter("other")

        let all = try json(room, "containerd", "ls")
        #expect(all.map { $0["id"]?.string } == ["other", "test"])
        #expect(all[1]["isServed"]?.bool == true)
        let snapshots = try #require(all[1]["snapshots"]?.array).compactMap(\.object)
        #expect(snapshots.map { $0["key"]?.string } == ["chain", "default/3/a b\n", "own", "v"])
        #expect(snapshots.map { $0["kind"]?.string } == ["committed", "active", "committed", "view"])
        #expect(snapshots.map { $0["parent"]?.string } == [nil, "own", "chain", "chain"])
        #expect(snapshots.map { $0["chain"]?.string } == [chain.description, nil, nil, chain.description])
        #expect(snapshots.map { $0["children"]?.int64 } == [2, 0, 1, 0])
        for (found, key) in zip(snapshots, ["chain", "default/3/a b\n", "own", "v"]) {
            let usage = try snapshotter.usage(SnapshotKey(key))
            #expect(found["size"]?.int64 == usage.size && found["inodes"]?.int64 == usage.inodes, "\(key)")
        }
        #expect(snapshots[0]["size"]?.int64 == 12288 && snapshots[2]["size"]?.int64 == 1 << 20)
        #expect(snapshots[2]["labels"]?.object?["a"]?.string == "b")

        let table = varve(room, "containerd", "ls", "test").output.split(separator: "\n")
        #expect(table.count == 5)
        #expect(
            table[2].contains("default/3/a b\\x0a active"), "no control byte reaches a terminal: \(table[2])")
        #expect(
            table[3].split(separator: " ") == [
                "test", "own", "committed", "1", "MiB", "1", "on", "it", "chain", "private",
            ]
        )
        #expect(table.allSatisfy { $0.count <= 80 } && table[1].hasSuffix("…") == (table[1].count == 80))
        #expect(varve(room, "containerd", "ls", "--no-trunc", "test").output.contains(chain.description))
        #expect(varve(room, "containerd", "ls", "-q").output == "other\ntest\n")
        let missing = varve(room, "containerd", "ls", "nobody")
        #expect(missing.code == 4 && missing.errors.contains("varve containerd ls lists them"))
    }

    /// Which chains and trees belong to whom.
    @Test func store() throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        let chain = try fill(snapshotter, room)
        let chains = try json(room, "store", "ls")
        #expect(chains.map { $0["name"]?.string } == [ChainName(chain).description])
        #expect(chains[0]["containerds"]?.array?.map(\.string) == ["test"])
        #expect(varve(room, "store", "ls").output.contains("used; containerd: test"))

        let usage = try json(room, "store", "du")
        let trees = usage.filter { $0["containerd"]?.string == "test" }
        #expect(Set(trees.map { $0["snapshot"]?.string }) == ["own", "default/3/a b\n"])
        let own = try #require(trees.first { $0["snapshot"]?.string == "own" })
        #expect(own["referenced"]?.int64 ?? 0 >= 1 << 20)
        #expect(
            try own["name"]?.string == "containerd/test/trees/\(snapshotter.record(SnapshotKey("own")).tree)")
        #expect(usage.count == 3)

        #expect(varve(room, "store", "gc").output.isEmpty)
        #expect(varve(room, "store", "check").code == 0)
    }

    @Test func forget() throws {
        let room = try DaemonRoom()
        do {
            let snapshotter = try room.snapshotter()
            try fill(snapshotter, room)
            let served = varve(room, "containerd", "forget", "--yes", "test")
            #expect(served.code == 1 && served.errors.contains("a daemon serves the containerd \"test\""))
            #expect(try snapshotter.mounts(SnapshotKey("v")).count == 1)
            _ = try room.snapshotter("other")
        }
        let before = try room.trees()
        #expect(before.count == 4, "the view shares the tree of its parent")
        // Whoever cannot be asked, or does not say yes, loses nothing.
        let unasked = varve(room, "containerd", "forget", "test")
        #expect(unasked.code == 2 && unasked.errors.contains("--yes"))
        let declined = varve(room, "containerd", "forget", "test", answer: "n", canAsk: true)
        #expect(declined.code == 1 && declined.errors.contains("go on? [y/N]"))
        #expect(declined.errors.contains("delete the 4 snapshots"))
        #expect(varve(room, "containerd", "forget", "test", answer: nil, canAsk: true).code == 1)
        // A mount that somebody may be using.
        let tree = before.last ?? ""
        try runSuccessfully([
            "sh", "-euc",
            "mkdir \(room.volume.path)/m; mount --bind \(room.path)/containerd/test/trees/\(tree)/rootfs \(room.volume.path)/m",
        ])
        let mounted = varve(room, "containerd", "forget", "--yes", "test")
        #expect(mounted.code == 1 && mounted.errors.contains("umount \(room.volume.path)/m"), "\(mounted)")
        #expect(varve(room, "containerd", "ls", "test").output.contains("mounted"))
        try runSuccessfully(["umount", "\(room.volume.path)/m"])
        #expect(try room.trees() == before)

        let done = varve(room, "containerd", "forget", "test", answer: "Yes", canAsk: true)
        #expect(done.code == 0 && done.output.isEmpty, "\(done)")
        #expect(varve(room, "containerd", "ls", "-q").output == "other\n")
        #expect(varve(room, "store", "gc", "-q").output.split(separator: "\n").count == 1)
        #expect(varve(room, "containerd", "forget", "--yes", "test").code == 4)
        #expect(varve(room, "store", "check").output.isEmpty)
        // It begins anew.
        #expect(try room.snapshotter().list([]).isEmpty)
    }

    /// What a call left that was ended in the middle is deleted by the next.
    @Test func forgetAgain() throws {
        let room = try DaemonRoom()
        do { try fill(try room.snapshotter(), room) }
        let place = "\(room.path)/containerd/test"
        try runSuccessfully(["mv", "\(place)/records", "\(place)/forgotten"])
        #expect(varve(room, "containerd", "ls").output.contains("test (not served) <none>"))
        let check = varve(room, "store", "check")
        #expect(check.code == 1 && check.output.split(separator: "\n").count == 4, "\(check)")
        #expect(varve(room, "containerd", "forget", "--yes", "test").code == 0)
        #expect(varve(room, "containerd", "ls", "-q").output.isEmpty)
        #expect(varve(room, "store", "check").code == 0)
    }

    /// What somebody does to the place of a containerd. `$chain`, `$own` and `$active` are trees; `$record` is the record of `$own`.
    struct Damage: Sendable, CustomTestStringConvertible {
        var name: String
        var script: String
        /// In the finding; nil if nothing is wrong.
        var problem: String?
        var isRepaired = true
        /// The snapshots that are left after the repair.
        var left = ["chain", "default/3/a b\n", "own", "v"]
        /// Whether it is found while a daemon serves.
        var isFoundServed = true
        var testDescription: String { name }
    }

    static let damages = [
        Damage(name: "nothing", script: ":", problem: nil),
        Damage(
            name: "leftover tree", script: "btrfs -q subvolume create trees/99", problem: "no snapshot",
            isFoundServed: false),
        Damage(
            name: "tree on its way", script: "btrfs -q subvolume create trees/1-abc", problem: "no snapshot",
            isFoundServed: false),
        Damage(
            name: "broken record", script: "echo '{' >$record", problem: "it cannot be read",
            left: ["chain", "default/3/a b\n", "v"]),
        Damage(
            name: "record of another key", script: "mv $record records/$(printf %064d 0).json",
            problem: "it is the record of another key", left: ["chain", "default/3/a b\n", "v"]),
        // What a newer version wrote is not this one's to delete.
        Damage(
            name: "record of a newer version", script: "sed -i 's/\"version\":1/\"version\":3/' $record",
            problem: "it has version 3", isRepaired: false, left: ["chain", "default/3/a b\n", "v"]),
        Damage(
            name: "file among the records", script: "echo mine >records/notes",
            problem: "it is not the record of a snapshot", isRepaired: false),
        Damage(
            name: "file beside them", script: "echo mine >../notes",
            problem: "it is not the directory of a containerd", isRepaired: false),
        Damage(
            name: "tree gone", script: "btrfs -q subvolume delete $own", problem: "is gone",
            left: ["chain", "default/3/a b\n", "v"]),
        Damage(
            name: "made writable", script: "btrfs property set $own ro false",
            problem: "was made writable"),
        Damage(
            name: "written to",
            script:
                "btrfs property set $own ro false; echo x >$own/rootfs/x; btrfs property set $own ro true",
            problem: "was written to", isRepaired: false),
        Damage(name: "active written to", script: "echo x >$active/rootfs/x", problem: nil),
        Damage(name: "mode", script: "chmod 777 trees", problem: "others may write to it"),
    ]

    @Test(
        "What is wrong with the trees of a containerd is found, and repaired while no daemon serves it",
        arguments: damages)
    func check(_ damage: Damage) throws {
        let room = try DaemonRoom()
        func problems(repairs: Bool = false) throws -> [StoreCheck.Finding] {
            try StoreCheck(room.store, repairs: repairs).run()
        }
        do {
            let snapshotter = try room.snapshotter()
            try fill(snapshotter, room)
            func tree(_ key: String) throws -> String {
                "trees/\(try snapshotter.record(SnapshotKey(key)).tree)"
            }
            try runSuccessfully([
                "sh", "-euc",
                """
                cd \(room.path)/containerd/test
                chain=\(tree("chain")) own=\(tree("own")) active=\(tree("default/3/a b\n"))
                record=records/\(SnapshotKey("own").fileName)
                \(damage.script)
                """,
            ])
            let isFound = damage.problem != nil && damage.isFoundServed
            #expect(try problems().count == (isFound ? 1 : 0))
            // Modes are no business of the daemon's.
            let mends = damage.name == "mode"
            #expect(try problems(repairs: true).count { $0.isRepaired } == (mends ? 1 : 0))
            if mends {
                try runSuccessfully(["chmod", "777", "\(room.path)/containerd/test/trees"])
            }
        }
        // The daemon gives up its lock when the last deletion is done.
        while try ContainerdFolder(of: room.store).place("test").isServed {}
        let found = try problems()
        if let problem = damage.problem {
            #expect(found.count == 1 && found[0].problem.contains(problem), "\(found)")
        } else {
            #expect(found.isEmpty, "\(found)")
        }
        let repaired = try problems(repairs: true)
        #expect(repaired.allSatisfy { $0.isRepaired == damage.isRepaired }, "\(repaired)")
        #expect(try problems().isEmpty == (damage.isRepaired || damage.problem == nil))
        let snapshotter = try room.snapshotter()
        #expect(snapshotter.list([]).map(\.key.text) == damage.left)
        snapshotter.cleanUp()
        // 0, and one for each but the view, which shares one; the tree of a record of a newer version is kept.
        let isKept = damage.name.contains("newer")
        #expect(try room.trees().count == damage.left.count { $0 != "v" } + (isKept ? 2 : 1))
    }
}
