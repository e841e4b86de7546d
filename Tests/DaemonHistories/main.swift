// Plays random histories through a real containerd: Tests/ContainerdHistories starts this and makes the calls for it.
//
//   daemon-histories STORE ID FIRST LAST
//
// STORE is the store, ID the name of the containerd in it, FIRST and LAST are seeds. What was seen goes to standard error, and it ends
// with 1 if something does not hold.

import ContainerdChecks
import Glibc
import SystemPackage
import VarveStore
import VarveSystem

func say(_ text: String) { _ = try? FileDescriptor.standardError.writeAll(Array("\(text)\n".utf8)) }

let words = CommandLine.arguments
guard words.count == 5, let first = UInt64(words[3]), let last = UInt64(words[4]), first <= last else {
    say("usage: daemon-histories STORE ID FIRST LAST")
    exit(2)
}
var (layers, chains, refused) = (0, 0, 0)
do {
    let store = try SnapshotStore.open(at: BytePath(words[1]), logger: DaemonRoom.quiet)
    let calls = try ContainerdCalls(store: BytePath(words[1]), id: words[2])
    for seed in first...last {
        let history = DaemonHistory(calls, store, seed: seed)
        do { try history.run() } catch {
            say("seed \(seed): \(error)")
            exit(1)
        }
        layers += history.layers
        chains += history.chains
        refused += history.refused
    }
} catch {
    say("\(error)")
    exit(1)
}
guard layers > Int(last - first), chains > Int(last - first), refused < layers else {
    say("too little was compared: \(layers) layers, \(chains) as chains, \(refused) refused")
    exit(1)
}
say("\(last - first + 1) histories: \(layers) layers, and \(chains) more as chains, \(refused) refused")
