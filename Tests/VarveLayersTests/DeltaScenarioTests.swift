import VarveBtrfs
import DeltaChecks
import Glibc
import VarveLayers
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// The hard cases of the delta, one by one. Each is judged by hand and by the oracle, for every source, and the layer
/// made of it must give the new tree (`DeltaCheck`).
@Suite struct DeltaScenarioTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var testDescription: String
        /// Operations that make the old tree, and those that turn it into the new one. But for `touch` they are quiet:
        /// mtimes are put back, so that what is expected does not hang on the clock.
        var old: String
        var new: String
        var expected: [String]

        init(_ description: String, _ old: String, _ new: String, _ expected: [String]) {
            testDescription = description
            self.old = old
            self.new = new
            self.expected = expected
        }
    }

    @Test(arguments: falsePositives + falseNegatives + moves + types + links + generated)
    func scenario(_ one: Case) throws {
        let base = try SharedVolume.directory()
        let history = try #require(
            History(Self.quiet(one.old) + "snapshot\n" + Self.quiet(one.new) + "snapshot\n"))
        let check = DeltaCheck()
        let outcome = try HistoryRunner(volume: base.fd).run(history) { old, new, pair in
            #expect(try Oracle.delta(old: old, new: new).map(Self.text) == Self.inOrder(one.expected))
            return try check.check(old, new, pair)
        }
        #expect(outcome.failure == nil)
        #expect(outcome.refused.isEmpty, "an operation of the case failed")
        #expect(check.unusable.isEmpty, "every source can be used")
    }

    /// In byte order of their paths.
    private static func inOrder(_ lines: [String]) -> [String] {
        lines.sorted { $0.utf8.dropFirst(2).lexicographicallyPrecedes($1.utf8.dropFirst(2)) }
    }

    private static func text(_ change: OracleChange) -> String { "\(change.kind.rawValue) \(change.path)" }

    private static func quiet(_ operations: String) -> String {
        operations.split(separator: "\n").map { line in
            line.hasPrefix("touch ") ? "\(line)\n" : "quietly \(line)\n"
        }.joined()
    }

    /// Commands of the stream, or new transids, behind which there is no change.
    static let falsePositives: [Case] = [
        Case("chmod to the same mode", "create f 9 1 0o640", "same f 0", []),
        Case("chmod there and back", "create f 9 1 0o640", "chmod f 0o600\nchmod f 0o640", []),
        Case("chown to the same owner", "create f 9 1 0o640\nchown f 5 6", "same f 1", []),
        Case("an attribute set to its value", "create f 9 1 0o640\nsetattr f user.x 9 1", "same f 2", []),
        Case(
            "an attribute removed and set again", "create f 9 1 0o640\nsetattr f user.x 9 1",
            "delattr f user.x\nsetattr f user.x 9 1", []),
        Case("a property of btrfs", "create f 9 1 0o640", "property f zstd", []),
        Case("times set to what they were", "create f 9 1 0o640", "same f 3", []),
        Case(
            "a rename there and back", "create f 9 1 0o640\nmkdir d 0o755", "rename f d/g\nrename d/g f", []),
        Case(
            "a directory renamed there and back", "mkdir d 0o755\ncreate d/f 9 1 0o640",
            "rename d e\nrename e d", []),
        Case(
            "two names exchanged twice", "create a 9 1 0o640\ncreate b 8 2 0o640",
            "exchange a b\nexchange a b", []),
        Case("a file made and deleted", "mkdir d 0o755", "create d/f 9 1 0o640\nunlink d/f", []),
        Case("a name linked and unlinked", "create f 9 1 0o640", "link f g\nunlink g", []),
        Case("a rewrite of equal bytes", "create f 50000 1 0o640", "rewrite f", []),
        Case(
            "a truncation taken back by zeros", "create f 4096 1 0o640\ntruncate f 20000",
            "truncate f 4096\ntruncate f 20000", []),
        Case(
            "defragmentation", "create f 4096 1 0o640\nwrite f 8192 4096 2\nsync\nwrite f 4096 4096 3",
            "sync\ndefrag f\nsync", []),
        Case("deduplication", "create f 65536 1 0o640\ncreate g 65536 1 0o640\nsync", "dedupe f g", []),
        Case("preallocation beyond the end", "create f 5000 1 0o640", "allocate f 8192 100000 1", []),
        Case(
            "preallocation in a hole", "create f 5000 1 0o640\ntruncate f 100000", "allocate f 20000 4096 0",
            []),
        Case(
            "a hole punched into a hole", "create f 5000 1 0o640\ntruncate f 100000", "punch f 20000 4096", []
        ),
        Case(
            "a clone of equal bytes", "create f 65536 1 0o640\ncreate g 65536 1 0o640", "clone f g 0 0 65536",
            []),
        Case(
            "a file replaced by an equal one", "create f 50000 1 0o640\nsetattr f user.x 9 1", "replace f", []
        ),
        Case(
            "a directory replaced by an equal one",
            "mkdir d 0o755\ntouch d 5 5\ncreate d/f 9 1 0o640\ntouch d/f 5 5",
            "rmtree d\nmkdir d 0o755\ncreate d/f 9 1 0o640\ntouch d/f 5 5\ntouch d 5 5", []),
        Case(
            "a file kept open after it was deleted", "create f 9 1 0o640\ncreate g 9 1 0o640", "orphan f",
            ["D f"]),
    ]

    /// Changes that no command names.
    static let falseNegatives: [Case] = [
        Case(
            "a write by one name changes all names",
            "create f 9 1 0o640\nmkdir d 0o755\nlink f d/g\nlink f h", "write d/g 0 3 2",
            ["M d/g", "M f", "M h"]),
        Case(
            "a chmod by one name changes all names", "create f 9 1 0o640\nlink f h", "chmod h 0o600",
            ["M f", "M h"]),
        Case(
            "a nested subvolume is not there", "mkdir d 0o755\nsubvolume d/n", "subvolume m\nunsubvolume d/n",
            []),
        Case(
            "a directory that held a nested subvolume is deleted",
            "mkdir d 0o755\nsubvolume d/n\ncreate d/f 9 1 0o640", "rmtree d", ["D d"]),
        Case(
            "a nested subvolume makes room for a directory", "mkdir d 0o755\nsubvolume d/n",
            "unsubvolume d/n\nmkdir d/n 0o755\ncreate d/n/f 9 1 0o640", ["A d/n", "A d/n/f"]),
        Case(
            "a directory makes room for a nested subvolume",
            "mkdir d 0o755\nmkdir d/n 0o755\ncreate d/n/f 9 1 0o640",
            "rmtree d/n\nsubvolume d/n", ["D d/n"]),
        Case(
            "a directory above a nested subvolume is renamed",
            "mkdir d 0o755\nsubvolume d/n\ncreate d/f 9 1 0o640", "rename d e", ["A e", "A e/f", "D d"]),
        Case(
            "a file deep down changes alone",
            "mkdirs d 5 3\nmkdir x 0o755\nmkdir x/y 0o755\nmkdir x/y/z 0o755\ncreate x/y/z/f 9 1 0o640\ncreate x/g 9 1 0o640",
            "write x/y/z/f 0 3 2", ["M x/y/z/f"]),
        Case("the root changes alone", "create f 9 1 0o640", "chmod . 0o700", ["M ."]),
        Case(
            "the last byte of a file that shares all else", "create f 200000 1 0o640\nsync",
            "write f 199999 1 2", ["M f"]),
        Case("a hole where bytes were", "create f 65536 1 0o640\nsync", "punch f 4096 4096", ["M f"]),
        Case(
            "a piece cloned from another place", "create f 65536 1 0o640\nsync", "clone f f 0 32768 4096",
            ["M f"]),
        Case(
            "a small file whose bytes lie in the metadata", "create f 100 1 0o640\nsync", "write f 50 1 2",
            ["M f"]),
    ]

    static let moves: [Case] = [
        Case(
            "two directories swapped",
            "mkdir a 0o755\ncreate a/1 9 1 0o640\nmkdir b 0o755\ncreate b/2 9 2 0o640", "exchange a b",
            ["A a/2", "A b/1", "D a/1", "D b/2"]),
        Case(
            "two directories swapped in three steps",
            "mkdir a 0o755\ncreate a/1 9 1 0o640\nmkdir b 0o755\ncreate b/2 9 2 0o640",
            "rename a t\nrename b a\nrename t b",
            // Each has the other's mtime now.
            ["A a/2", "A b/1", "D a/1", "D b/2", "M a", "M b"]),
        Case(
            "two equal directories swapped", "mkdir a 0o755\ntouch a 5 5\nmkdir b 0o755\ntouch b 5 5",
            "exchange a b", []),
        Case(
            "a directory renamed",
            "mkdir a 0o755\ncreate a/1 9 1 0o640\nmkdir a/d 0o755\ncreate a/d/2 9 2 0o640", "rename a b",
            ["A b", "A b/1", "A b/d", "A b/d/2", "D a"]),
        Case(
            "a directory renamed, another in its place", "mkdir a 0o755\ncreate a/1 9 1 0o640",
            "rename a b\nmkdir a 0o755\ncreate a/2 9 2 0o640\nchmod a 0o700",
            ["A a/2", "A b", "A b/1", "D a/1", "M a"]),
        Case(
            "a directory moved into its child",
            "mkdir a 0o755\nmkdir a/b 0o755\ncreate a/b/f 9 1 0o640\ncreate a/g 9 2 0o640",
            "rename a/b b\nrename a b/a", ["A b", "A b/a", "A b/a/g", "A b/f", "D a"]),
        Case(
            "two directories moved into each other's children",
            "mkdir a 0o755\nmkdir a/x 0o755\ncreate a/x/1 9 1 0o640\nmkdir b 0o755\nmkdir b/y 0o755\ncreate b/y/2 9 2 0o640",
            "rename a/x t\nrename b/y u\nrename b t/b\nrename a u/a\nrename t x\nrename u y",
            ["A x", "A x/1", "A x/b", "A y", "A y/2", "A y/a", "D a", "D b"]),
        Case(
            "a file renamed over another", "create a 9 1 0o640\ncreate b 8 2 0o640", "rename a b",
            ["D a", "M b"]),
        Case(
            "three files in a circle", "create a 1 1 0o640\ncreate b 2 2 0o640\ncreate c 3 3 0o640",
            "rename a t\nrename b a\nrename c b\nrename t c",
            ["M a", "M b", "M c"]),
        Case(
            "a file moved into a new directory", "create a 1 1 0o640", "mkdir d 0o755\nrename a d/a",
            ["A d", "A d/a", "D a"]),
        Case(
            "a file moved up, its directory deleted", "mkdir d 0o755\ncreate d/a 1 1 0o640",
            "rename d/a a\nrmdir d", ["A a", "D d"]),
        Case(
            "a changed file below a renamed directory",
            "mkdir d 0o755\nmkdir d/e 0o755\ncreate d/e/f 9 1 0o640", "rename d g\nwrite g/e/f 0 3 2",
            ["A g", "A g/e", "A g/e/f", "D d"]),
        Case(
            "a directory renamed below a renamed one",
            "mkdir d 0o755\nmkdir d/e 0o755\ncreate d/e/f 9 1 0o640",
            "rename d g\nrename g/e g/h\nrename g d",
            ["A d/h", "A d/h/f", "D d/e"]),
    ]

    static let types: [Case] = [
        Case(
            "a directory becomes a file", "mkdir d 0o755\ncreate d/f 9 1 0o640",
            "rmtree d\ncreate d 9 1 0o640", ["M d"]),
        Case(
            "a file becomes a directory", "create d 9 1 0o640",
            "unlink d\nmkdir d 0o755\ncreate d/f 9 1 0o640", ["A d/f", "M d"]),
        Case(
            "a link becomes a directory", "symlink l x", "unlink l\nmkdir l 0o755\nsymlink l/m y",
            ["A l/m", "M l"]),
        Case(
            "a file and a directory exchanged", "create a 9 1 0o640\nmkdir b 0o755\ncreate b/f 9 1 0o640",
            "exchange a b", ["A a/f", "M a", "M b"]),
        Case("a device becomes a FIFO", "device n 0 1 3", "unlink n\nfifo n 0o600", ["M n"]),
        Case(
            "a device of another number", "device n 0 1 3\ntouch n 5 5",
            "unlink n\ndevice n 0 1 5\ntouch n 5 5", ["M n"]),
        Case(
            "a file becomes a socket, which no image holds", "create s 9 1 0o640", "unlink s\nsocket s",
            ["D s"]),
        Case("a socket becomes a file", "socket s", "unlink s\ncreate s 9 1 0o640", ["A s"]),
        Case("a socket in a new directory", "create f 9 1 0o640", "mkdir d 0o755\nsocket d/s", ["A d"]),
        Case(
            "a directory becomes another one", "mkdir d 0o755\ntouch d 5 5\ncreate d/f 9 1 0o640",
            "rmtree d\nmkdir d 0o755\ntouch d 5 5\ncreate d/g 9 1 0o640",
            ["A d/g", "D d/f"]),
    ]

    static let links: [Case] = [
        Case("a name added to a file", "create a 9 1 0o640", "link a b", ["A b", "M a"]),
        Case("a name taken from a file", "create a 9 1 0o640\nlink a b", "unlink b", ["D b"]),
        Case(
            "two equal files become one", "create a 9 1 0o640\ntwin a b", "unlink b\nlink a b\ntouch a 5 5",
            ["M a", "M b"]),
        Case("one file becomes two equal ones", "create a 9 1 0o640\nlink a b", "replace b", ["M a", "M b"]),
        Case(
            "of three names one becomes another file", "create a 9 1 0o640\nlink a b\nlink a c",
            "unlink b\ncreate b 5 5 0o600", ["M b"]),
        Case(
            "a name moved", "create a 9 1 0o640\nlink a b\nmkdir d 0o755", "rename b d/b",
            ["A d/b", "D b", "M a"]),
        Case(
            "two files swap one of their names", "create a 9 1 0o640\nlink a b\ncreate c 8 2 0o640\nlink c d",
            "exchange b d", ["M a", "M b", "M c", "M d"]),
        Case("links of a symbolic link", "symlink a x\nlink a b", "link b c", ["A c", "M a", "M b"]),
        Case(
            "all names in a directory that is renamed",
            "mkdir d 0o755\ncreate d/a 9 1 0o640\nlink d/a d/b\nlink d/a c", "rename d e",
            ["A e", "A e/a", "A e/b", "D d", "M c"]),
    ]

    /// What the generator of histories found.
    static let generated: [Case] = [
        // The whiteout's name is longer than any file's may be.
        Case(
            "a name of 255 bytes is deleted", "create \\{255n} 9 1 0o640\nmkdir \\{255d} 0o755",
            "unlink \\{255n}\nrmdir \\{255d}",
            ["D \(String(repeating: "d", count: 255))", "D \(String(repeating: "n", count: 255))"]),
        Case(
            "names that are no text", "create \\xff\\x0a 9 1 0o640", "rename \\xff\\x0a \\xfe\\x5c",
            ["A \\xfe\\x5c", "D \\xff\\x0a"]),
        // What comes before what in the order of bytes is not what comes before what in a walk.
        Case(
            "a directory and names that sort around its slash", "mkdir a 0o755",
            "create a/b 1 1 0o640\ncreate a-b 1 1 0o640\ncreate a0 1 1 0o640",
            ["A a-b", "A a/b", "A a0"]),
        Case(
            "below a socket's old name", "socket s", "unlink s\nmkdir s 0o755\ncreate s/f 1 1 0o640",
            ["A s", "A s/f"]),
        // The kernel gives the name o257-N-0 to what it has to put aside.
        Case(
            "a file named as the stream names new inodes", "create o257-7-0 1 1 0o640\nmkdir d 0o755",
            "rename o257-7-0 d/f\nmkdir o257-7-0 0o755",
            ["A d/f", "M o257-7-0"]),
        Case(
            "a whiteout's name is no matter for the delta", "create .wh.x 1 1 0o640", "write .wh.x 0 1 2",
            ["M .wh.x"]),
    ]

    // MARK: Many

    @Test("1,000 hard links to a file that changes")
    func manyLinks() throws {
        let base = try SharedVolume.directory()
        let history = try #require(
            History(
                "create f 9 1 0o640\nmkdir d 0o755\nlinks f d 0 1000\nsnapshot\nwrite f 0 3 2\nsnapshot\nquietly unlink d/l7\nsnapshot\n"
            ))
        let check = DeltaCheck()
        let outcome = try HistoryRunner(volume: base.fd).run(history) { old, new, pair in
            let changes = try Oracle.delta(old: old, new: new)
            if pair.new == 1 { #expect(changes.count == 1001) }
            if pair.old == 1 { #expect(changes.map(Self.text) == ["D d/l7"]) }
            return try check.check(old, new, pair)
        }
        #expect(outcome.failure == nil && outcome.pairs == 3)
        #expect(check.unusable.isEmpty)
    }

    @Test("5,000 changes in 50 directories, which several threads look at")
    func manyChanges() throws {
        let base = try SharedVolume.directory()
        var old = ""
        var new = ""
        for directory in 0..<50 {
            old += "mkdir d\(directory) 0o755\nmkdir d\(directory)/in 0o755\n"
            for file in 0..<100 {
                let path = "d\(directory)/\(file % 2 == 0 ? "in/" : "")f\(file)"
                old += "create \(path) 9 \(file + 1) 0o640\n"
                // Names of one file in two directories, of which one alone may be seen to change.
                if file == 7 { old += "link \(path) d\(directory / 2)/l\(directory)\n" }
                switch file % 10 {
                case 0: new += "unlink \(path)\n"
                case 1: new += "chmod \(path) 0o600\n"
                case 2: new += "rename \(path) d\((directory + 7) % 50)/moved\(directory)-\(file)\n"
                default: new += "write \(path) 0 3 2\n"
                }
            }
        }
        let history = try #require(History(old + "snapshot\n" + new + "snapshot\n"))
        let check = DeltaCheck()
        let outcome = try HistoryRunner(volume: base.fd).run(history) { old, new, pair in
            #expect(try Oracle.delta(old: old, new: new).count > 5000)
            return try check.check(old, new, pair)
        }
        #expect(outcome.failure == nil && outcome.refused.isEmpty)
        #expect(check.unusable.isEmpty, "\(check.unusable)")
    }

    @Test("Reading 20,000 files leaves the delta empty", arguments: [false, true])
    func reading(noAccessTime: Bool) throws {
        let volume = try LoopVolume(size: 512 << 20, flags: noAccessTime ? .noAccessTime : [])
        try volume.root.createSubvolume("tree")
        let tree = try volume.root.openDirectory("tree")
        let names = (0..<20_000).map { BytePath("f\($0)") }
        for name in names {
            let file = try tree.fd.open(name, [.writeOnly, .create], mode: 0o644)
            try file.fd.writeFull([1])
        }
        try tree.fd.snapshot(to: volume.root, "old", readOnly: true)
        for name in names {
            // With relatime a file whose atime is not later than its mtime gets a new one.
            let file = try tree.fd.open(name, [.readOnly])
            _ = try file.fd.readAll(limit: 10)
        }
        try tree.fd.snapshot(to: volume.root, "new", readOnly: true)
        let old = try volume.root.openDirectory("old")
        let new = try volume.root.openDirectory("new")

        var search = TreeSearch(new.fd)
        var touched = 0
        // At least: all were made in that transaction or one before it.
        try search.forEachInode(changedSince: try old.fd.subvolumeInfo().originTransaction + 1) { _ in
            touched += 1
        }
        #expect(touched == (noAccessTime ? 0 : 20_000), "the mount does with atimes what the test is about")
        for source in DeltaSource.allCases {
            let result = try Delta.compute(
                old: DeltaTree(subvolume: old.fd, root: old.fd),
                new: DeltaTree(subvolume: new.fd, root: new.fd), source: source)
            #expect(result.changes == [], "\(source)")
        }
        extendLifetime(volume)
    }

    @Test(
        "Replacing each name of one file takes a time that grows with their number",
        arguments: [DeltaSource.auto, .stream])
    func replacedNames(_ source: DeltaSource) throws {
        func time(_ count: Int) throws -> Double {
            let base = try SharedVolume.directory()
            defer { extendLifetime(base) }
            try base.shell(
                """
                btrfs -q subvolume create old; echo x > old/n0
                python3 -c 'import os
                for number in range(1, \(count)): os.link("old/n0", "old/n%d" % number)'
                btrfs -q subvolume snapshot old new; btrfs property set old ro true
                python3 -c 'import os
                status = os.stat("new/n0")
                for number in range(\(count)):
                    with open("new/t", "w") as file: file.write("x\\n")
                    os.utime("new/t", ns=(status.st_atime_ns, status.st_mtime_ns))
                    os.rename("new/t", "new/n%d" % number)
                status = os.stat("old")
                os.utime("new", ns=(status.st_atime_ns, status.st_mtime_ns))'
                btrfs property set new ro true
                """)
            let old = try base.fd.openDirectory("old")
            let new = try base.fd.openDirectory("new")
            return try ProcessorTime.least {
                let result = try Delta.compute(
                    old: DeltaTree(subvolume: old.fd, root: old.fd),
                    new: DeltaTree(subvolume: new.fd, root: new.fd), source: source)
                #expect(result.changes.count >= count - 1, "\(result.changes.count) of \(count)")
            }
        }
        let (few, many) = (try time(250), try time(2_000))
        #expect(ProcessorTime.isInProportion(few, toEightTimesAsMuch: many), "\(few) \(many)")
    }

    @Test("A path over PATH_MAX: the kernel cannot send it, auto is right")
    func longPath() throws {
        let base = try SharedVolume.directory()
        let history = try #require(
            History(
                "mkdirs d 20 250\ncreate f 9 1 0o640\nsnapshot\nmkdirs e 20 250\nchmod f 0o600\nsnapshot\n"))
        let check = DeltaCheck()
        let outcome = try HistoryRunner(volume: base.fd).run(history) { old, new, pair in
            #expect {
                try Delta.compute(
                    old: DeltaTree(subvolume: old, root: old), new: DeltaTree(subvolume: new, root: new),
                    source: .stream)
            } throws: { Self.isUnusable($0) }
            return try check.check(old, new, pair)
        }
        #expect(outcome.failure == nil && outcome.pairs == 1, "\(String(describing: outcome.failure))")
        #expect(check.unusable.keys.sorted() == ["stream earlier"])
    }

    // MARK: Lineage

    static func isUnusable(_ error: any Error) -> Bool {
        if case LayerError.sourceUnusable = error { true } else { false }
    }

    @Test("A row of snapshots of one subvolume: every source can be used between any two")
    func row() throws {
        let base = try SharedVolume.directory()
        let history = try #require(
            History(
                """
                mkdir d 0o755
                create d/f 5000 1 0o640
                snapshot
                write d/f 0 3 2
                snapshot
                rename d e
                create g 1 1 0o640
                snapshot
                unlink g
                snapshot
                """))
        let check = DeltaCheck()
        let outcome = try HistoryRunner(volume: base.fd).run(history) { old, new, pair in
            #expect(pair.lineage == .earlier)
            return try check.check(old, new, pair)
        }
        #expect(outcome.failure == nil && outcome.pairs == 6)
        #expect(check.unusable.isEmpty, "\(check.unusable)")
    }

    @Test("A bundle's row: snapshot, writable copy, snapshot of that")
    func copies() throws {
        let base = try SharedVolume.directory()
        let history = try #require(
            History(
                "create f 5000 1 0o640\nsnapshot\nrebase 0\nwrite f 0 3 2\nsnapshot\nrebase 1\ncreate g 1 1 0o640\nsnapshot\n"
            ))
        let check = DeltaCheck()
        let outcome = try HistoryRunner(volume: base.fd).run(history) { old, new, pair in
            #expect(pair.lineage == .ancestor)
            return try check.check(old, new, pair)
        }
        #expect(outcome.failure == nil && outcome.pairs == 3)
        #expect(check.unusable.isEmpty, "\(check.unusable)")
    }

    @Test("Siblings, which give one inode number to different files: only the walk can be used")
    func siblings() throws {
        let base = try SharedVolume.directory()
        let history = try #require(
            History(
                """
                mkdir d 0o755
                create d/f 9 1 0o640
                snapshot
                rebase 0
                create one 100 1 0o640
                create d/x 10 3 0o640
                snapshot
                rebase 0
                create two 100 2 0o640
                mkdir d/x 0o755
                snapshot
                """))
        let check = DeltaCheck()
        let outcome = try HistoryRunner(volume: base.fd, checksReversed: true).run(history) {
            old, new, pair in
            if pair.old == 1 && pair.new == 2 {
                let one = try old.status(of: "one")
                let two = try new.status(of: "two")
                #expect(one.inode == two.inode, "the case is the one it is meant to be")
            }
            if pair.lineage == .unrelated {
                let before = DeltaTree(subvolume: old, root: old)
                let after = DeltaTree(subvolume: new, root: new)
                #expect { try Delta.compute(old: before, new: after, source: .stream) } throws: {
                    Self.isUnusable($0)
                }
                #expect { try Delta.compute(old: before, new: after, source: .search) } throws: {
                    Self.isUnusable($0)
                }
                #expect(try Delta.compute(old: before, new: after).source == .walk)
            }
            return try check.check(old, new, pair)
        }
        #expect(outcome.failure == nil && outcome.pairs == 6)
    }

    @Test("The old tree was changed after its snapshot: only the walk can be used")
    func changedAfterwards() throws {
        let base = try SharedVolume.directory()
        try base.fd.createSubvolume("old")
        let old = try base.fd.openDirectory("old")
        for name: BytePath in ["same", "changed", "deleted"] {
            try old.fd.writeFileDurably(name, Array("1".utf8))
        }
        try old.fd.snapshot(to: base.fd, "new", readOnly: true)
        let new = try base.fd.openDirectory("new")
        try old.fd.writeFileDurably("changed", Array("2".utf8))
        try old.fd.unlink("deleted")
        try old.fd.writeFileDurably("added", Array("3".utf8))
        try old.fd.setSubvolumeReadOnly(true)
        let before = DeltaTree(subvolume: old.fd, root: old.fd)
        let after = DeltaTree(subvolume: new.fd, root: new.fd)
        #expect { try Delta.compute(old: before, new: after, source: .stream) } throws: {
            Self.isUnusable($0)
        }
        #expect { try Delta.compute(old: before, new: after, source: .search) } throws: {
            Self.isUnusable($0)
        }
        let result = try Delta.compute(old: before, new: after)
        #expect(result.source == .walk)
        let expected = try Oracle.delta(old: old.fd, new: new.fd)
        #expect(result.changes.map(Self.text) == expected.map(Self.text))
        #expect(
            expected.map(Self.text).filter { $0 != "M ." }
                == Self.inOrder(["A deleted", "D added", "M changed"]))
    }

    private static func text(_ change: Change) -> String {
        change.description
    }

    @Test("The same tree on both sides")
    func sameTree() throws {
        let base = try SharedVolume.directory()
        try base.fd.createSubvolume("s")
        let tree = try base.fd.openDirectory("s")
        try tree.fd.writeFileDurably("f", [1])
        let side = DeltaTree(subvolume: tree.fd, root: tree.fd)
        #expect(try Delta.compute(old: side, new: side).changes == [])
    }

    @Test("A tree below the root of its subvolume: what goes out of it is deleted, what comes in is added")
    func belowTheSubvolume() throws {
        let base = try SharedVolume.directory()
        try base.fd.createSubvolume("w")
        try base.shell(
            """
            cd w; mkdir -p rootfs/d/e outside; echo 1 > rootfs/d/e/f; echo 2 > outside/g; echo 3 > rootfs/h; ln rootfs/h outside/h
            echo 4 > rootfs/out; echo 5 > rootfs/kept; mkdir rootfs/moved; echo 6 > rootfs/moved/i
            """)
        let writable = try base.fd.openDirectory("w")
        try writable.fd.snapshot(to: base.fd, "old", readOnly: true)
        try base.shell(
            """
            cd w; touch -d @5 outside; mv rootfs/out outside/; mv outside/g rootfs/d/e/; echo 33 >> outside/h; mv rootfs/moved moved
            ln rootfs/kept linked; mkdir outside/new; mv outside/new rootfs/; echo 7 > rootfs/new/j
            """)
        try writable.fd.snapshot(to: base.fd, "new", readOnly: true)
        let old = try base.fd.openDirectory("old")
        let new = try base.fd.openDirectory("new")
        let oldRoot = try base.fd.openDirectory("old/rootfs")
        let newRoot = try base.fd.openDirectory("new/rootfs")
        let expected = try Oracle.delta(old: oldRoot.fd, new: newRoot.fd).map(Self.text)
        #expect(
            expected
                == Self.inOrder(["A d/e/g", "A new", "A new/j", "D moved", "D out", "M .", "M d/e", "M h"]))
        for source in DeltaSource.allCases {
            let result = try Delta.compute(
                old: DeltaTree(subvolume: old.fd, root: oldRoot.fd),
                new: DeltaTree(subvolume: new.fd, root: newRoot.fd), source: source)
            #expect(result.changes.map(Self.text) == expected, "\(source)")
            if source == .auto { #expect(result.source == .search) }
        }
    }

    @Test("The root of the tree is another directory of the subvolume now")
    func anotherRoot() throws {
        let base = try SharedVolume.directory()
        try base.fd.createSubvolume("w")
        try base.shell(
            "cd w; mkdir -p rootfs/d other/d; echo 1 > rootfs/d/f; cp -a rootfs/d/f other/d/f; echo 2 > other/g; ln other/g other/h"
        )
        let writable = try base.fd.openDirectory("w")
        try writable.fd.snapshot(to: base.fd, "old", readOnly: true)
        try base.shell("cd w; mv rootfs x; mv other rootfs; mv x other")
        try writable.fd.snapshot(to: base.fd, "new", readOnly: true)
        let old = try base.fd.openDirectory("old")
        let new = try base.fd.openDirectory("new")
        let oldRoot = try base.fd.openDirectory("old/rootfs")
        let newRoot = try base.fd.openDirectory("new/rootfs")
        let expected = try Oracle.delta(old: oldRoot.fd, new: newRoot.fd).map(Self.text)
        #expect(expected.contains("A g") && expected.contains("A h"))
        for source in DeltaSource.allCases {
            let result = try Delta.compute(
                old: DeltaTree(subvolume: old.fd, root: oldRoot.fd),
                new: DeltaTree(subvolume: new.fd, root: newRoot.fd), source: source)
            #expect(result.changes.map(Self.text) == expected, "\(source)")
        }
    }

    @Test("Who asks to stop is heard", arguments: DeltaSource.allCases)
    func stopping(_ source: DeltaSource) throws {
        let base = try SharedVolume.directory()
        let history = try #require(History("create f 9 1 0o640\nsnapshot\nwrite f 0 3 2\nsnapshot\n"))
        let outcome = try HistoryRunner(volume: base.fd).run(history) { old, new, _ in
            #expect(throws: Errno.canceled) {
                try Delta.compute(
                    old: DeltaTree(subvolume: old, root: old), new: DeltaTree(subvolume: new, root: new),
                    source: source
                ) { throw Errno.canceled }
            }
            return nil
        }
        #expect(outcome.pairs == 1)
    }
}
