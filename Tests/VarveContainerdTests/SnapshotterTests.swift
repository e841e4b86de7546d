import ContainerdChecks
import TestSupport
import Testing
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage

@testable import VarveContainerd

/// The calls of the snapshotter, what is answered to those that cannot be, and what is there after a start.
@Suite(.serialized) struct SnapshotterTests {
    private static let none = SnapshotKey("")

    private func committed(
        _ name: String, _ snapshotter: Snapshotter, parent: String = "", script: String = "echo a >a",
        _ room: borrowing DaemonRoom
    ) throws {
        let key = SnapshotKey("making " + name)
        let mounts = try snapshotter.make(.active, key, parent: SnapshotKey(parent), labels: ["x": "y"])
        try room.run(script, in: mounts)
        try snapshotter.commit(SnapshotKey(name), from: key, labels: [:])
    }

    @Test func kinds() throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        try committed("base", snapshotter, room)
        #expect(
            try snapshotter.record(SnapshotKey("base")).labels.isEmpty, "labels are replaced, not inherited")
        let active = try snapshotter.make(.active, SnapshotKey("a"), parent: SnapshotKey("base"), labels: [:])
        #expect(active.first?.options == ["rw", "rbind"])
        try room.run("test \"$(cat a)\" = a; echo b >b; rm a", in: active)
        let view = try snapshotter.make(.view, SnapshotKey("v"), parent: SnapshotKey("base"), labels: [:])
        #expect(view.first?.options == ["ro", "rbind"])
        try room.run("test \"$(cat a)\" = a; ! touch c 2>/dev/null", in: view)
        #expect(try snapshotter.mounts(SnapshotKey("a")) == active)
        #expect(try snapshotter.mounts(SnapshotKey("v")) == view)
        let empty = try snapshotter.make(.view, SnapshotKey("e"), parent: Self.none, labels: [:])
        try room.run("test -z \"$(ls -A)\"; test \"$(stat -c %a .)\" = 755", in: empty)
        #expect(snapshotter.list([]).map(\.key.text) == ["a", "base", "e", "v"])
    }

    /// Bytes that take the most room there is in a record.
    @Test func largestLabels() throws {
        let room = try DaemonRoom()
        let labels = Dictionary(
            uniqueKeysWithValues: (1...Snapshotter.labelCountLimit).map { number in
                let key = "\(number)"
                return (key, String(repeating: "\u{1}", count: Snapshotter.labelLimit - key.utf8.count))
            })
        let key = SnapshotKey(String(repeating: "\u{1}", count: Snapshotter.keyLimit))
        do { _ = try room.snapshotter().make(.active, key, parent: Self.none, labels: labels) }
        #expect(try room.snapshotter().record(key).labels == labels)
    }

    @Test func codes() throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        try committed("base", snapshotter, room)
        func make(_ kind: SnapshotRecord.Kind, _ key: String, _ parent: String) -> ServiceError.Code? {
            code {
                _ = try snapshotter.make(kind, SnapshotKey(key), parent: SnapshotKey(parent), labels: [:])
            }
        }
        #expect(make(.active, "x", "nothing") == .notFound)
        #expect(make(.active, "base", "") == .alreadyExists)
        #expect(make(.active, "a", "base") == nil)
        #expect(make(.view, "a", "base") == .alreadyExists)
        #expect(make(.active, "b", "a") == .invalidArgument, "an active snapshot is no parent")
        #expect(make(.active, "", "base") == .invalidArgument)
        #expect(make(.view, "v", "base") == nil)
        #expect(code { _ = try snapshotter.mounts(SnapshotKey("base")) } == .failedPrecondition)
        #expect(code { _ = try snapshotter.mounts(SnapshotKey("x")) } == .notFound)
        func commit(_ name: String, _ key: String) -> ServiceError.Code? {
            code { try snapshotter.commit(SnapshotKey(name), from: SnapshotKey(key), labels: [:]) }
        }
        #expect(commit("c", "v") == .failedPrecondition)
        #expect(commit("c", "x") == .notFound)
        #expect(commit("base", "a") == .alreadyExists)
        #expect(commit("c", "base") == .failedPrecondition)
        func commit(on parent: String) -> ServiceError.Code? {
            code {
                try snapshotter.commit(
                    SnapshotKey("c"), from: SnapshotKey("a"), labels: [:], parent: SnapshotKey(parent))
            }
        }
        #expect(commit(on: "x") == .notFound)
        #expect(commit(on: "v") == .invalidArgument, "another one than it was made on")
        #expect(make(.active, "a2", "base") == nil)
        #expect(
            code {
                try snapshotter.commit(
                    SnapshotKey("c2"), from: SnapshotKey("a2"), labels: [:], parent: SnapshotKey("base"))
            } == nil)
        let error = #expect(throws: ServiceError.self) { try snapshotter.remove(SnapshotKey("base")) }
        #expect(error?.code == .failedPrecondition && error?.message.contains("remove") == true)
        #expect(code { try snapshotter.remove(SnapshotKey("x")) } == .notFound)
        #expect(code { _ = try snapshotter.usage(SnapshotKey("x")) } == .notFound)
        // What failed has left no name behind, and no child that keeps its parent.
        #expect(commit("c", "a") == nil)
        for key in ["c", "c2", "v", "base"] { try snapshotter.remove(SnapshotKey(key)) }
        #expect(snapshotter.list([]).isEmpty)
        snapshotter.cleanUp()
        #expect(try room.trees() == ["0"])
    }

    /// Names that no file could have, and more labels than anybody has.
    @Test func hostileNames() throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        let names = [
            "../../../etc/passwd", "/", ".", "a/b c:d\n\u{0}", String(repeating: "k", count: 4096),
            "e\u{301}", "\u{e9}",
        ]
        for name in names {
            _ = try snapshotter.make(.active, SnapshotKey(name), parent: Self.none, labels: [:])
        }
        #expect(Set(snapshotter.list([]).map(\.key)) == Set(names.map { SnapshotKey($0) }))
        func refused(_ key: String = "k", labels: [String: String]) -> ServiceError.Code? {
            code { _ = try snapshotter.make(.active, SnapshotKey(key), parent: Self.none, labels: labels) }
        }
        #expect(refused(String(repeating: "k", count: 4097), labels: [:]) == .invalidArgument)
        #expect(refused(labels: ["a": String(repeating: "b", count: 4096)]) == .invalidArgument)
        let many = Dictionary(uniqueKeysWithValues: (0..<10_000).map { ("label\($0)", "value") })
        #expect(refused(labels: many) == .invalidArgument)
        #expect(
            code { _ = try snapshotter.update(SnapshotKey("/"), labels: many, paths: []) } == .invalidArgument
        )
        #expect(
            refused(
                labels: many.filter { _ in Bool.random() }.prefix(1000).reduce(into: [:]) {
                    $0[$1.key] = $1.value
                }) == nil)
    }

    @Test func update() throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        let key = SnapshotKey("k")
        _ = try snapshotter.make(.active, key, parent: Self.none, labels: ["a": "1", "b": "2"])
        let created = try snapshotter.record(key).created
        var record = try snapshotter.update(
            key, labels: ["a": "x", "c": "3"], paths: ["labels.a", "labels.b"])
        #expect(record.labels == ["a": "x"])
        record = try snapshotter.update(key, labels: ["c": "3", "empty": ""], paths: [])
        #expect(record.labels == ["c": "3"] && record.created == created && record.updated > created)
        #expect(code { _ = try snapshotter.update(key, labels: [:], paths: ["parent"]) } == .invalidArgument)
        #expect(code { _ = try snapshotter.update(SnapshotKey("x"), labels: [:], paths: []) } == .notFound)
        #expect(try snapshotter.record(key) == record)
    }

    /// A start finds all that was there, and takes away what no record names.
    @Test func restart() throws {
        let room = try DaemonRoom()
        var expected: [SnapshotRecord] = []
        do {
            let snapshotter = try room.snapshotter()
            try committed("base", snapshotter, room)
            _ = try snapshotter.make(
                .active, SnapshotKey("a"), parent: SnapshotKey("base"), labels: ["l": "m"])
            _ = try snapshotter.make(.view, SnapshotKey("v"), parent: SnapshotKey("base"), labels: [:])
            snapshotter.cleanUp()
            expected = snapshotter.list([])
        }
        let trees = try room.trees()
        // As a crash leaves them: a tree without a record, and one on its way to another's place.
        for name in ["99", "1-spare"] {
            try runSuccessfully([
                "btrfs", "-q", "subvolume", "create", "\(room.path)/containerd/test/trees/\(name)",
            ])
        }
        do {
            let snapshotter = try room.snapshotter()
            #expect(snapshotter.list([]) == expected)
            snapshotter.cleanUp()
            #expect(try room.trees() == trees)
            let mounts = try snapshotter.mounts(SnapshotKey("a"))
            try room.run("test \"$(cat a)\" = a; echo more >more", in: mounts)
            // A number is not given twice.
            _ = try snapshotter.make(.active, SnapshotKey("b"), parent: SnapshotKey("base"), labels: [:])
        }
        // A record that nobody can read: it stays, and so does every tree that might be its own.
        let records = "\(room.path)/containerd/test/records"
        try runSuccessfully(["sh", "-euc", "echo '{' >\(records)/broken.json; mkdir \(records)/folder"])
        try runSuccessfully(["btrfs", "-q", "subvolume", "create", "\(room.path)/containerd/test/trees/77"])
        let snapshotter = try room.snapshotter()
        snapshotter.cleanUp()
        #expect(try room.trees().contains("77"))
        #expect(snapshotter.list([]).count == expected.count + 1)
    }

    /// An upgrade with snapshots in use: records without the members that only speed things up are served, and so is a tree that somebody
    /// has been writing to all the time.
    @Test func olderRecords() throws {
        let room = try DaemonRoom()
        let active = SnapshotKey("a")
        var mounts: [SnapshotMount] = []
        do {
            let snapshotter = try room.snapshotter()
            try committed("base", snapshotter, room)
            mounts = try snapshotter.make(.active, active, parent: SnapshotKey("base"), labels: [:])
            try room.run("echo before >b", in: mounts)
            _ = try snapshotter.make(.view, SnapshotKey("v"), parent: SnapshotKey("base"), labels: [:])
            snapshotter.cleanUp()
            let records = RecordDirectory(snapshotter.trees.records)
            for var record in snapshotter.list([]) {
                record.origin = nil
                record.committedFrom = nil
                try records.write(record)
            }
        }
        try room.run("echo between >c", in: mounts)
        let snapshotter = try room.snapshotter()
        #expect(snapshotter.list([]).map(\.key.text) == ["a", "base", "v"])
        #expect(try snapshotter.mounts(active) == mounts)
        try room.run("test \"$(echo $(cat a b c))\" = 'a before between'", in: mounts)
        #expect(try snapshotter.usage(SnapshotKey("base")).inodes > 0)
        try snapshotter.commit(SnapshotKey("name"), from: active, labels: [:])
        let above = try snapshotter.make(
            .active, SnapshotKey("above"), parent: SnapshotKey("name"), labels: [:])
        try room.run("test \"$(cat c)\" = between", in: above)
    }

    /// A crash after the record of a new snapshot was begun: the record counts if the tree is there, also for who looks at the store before the
    /// next start, and else is removed by that.
    @Test(arguments: [false, true]) func begunRecords(isMade: Bool) throws {
        let room = try DaemonRoom()
        let key = SnapshotKey("k")
        let records = "\(room.path)/containerd/test/records"
        do {
            let snapshotter = try room.snapshotter()
            let mounts = try snapshotter.make(.active, key, parent: Self.none, labels: [:])
            try room.run("echo a >a", in: mounts)
            snapshotter.cleanUp()
            try runSuccessfully(["mv", "\(records)/\(key.fileName)", "\(records)/\(key.fileName).pending"])
            if !isMade { try snapshotter.trees.delete(try snapshotter.record(key).tree) }
        }
        let expected = isMade ? [key] : []
        #expect(try ContainerdFolder(of: room.store).place("test").state().records.map(\.key) == expected)
        #expect(try StoreCheck(room.store).run() == [])
        let snapshotter = try room.snapshotter()
        #expect(snapshotter.list([]).map(\.key) == expected)
        if isMade { try room.run("test \"$(cat a)\" = a", in: snapshotter.mounts(key)) }
        snapshotter.cleanUp()
        let names = try runSuccessfully(["ls", "\(records)"]).outputText.split(separator: "\n").map(
            String.init)
        #expect(names == expected.map { "\($0.fileName)" })
        _ = try snapshotter.make(.active, SnapshotKey("other"), parent: Self.none, labels: [:])
    }

    /// A commit that an earlier daemon made and could not tell of, and a place in which this one can make no tree: the record stays for the next start.
    @Test func unheardCommitThatCannotBeKept() throws {
        let room = try DaemonRoom()
        let key = SnapshotKey("k")
        do {
            let snapshotter = try room.snapshotter()
            let layer = room.content.add(tarEntry("a", "0", "a\n") + endOfTar)
            try room.apply(
                layer, to: snapshotter.make(.active, key, parent: Self.none, labels: [:]), snapshotter)
            // As a daemon leaves it that is killed now.
            let active = try snapshotter.record(key)
            try snapshotter.commit(SnapshotKey("name"), from: key, labels: [:])
            snapshotter.cleanUp()
            try RecordDirectory(snapshotter.trees.records).write(active)
        }
        let trees = "\(room.path)/containerd/test/trees"
        try runSuccessfully(["chattr", "+i", trees])
        defer { _ = try? runSuccessfully(["chattr", "-i", trees]) }
        do {
            let snapshotter = try room.snapshotter()
            #expect(snapshotter.list([]).map(\.key.text) == ["name"])
        }
        try runSuccessfully(["chattr", "-i", trees])
        let snapshotter = try room.snapshotter()
        #expect(snapshotter.list([]).map(\.key.text) == ["k", "name"])
    }

    /// A daemon that was killed before containerd wrote down a commit: containerd knows one of the two snapshots, and has the other removed.
    /// Whichever it knows is there, as it was, and can be committed again, under that name or another.
    @Test(arguments: [false, true], ["name", "other"])
    func unheardCommit(isChain: Bool, again: String) throws {
        let room = try DaemonRoom()
        let key = SnapshotKey("k")
        let layer = room.content.add(tarEntry("a", "0", "a\n") + endOfTar)
        do {
            let snapshotter = try room.snapshotter()
            let mounts = try snapshotter.make(.active, key, parent: Self.none, labels: [:])
            if isChain {
                try room.apply(layer, to: mounts, snapshotter)
            } else {
                try room.run("echo a >a", in: mounts)
            }
            try runSuccessfully([
                "cp", "-a", "\(room.path)/containerd/test/records", "\(room.volume.path)/kept",
            ])
            try snapshotter.commit(SnapshotKey("name"), from: key, labels: [:])
            // What is on disk now is what a kill would leave.
            try runSuccessfully([
                "cp", "\(room.path)/containerd/test/records/\(SnapshotKey("name").fileName)",
                "\(room.volume.path)/kept/",
            ])
            #expect(
                try runSuccessfully(["ls", "\(room.path)/containerd/test/records"]).outputText.split(
                    separator: "\n"
                )
                .count == 2)
            #expect(snapshotter.list([]).map(\.key.text) == ["name"])
            #expect(try StoreCheck(room.store).run() == [])
            if !isChain {
                // The tree goes with the record.
                try runSuccessfully([
                    "btrfs", "-q", "subvolume", "snapshot", "\(room.path)/containerd/test/trees/1",
                    "\(room.volume.path)/tree",
                ])
            }
        }
        // Once all is deleted that the end has given up.
        try room.snapshotter().cleanUp()
        let place = "\(room.path)/containerd/test"
        try runSuccessfully(["sh", "-euc", "cp \(room.volume.path)/kept/* \(place)/records/"])
        if !isChain { try runSuccessfully(["mv", "\(room.volume.path)/tree", "\(place)/trees/1"]) }
        do {
            let snapshotter = try room.snapshotter()
            #expect(snapshotter.list([]).map(\.key.text) == ["k", "name"])
            #expect(snapshotter.list([]).map(\.kind) == [.active, .committed])
            #expect(try StoreCheck(room.store).run() == [])
            let above = try snapshotter.make(
                .active, SnapshotKey("above"), parent: SnapshotKey("name"), labels: [:])
            try room.run("test \"$(cat a)\" = a", in: above)
            try snapshotter.remove(SnapshotKey("above"))
            try room.run("test \"$(cat a)\" = a", in: snapshotter.mounts(key))
        }
        // Once more: what the start found out is on disk.
        let snapshotter = try room.snapshotter()
        #expect(snapshotter.list([]).map(\.key.text) == ["k", "name"])
        try snapshotter.commit(SnapshotKey(again), from: key, labels: ["a": "b"])
        let left = Set(["name", again])
        #expect(Set(snapshotter.list([]).map(\.key.text)) == left)
        #expect(try snapshotter.record(SnapshotKey(again)).labels == ["a": "b"])
        #expect(try (snapshotter.record(SnapshotKey(again)).chain != nil) == isChain)
        let above = try snapshotter.make(.active, key, parent: SnapshotKey(again), labels: [:])
        try room.run("test \"$(cat a)\" = a; echo b >b", in: above)
        snapshotter.cleanUp()
        #expect(try room.trees().count == left.count + 2)
        try snapshotter.remove(key)
        for name in left { try snapshotter.remove(SnapshotKey(name)) }
        snapshotter.cleanUp()
        #expect(try room.trees() == ["0"])
        #expect(try StoreCheck(room.store).run() == [])
    }

    /// After such an end, a view of the new snapshot shows it as it was, whatever is written to the other, and goes on when that is removed.
    @Test func viewOfAnUnheardCommit() throws {
        let room = try DaemonRoom()
        let key = SnapshotKey("k")
        let layer = room.content.add(tarEntry("a", "0", "a\n") + endOfTar)
        do {
            let snapshotter = try room.snapshotter()
            let mounts = try snapshotter.make(.active, key, parent: Self.none, labels: [:])
            try room.apply(layer, to: mounts, snapshotter)
            try snapshotter.commit(SnapshotKey("n"), from: key, labels: [:])
            _ = try snapshotter.make(.view, SnapshotKey("v"), parent: SnapshotKey("n"), labels: [:])
            // What is on disk now is what a kill would leave.
            try runSuccessfully([
                "cp", "-a", "\(room.path)/containerd/test/records", "\(room.volume.path)/kept",
            ])
        }
        try runSuccessfully([
            "sh", "-euc", "cp \(room.volume.path)/kept/* \(room.path)/containerd/test/records/",
        ])
        do {
            let snapshotter = try room.snapshotter()
            #expect(snapshotter.list([]).map(\.key.text) == ["k", "n", "v"])
            let view = try snapshotter.mounts(SnapshotKey("v"))
            try room.run("test \"$(cat a)\" = a; echo b >b", in: snapshotter.mounts(key))
            try room.run("test \"$(ls)\" = a", in: view)
            try snapshotter.remove(key)
            snapshotter.cleanUp()
            try room.run("test \"$(ls)\" = a; ! touch b", in: view)
            #expect(try StoreCheck(room.store).run() == [])
        }
        let snapshotter = try room.snapshotter()
        try room.run("test \"$(ls)\" = a", in: snapshotter.mounts(SnapshotKey("v")))
    }

    /// A snapshot that is just being removed becomes nobody's parent.
    @Test func parentThatGoes() throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        for round in 0..<200 {
            let parent = SnapshotKey("n \(round)")
            let making = SnapshotKey("making \(round)")
            _ = try snapshotter.make(.active, making, parent: Self.none, labels: [:])
            try snapshotter.commit(parent, from: making, labels: [:])
            let views = (0..<3).map { SnapshotKey("v \(round) \($0)") }
            let threads = try views.map { view in
                try WorkerThread(name: "view") {
                    _ = try? snapshotter.make(.view, view, parent: parent, labels: [:])
                }
            }
            try? snapshotter.remove(parent)
            for thread in threads { thread.join() }
            for view in views {
                guard let record = try? snapshotter.record(view) else { continue }
                #expect((try? snapshotter.record(record.parent)) != nil, "round \(round): the parent is gone")
                try snapshotter.remove(view)
            }
            try? snapshotter.remove(parent)
        }
        snapshotter.cleanUp()
        #expect(try room.trees() == ["0"])
    }

    /// A commit of which nothing but the read-only tree is there.
    @Test func interruptedCommit() throws {
        let room = try DaemonRoom()
        let key = SnapshotKey("k")
        do {
            let snapshotter = try room.snapshotter()
            _ = try snapshotter.make(.active, key, parent: Self.none, labels: [:])
            try snapshotter.trees.setReadOnly(snapshotter.record(key).tree, true)
        }
        let snapshotter = try room.snapshotter()
        try room.run("echo b >b", in: snapshotter.mounts(key))
    }

    /// Two daemons never have one set of records.
    @Test func oneAtATime() throws {
        let room = try DaemonRoom()
        let first = try room.snapshotter()
        let error = #expect(throws: VarveError.self) { try room.snapshotter(waits: false) }
        #expect(error?.description.contains("another process serves") == true)
        let other = try room.snapshotter("other")
        _ = try other.make(.active, SnapshotKey("k"), parent: Self.none, labels: [:])
        #expect(first.list([]).isEmpty)
        for id in ["", ".", "..", "a/b", ".hidden", String(repeating: "x", count: 65), "é"] {
            #expect(throws: VarveError.self) { try room.snapshotter(id) }
        }
    }

    /// What is written to a committed tree behind the daemon's back gets into no other.
    @Test func changedTree() throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        try committed("base", snapshotter, room)
        let tree = try snapshotter.trees.rootfs(of: snapshotter.record(SnapshotKey("base")).tree)
        try runSuccessfully([
            "sh", "-euc",
            "btrfs property set \(tree)/.. ro false; echo evil >\(tree)/a; btrfs property set \(tree)/.. ro true",
        ])
        #expect(
            code {
                _ = try snapshotter.make(.active, SnapshotKey("a"), parent: SnapshotKey("base"), labels: [:])
            } != nil)
        // It can still be removed.
        try snapshotter.remove(SnapshotKey("base"))
    }

    /// Usage of what is written to costs, and counts, the change; of what is committed it is what was there then.
    @Test func usage() throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        try committed(
            "base", snapshotter,
            script: "dd if=/dev/urandom of=big bs=1M count=8 status=none; mkdir d; touch d/1 d/2", room)
        let base = try snapshotter.usage(SnapshotKey("base"))
        #expect(base.size == 8 << 20 && base.inodes == 5, "root, big, d, 1, 2: \(base)")
        let mounts = try snapshotter.make(.active, SnapshotKey("a"), parent: SnapshotKey("base"), labels: [:])
        #expect(try snapshotter.usage(SnapshotKey("a")) == .init(size: 0, inodes: 0))
        try room.run("dd if=/dev/urandom of=small bs=1M count=2 status=none; sync", in: mounts)
        let active = try snapshotter.usage(SnapshotKey("a"))
        #expect(active.size == 2 << 20 && active.inodes == 2, "root and small: \(active)")
        _ = try snapshotter.make(.view, SnapshotKey("v"), parent: SnapshotKey("base"), labels: [:])
        #expect(try snapshotter.usage(SnapshotKey("v")) == .init(size: 0, inodes: 0))
    }

    /// A view has the tree of its parent, which stays when the view goes; but not across name spaces, of which the tree of a mount tells
    /// containerd 1.7's.
    @Test func views() throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        try committed("a/1/base", snapshotter, room)
        let parent = SnapshotKey("a/1/base")
        let (own, other) = (SnapshotKey("a/2/view"), SnapshotKey("b/3/view"))
        let shared = try snapshotter.make(.view, own, parent: parent, labels: [:])
        let apart = try snapshotter.make(.view, other, parent: parent, labels: [:])
        #expect(try snapshotter.record(own).tree == snapshotter.record(parent).tree)
        #expect(try snapshotter.record(other).tree != snapshotter.record(parent).tree)
        let differ = Differ(snapshotter, logger: DaemonRoom.quiet)
        #expect(differ.namespace(of: shared) == "a" && differ.namespace(of: apart) == "b")
        #expect(shared.first?.options == ["ro", "rbind"])
        try room.run("test \"$(cat a)\" = a; ! touch c 2>/dev/null", in: shared)
        #expect(code { try snapshotter.remove(parent) } == .failedPrecondition)
        try snapshotter.remove(own)
        try snapshotter.remove(other)
        snapshotter.cleanUp()
        #expect(try room.trees().count == 2)
        let active = try snapshotter.make(.active, SnapshotKey("a/4/k"), parent: parent, labels: [:])
        try room.run("test \"$(cat a)\" = a", in: active)
    }

    /// What the daemon has is neither collected nor complained about by the command.
    @Test func beside() throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        let layer = room.content.add(tarEntry("f", "0", "one") + endOfTar)
        let mounts = try snapshotter.make(.active, SnapshotKey("k"), parent: Self.none, labels: [:])
        let applied = try room.apply(layer, to: mounts, snapshotter)
        try snapshotter.commit(SnapshotKey("name"), from: SnapshotKey("k"), labels: [:])
        snapshotter.cleanUp()
        let store = try room.store
        #expect(try StoreCheck(store).run().isEmpty)
        var report = try GarbageCollection(store, options: .init()).run()
        #expect(report.chains.isEmpty && report.kept == 1)
        try snapshotter.remove(SnapshotKey("name"))
        snapshotter.cleanUp()
        report = try GarbageCollection(store, options: .init()).run()
        #expect(report.chains == [ChainName(ChainID(applied.digest))])
    }
}
