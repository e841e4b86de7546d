import ContainerdChecks
import Glibc
import TestSupport
import Testing
import VarveContainerd
import VarveSystem

/// Random histories through the daemon's calls. `VARVE_DAEMON_HISTORIES` says how many; the seeds are the same each time.
@Suite struct HistoryTests {
    private static let count: UInt64 =
        unsafe getenv("VARVE_DAEMON_HISTORIES").flatMap { unsafe UInt64(String(cString: $0)) } ?? 60
    static let pieces: [ClosedRange<UInt64>] = (UInt64(0)..<4).map { piece in
        let size = max(1, count / 4)
        return piece * size + 1...piece * size + size
    }

    @Test("The layer of each snapshot gives that snapshot, in the histories of seeds", arguments: pieces)
    func histories(_ seeds: ClosedRange<UInt64>) throws {
        let room = try DaemonRoom()
        // Of every other history the layers become chains by being read; of the others, by the trees that they were written of.
        let snapshotters = [try room.snapshotter("adopts"), try room.snapshotter("reads", adopts: false)]
        let store = try room.store
        var (layers, chains, refused) = (0, 0, 0)
        for seed in seeds {
            let history = DaemonHistory(DirectCalls(snapshotters[Int(seed % 2)]), store, seed: seed)
            do { try history.run() } catch {
                Issue.record("seed \(seed): \(error)")
                return
            }
            layers += history.layers
            chains += history.chains
            refused += history.refused
        }
        #expect(layers > seeds.count && chains > seeds.count && refused < layers)
        print("histories \(seeds): \(layers) layers, \(chains) of them as chains, \(refused) refused")
    }
}
