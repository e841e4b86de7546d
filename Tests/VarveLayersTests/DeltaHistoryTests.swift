import VarveBtrfs
import DeltaChecks
import Glibc
import VarveLayers
import Synchronization
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// Random histories against the oracle: 500 fixed seeds. More of them: Scripts/fuzz-delta.
@Suite struct DeltaHistoryTests {
    static let pieces = stride(from: UInt64(1), through: 451, by: 50).map { $0...($0 + 49) }

    @Test(
        "Every source agrees with the oracle, and the layer gives the new tree, in the histories of seeds",
        arguments: pieces)
    func histories(_ seeds: ClosedRange<UInt64>) throws {
        let volume = try LoopVolume(size: 4 << 30)
        var runner = HistoryRunner(volume: volume.root)
        let check = DeltaCheck()
        for seed in seeds {
            runner.receives = seed.isMultiple(of: 10)
            let outcome = try runner.run(seed: seed) { try check.check($0, $1, $2) }
            guard let failure = outcome.failure else { continue }
            let smallest = try runner.shrink(failure.history, trials: 300) { try check.check($0, $1, $2) }
            Issue.record(
                "seed \(seed): \(failure.message)\nthe fewest operations that fail:\n\(smallest ?? failure)")
            break
        }
        #expect(check.comparisons > 100)
        extendLifetime(volume)
    }
}

/// The delta as somebody without privileges takes it.
@Suite struct DeltaUnprivilegedTests {
    /// The same histories, taken by a caller who may not ask btrfs. With `settles`, change times are old enough to be
    /// trusted, and files that bear the same are not compared; without, everything is. Waiting costs no processor time,
    /// so histories wait side by side.
    @Test("The same histories by a walk", arguments: [false, true])
    func histories(settles: Bool) throws {
        let volume = try LoopVolume(size: 4 << 30)
        let root = volume.root
        let found = Mutex<(pairs: Int, failures: [String])>((0, []))
        let threads = try (UInt64(0)..<12).map { first in
            try WorkerThread(name: "history") {
                var runner = HistoryRunner(volume: root)
                runner.settles = settles
                for seed in [first, first + 12].map({ $0 + 9_000 }) {
                    let outcome = Result {
                        try runner.run(seed: seed) { old, new, pair in
                            try onThread {
                                try dropSystemAdministration()
                                return try DeltaCheck(caller: .unprivileged).check(old, new, pair)
                            }
                        }
                    }
                    found.withLock { found in
                        switch outcome {
                        case .success(let outcome):
                            found.pairs += outcome.pairs
                            if let failure = outcome.failure { found.failures.append("\(failure)") }
                        case .failure(let error):
                            found.failures.append("seed \(seed): \(error)")
                        }
                    }
                }
            }
        }
        for thread in threads { thread.join() }
        let all = found.withLock { $0 }
        #expect(all.failures == [])
        #expect(all.pairs > 50)
        extendLifetime(volume)
    }

    /// Gives up everything that this thread, and it alone, may do (capabilities(7), "Effect of user ID changes").
    private static func dropPrivileges() throws {
        _ = try rawSystemCall(SystemCallNumber.setGroups, 0, 0)
        _ = try rawSystemCall(SystemCallNumber.setResGID, 54321, 54321, 54321)
        _ = try rawSystemCall(SystemCallNumber.setResUID, 54321, 54321, 54321)
    }

    /// `waits`: the ctimes of the old tree are old enough to be trusted, and only what changed is compared.
    @Test("The same as the oracle's, by a walk", arguments: [false, true])
    func walk(waits: Bool) throws {
        let base = try SharedVolume.directory()
        try base.fd.createSubvolume("w")
        let writable = try base.fd.openDirectory("w")
        try base.shell(
            """
            cd w; mkdir -p d/e away; head -c 5000 /dev/urandom > d/e/f; head -c 100000 /dev/urandom > d/e/same; echo 1 > linked; ln linked d/linked
            echo 2 > gone; echo 3 > away/x; ln -s target l; echo 4 > rewritten; setfattr -n user.x -v y rewritten; echo 5 > touched
            """)
        if waits { usleep(2_200_000) }
        try writable.fd.snapshot(to: base.fd, "old", readOnly: true)
        try base.shell(
            """
            cd w; printf x | dd of=d/e/f bs=1 seek=4000 conv=notrunc status=none; touch -r d/e/same d/e/f; chmod 604 linked; rm gone; mv away here
            cp -p rewritten ../kept; cat ../kept > rewritten; touch -r ../kept rewritten
            rm l; echo 6 > l; mkdir new; echo 7 > new/y; cp -a touched touched.2; mv touched.2 touched
            """)
        try writable.fd.snapshot(to: base.fd, "new", readOnly: true)
        let old = SharedDescriptor(try base.fd.openDirectory("old"))
        let new = SharedDescriptor(try base.fd.openDirectory("new"))
        let expected = try Oracle.findings(old: old.fd, new: new.fd)
        #expect(expected.count > 8)
        let result = try onThread {
            try Self.dropPrivileges()
            #expect(geteuid() == 54321)
            return try Delta.compute(
                old: DeltaTree(subvolume: old.fd, root: old.fd),
                new: DeltaTree(subvolume: new.fd, root: new.fd))
        }
        #expect(result.source == .walk)
        #expect(Oracle.disagreement(expected, with: result.changes.map(OracleChange.init)) == nil)
    }

    @Test("What was asked for and may not be done is an error", arguments: [DeltaSource.search, .stream])
    func refused(_ source: DeltaSource) throws {
        let base = try SharedVolume.directory()
        let history = try #require(History("create f 9 1 0o644\nsnapshot\nwrite f 0 3 2\nsnapshot\n"))
        let outcome = try HistoryRunner(volume: base.fd).run(history) { old, new, _ in
            try onThread {
                try Self.dropPrivileges()
                #expect(throws: (any Error).self) {
                    try Delta.compute(
                        old: DeltaTree(subvolume: old, root: old), new: DeltaTree(subvolume: new, root: new),
                        source: source)
                }
            }
            return nil
        }
        #expect(outcome.pairs == 1)
    }
}
