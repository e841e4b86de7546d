import ContainerdChecks
import Glibc
import TestSupport
import Testing
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage

@testable import VarveContainerd

/// A daemon that is killed, or whose host loses its power, in the middle of a call: the next one serves, has all that was answered, and
/// nothing half-done is left.
@Suite(.serialized) struct KillTests {
    private static let base = tarEntry("etc/", "5") + tarEntry("etc/a", "0", "one") + endOfTar
    private static let layer =
        tarEntry("etc/.wh.a") + tarEntry("etc/b", "0", String(repeating: "two", count: 3000))
        + tarEntry("srv/", "5") + endOfTar
    private static let chain = ChainID(Digest(of: base))
    private static let upper = chain.appending(DiffID(Digest(of: layer)))
    private static let digest = Digest(of: layer).description

    /// A call, and those that take it back.
    struct Case: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var call: DaemonCall
        var undo: [DaemonCall]
        /// The snapshot whose content is nobody's business until the call is answered.
        var touches: String?

        init(_ name: String, _ call: DaemonCall, undo: DaemonCall..., touches: String? = nil) {
            testDescription = name
            self.call = call
            self.undo = undo
            self.touches = touches
        }

        var isRemoval: Bool { if case .remove = call { true } else { false } }
    }

    /// Committed are `base`, a chain, and `own`, which is none; active are `a` of the one and `b` of the other; `v` is a view.
    private static let setUp: [DaemonCall] = [
        .prepare("k", parent: ""), .apply("k", layer: Digest(of: base).description),
        .commit("base", from: "k"),
        .prepare("k", parent: "base"), .write("k", name: "own", content: "own"), .commit("own", from: "k"),
        .prepare("a", parent: "base"), .prepare("b", parent: "own"), .write("b", name: "b", content: "of b"),
        .view("v", parent: "own"), .cleanUp,
    ]
    private static let makeB: [DaemonCall] = [
        .prepare("b", parent: "own"), .write("b", name: "b", content: "of b"),
    ]

    static let cases = [
        Case("Prepare on a chain", .prepare("new", parent: "base"), undo: .remove("new")),
        Case("Prepare on a private tree", .prepare("new", parent: "own"), undo: .remove("new")),
        Case("Prepare on nothing", .prepare("new", parent: ""), undo: .remove("new")),
        Case(
            "Prepare of what the store has", .prepare("new", parent: "", label: chain.description),
            undo: .remove("new")),
        Case("View of a chain", .view("new", parent: "base"), undo: .remove("new")),
        Case("View of a private tree", .view("new", parent: "own"), undo: .remove("new")),
        Case(
            "Commit of a chain", .commit("new", from: "a"), undo: .remove("new"),
            .prepare("a", parent: "base")),
        Case(
            "Commit of a private tree", .commit("new", from: "b"), undo: .remove("new"), makeB[0], makeB[1]),
        Case("Remove of a view", .remove("v"), undo: .view("v", parent: "own")),
        Case("Remove of what was written to", .remove("b"), undo: makeB[0], makeB[1]),
        Case("Update", .update("b", label: "new"), undo: .remove("b"), makeB[0], makeB[1]),
        Case(
            "Apply to a chain", .apply("a", layer: digest), undo: .remove("a"), .prepare("a", parent: "base")),
        Case(
            "Apply to a private tree", .apply("b", layer: digest), undo: .remove("b"), makeB[0], makeB[1],
            touches: "b"),
        Case(
            "Apply of what was written of a tree", .republish("a", from: "base", to: "own"),
            undo: .remove("a"),
            .prepare("a", parent: "base")),
    ]

    /// What can be seen of a snapshot.
    private struct Seen: Hashable {
        var kind: SnapshotRecord.Kind
        var parent: String
        var labels: [String: String]
        var chain: ChainID?
        /// Names, kinds, modes and content.
        var content: String
    }

    /// What there is once a daemon has started, and all that it does behind calls is done.
    ///
    /// - Parameter calls: what it does before.
    private func start(_ world: borrowing CrashVolume, doing calls: [DaemonCall] = []) throws
        -> [String: Seen]
    {
        let content = MemoryContent()
        _ = content.add(Self.base)
        _ = content.add(Self.layer)
        let store = try SnapshotStore.open(at: world.store, logger: DaemonRoom.quiet)
        let snapshotter = try world.snapshotter(of: store)
        store.sweeper.sweep()
        for call in calls { try call.run(snapshotter, content) }
        snapshotter.cleanUp()

        let records = snapshotter.list([])
        let place = "\(world.store)/containerd/test"
        #expect(try Set(Self.names(in: "\(place)/trees")) == Set(records.map { "\($0.tree)" } + ["0"]))
        #expect(try Self.names(in: "\(place)/records") == records.map { "\($0.key.fileName)" }.sorted())
        #expect(
            try Self.names(in: "\(world.store)/work") == [] && Self.names(in: "\(world.store)/locks") == [])
        #expect(try StoreCheck(store).run() == [])
        let script = """
            for tree; do
                cd "$tree"; echo "= $tree"; find . -printf '%p %y %m %l\\n' | sort; find . -type f | sort | xargs -r sha256sum
            done
            """
        let paths = records.map { snapshotter.trees.rootfs(of: $0.tree).description }
        let contents = try runSuccessfully(["sh", "-euc", script, "sh"] + paths).outputText
            .split(separator: "= ", omittingEmptySubsequences: true)
        #expect(contents.count == records.count)
        var result: [String: Seen] = [:]
        for (record, content) in zip(records, contents) {
            result[record.key.text] = Seen(
                kind: record.kind, parent: record.parent.text, labels: record.labels, chain: record.chain,
                content: content.split(separator: "\n").dropFirst().joined(separator: "\n"))
        }
        return result
    }

    private static func names(in path: String) throws -> [String] {
        let directory = try FileDescriptor.workingDirectory.openDirectory(BytePath(path))
        return try directory.fd.entries().map(\.name.description).sorted()
    }

    @Test(
        "At each durability point of each call, by kill -9 and by a power cut",
        arguments: cases)
    func atEachPoint(_ test: Case) throws {
        let world = try CrashVolume()
        _ = try SnapshotStore.initialize(at: world.store, logger: DaemonRoom.quiet)
        let before = try start(world, doing: Self.setUp)
        #expect(before.count == 5 && before["base"]?.chain == Self.chain && before["own"]?.chain == nil)
        let after = try start(world, doing: [test.call])
        #expect(after != before)

        var seen: Set<[String: Seen]> = []
        for power in [false, true] {
            var point = 0
            while true {
                point += 1
                #expect(point < 200)
                // Back to the beginning, and on disk.
                let back = try start(world, doing: try needsUndo(world, before) ? test.undo : [])
                #expect(back == before, "\(test.testDescription), before the point \(point)")
                try forgetChain(world)
                try runSuccessfully(["sync", "-f", "\(world.path)"])

                var process = try StoppedProcess(
                    [
                        builtProgram("daemon-calls"), "\(world.store)", "test", "\(world.answers)",
                        "\(world.blob(Self.layer))", "\(test.call)",
                    ], at: point, errors: world.errors)
                let code = process.wait()
                #expect(code == nil || code == 0, "it failed by itself: \(world.errorText())")
                if power { try world.clone() }
                process.end()
                if power { try world.cut() }
                let isAnswered = try world.takeAnswers() == "\(test.call)\n"
                var found = try start(world)
                if !isAnswered, let key = test.touches, found[key] != nil, found != after {
                    found[key]?.content = before[key]?.content ?? ""
                }
                // containerd may not have heard of a commit, and has the one that it does not know removed.
                if case .commit(let name, from: let key) = test.call, let active = before[key],
                    found == after.merging([key: active], uniquingKeysWith: { $1 })
                {
                    #expect(try start(world, doing: [.remove(name)]) == before)
                    found = after
                }
                // A Remove is on disk before its tree is deleted, and not before it is answered.
                let mayBeBefore = !isAnswered || (power && test.isRemoval && code == nil)
                #expect(
                    found == after || (mayBeBefore && found == before),
                    "\(test.testDescription), \(power ? "power cut" : "kill -9") at the point \(point), \(isAnswered ? "answered" : "not answered")"
                )
                seen.insert(found)
                if code != nil { break }
            }
            #expect(point > (test.isRemoval ? 1 : 2) || test.touches != nil)
        }
        // A Remove is done before its first durability point, and the application of a layer to a tree as it is has none.
        #expect(
            seen == [before, after] || (test.isRemoval || test.touches != nil) && seen == [after],
            "it was ended before the change, and after it: \(seen.count) states")
    }

    private func needsUndo(_ world: borrowing CrashVolume, _ before: [String: Seen]) throws -> Bool {
        try start(world) != before
    }

    /// So that the next Apply builds it.
    private func forgetChain(_ world: borrowing CrashVolume) throws {
        let store = try SnapshotStore.open(at: world.store, logger: DaemonRoom.quiet)
        for chain in try store.chains.all() where chain.name.chainID != Self.chain {
            try store.chains.remove(chain.name)
        }
    }
}

