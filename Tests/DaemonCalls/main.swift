// Makes calls of a daemon's on a store, one after the other, so that it can be ended in the middle of one.
//
//   daemon-calls STORE ID ANSWERS BLOB CALL…
//
// BLOB is a file, the one blob of the content store; a CALL is a line of `DaemonCall`. For each call that was answered a line is
// appended to the file ANSWERS.

import ContainerdChecks
import Glibc
import SystemPackage
import VarveContainerd
import VarveStore
import VarveSystem

let words = CommandLine.arguments
guard words.count > 4 else {
    print("usage: daemon-calls STORE ID ANSWERS BLOB CALL…")
    exit(2)
}
do {
    let content = MemoryContent()
    _ = content.add(try FileDescriptor.workingDirectory.readFile(BytePath(words[4]), limit: 1 << 26))
    let store = try SnapshotStore.open(at: BytePath(words[1]), logger: DaemonRoom.quiet)
    let snapshotter = try Snapshotter(DaemonTrees(store, id: words[2]), logger: DaemonRoom.quiet)
    let answers = try FileDescriptor.workingDirectory.open(
        BytePath(words[3]), [.writeOnly, .create, .append], mode: 0o600)
    for word in words[5...] {
        guard let call = DaemonCall(word) else { throw ServiceError(.invalidArgument, "no call: \(word)") }
        try call.run(snapshotter, content)
        try answers.fd.writeAll(Array("\(call)\n".utf8))
    }
    snapshotter.cleanUp()
} catch {
    print("\(error)")
    exit(1)
}