/// A btrfs whose power can be cut: the file behind it lies on another btrfs, where it can be cloned at any instant.
struct CrashVolume: ~Copyable {
    private let outer: LoopVolume
    let path: BytePath
    var store: BytePath { path.appending("store") }
    var answers: BytePath { outer.path.appending("answers") }
    var errors: BytePath { outer.path.appending("errors") }

    init() throws {
        let outer = try LoopVolume(size: 8 << 30)
        let path = temporaryDirectory().appending("varve-test-\(getpid())-\(randomName())")
        try Self.shell(
            "truncate -s 512M disk; mkfs.btrfs -q disk; mkdir \"$1\"; mount -o loop,noatime disk \"$1\"",
            path, outer.path)
        self.path = path
        self.outer = outer
    }

    private static func shell(_ script: String, _ path: BytePath, _ outer: BytePath) throws {
        try runSuccessfully(["sh", "-euc", "cd \"$2\"; \(script)", "sh", "\(path)", "\(outer)"])
    }

    private func shell(_ script: String) throws { try Self.shell(script, path, outer.path) }

    /// What is on disk at this instant.
    func clone() throws { try shell("cp --reflink=always disk clone") }

    /// What was cloned is all that is left.
    func cut() throws {
        try unmount()
        try shell("mv clone disk; mount -o loop,noatime disk \"$1\"")
    }

    private func unmount() throws {
        for _ in 0..<500 {
            if try runCommand(["umount", "\(path)"]).status == 0 { return }
            usleep(10_000)
        }
        throw TestSupportError("cannot unmount \(path)")
    }

    func snapshotter(of store: SnapshotStore) throws -> Snapshotter {
        while true {
            do {
                return try Snapshotter(DaemonTrees(store, id: "test"), logger: DaemonRoom.quiet)
            } catch let error as VarveError where error.description.contains("another process serves") {
                usleep(5_000)
            }
        }
    }

    /// A file with these bytes.
    func blob(_ bytes: [UInt8]) throws -> BytePath {
        let path = outer.path.appending("blob")
        try outer.root.writeFileDurably("blob", bytes, mode: 0o600)
        return path
    }

    /// What was answered since the last time.
    func takeAnswers() throws -> String {
        defer { try? outer.root.unlink("answers") }
        do {
            return String(decoding: try outer.root.readFile("answers", limit: 1 << 16), as: UTF8.self)
        } catch Errno.noSuchFileOrDirectory {
            return ""
        }
    }

    func errorText() -> String {
        (try? outer.root.readFile("errors", limit: 1 << 16)).map { String(decoding: $0, as: UTF8.self) } ?? ""
    }

    deinit {
        try? unmount()
        _ = try? runCommand(["rmdir", "\(path)"])
    }
}
