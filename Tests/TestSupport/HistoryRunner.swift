import Glibc
import VarveSystem
package import SystemPackage

/// How the old tree of a pair came before the new one.
package enum HistoryLineage: String, Sendable {
    /// By the UUIDs of the subvolumes, OLD is the parent of NEW or a parent of its parents.
    case ancestor
    /// OLD is an earlier state of NEW, as both were taken from one subvolume or from one that goes back to
    /// it, but no chain of parent UUIDs says so.
    case earlier
    /// Neither is an earlier state of the other, or OLD is the later one.
    case unrelated
}

/// Two snapshots of a history, as a check gets them.
package struct HistoryPair: Sendable, CustomStringConvertible {
    package var seed: UInt64?
    /// The numbers of the two snapshots.
    package var old: Int
    package var new: Int
    package var lineage: HistoryLineage
    /// A directory on the volume, outside both trees, where the check may make what it likes. Subvolumes and
    /// files that it leaves right below it are removed with the history.
    package var workspace: FileDescriptor

    package var description: String {
        "\(seed.map { "seed \($0), " } ?? "")snapshots \(old) and \(new) (\(lineage.rawValue))"
    }

    /// Calls `body` with a writable snapshot of `tree`, which is deleted afterwards.
    package func withWritableSnapshot<R>(of tree: FileDescriptor, _ body: (FileDescriptor) throws -> R) throws
        -> R
    {
        let name = BytePath("copy-\(randomName())")
        try HistorySubvolumes.snapshot(tree, workspace, name, isReadOnly: false)
        defer { try? HistorySubvolumes.delete(workspace, name) }
        let copy = try workspace.openDirectory(name)
        return try body(copy.fd)
    }
}

/// A history for which the check did not hold.
package struct HistoryFailure: Error, CustomStringConvertible {
    package var history: History
    /// The pair and its lineage, as text.
    package var pair: String
    /// What the check said.
    package var message: String

    package var description: String {
        "\(pair): \(message)\n\(history.operations.count) operations:\n\(history)"
    }
}

/// What came of a history.
package struct HistoryOutcome {
    /// The first pair that failed; nil if all held.
    package var failure: HistoryFailure?
    package var pairs = 0
    /// Operations that were carried out, and those that failed with an errno, by verb.
    package var done: [HistoryOperation.Verb: Int] = [:]
    package var refused: [HistoryOperation.Verb: Int] = [:]
}

/// Plays histories on a btrfs and has each pair of snapshots checked.
package struct HistoryRunner {
    /// Says what is wrong with the delta of two trees; nil if nothing is. An error that it throws is a
    /// failure too.
    package typealias Check = (_ old: FileDescriptor, _ new: FileDescriptor, _ pair: HistoryPair) throws ->
        String?

    private let volume: FileDescriptor
    /// Whether pairs are checked from the later snapshot to the earlier one as well.
    package var checksReversed: Bool
    /// Whether more than a second passes before each snapshot, so that change times before it are older than it by
    /// more than any tick of the clock.
    package var settles = false

    /// Whether copies of the snapshots that `btrfs receive` makes are checked as well. They are written in user space, and what
    /// was written last is still in memory alone.
    package var receives = false

    /// `volume` is a directory on a btrfs, in which a directory is made for each history and removed after
    /// it. Needs CAP_SYS_ADMIN.
    package init(volume: FileDescriptor, checksReversed: Bool = false) {
        self.volume = volume
        self.checksReversed = checksReversed
    }

    package func run(seed: UInt64, check: Check) throws -> HistoryOutcome {
        try run(History(generating: seed), check: check)
    }

    /// Plays the history and checks every pair of its snapshots. Throws only if the volume itself fails
    /// (full, read-only …).
    package func run(_ history: History, check: Check) throws -> HistoryOutcome {
        let name = BytePath("history-\(randomName())")
        try volume.makeDirectory(name, mode: 0o755)
        let directory = try volume.openDirectory(name)
        defer {
            try? clean(directory.fd)
            try? volume.removeDirectory(name)
        }
        var outcome = HistoryOutcome()
        let snapshots = try replay(history, in: directory.fd, &outcome)
        var trees = try snapshots.indices.map {
            try SharedDescriptor(directory.fd.openDirectory(Self.name($0)))
        }
        try checkPairs(trees, history, directory.fd, &outcome, check) { Self.lineage(snapshots, $0, $1) }
        guard receives, outcome.failure == nil else { return outcome }
        trees = try receive(count: trees.count, in: directory.fd)
        try checkPairs(trees, history, directory.fd, &outcome, check) { _, _ in .unrelated }
        return outcome
    }

    private func checkPairs(
        _ trees: [SharedDescriptor], _ history: History, _ directory: FileDescriptor,
        _ outcome: inout HistoryOutcome, _ check: Check, lineage: (Int, Int) -> HistoryLineage
    ) throws {
        defer { withExtendedLifetime(trees) {} }
        for new in trees.indices {
            for old in trees.indices where old != new && (old < new || checksReversed) {
                let pair = HistoryPair(
                    seed: history.seed, old: old, new: new, lineage: lineage(old, new), workspace: directory)
                outcome.pairs += 1
                var message: String?
                do {
                    message = try check(trees[old].fd, trees[new].fd, pair)
                } catch {
                    message = "the check threw: \(error)"
                }
                if let message {
                    outcome.failure = HistoryFailure(
                        history: history, pair: pair.description, message: message)
                    return
                }
            }
        }
    }

    /// Sends the snapshots to each other's side, each as the difference to the one before it. Ends where the kernel's stream is
    /// one that cannot be received.
    private func receive(count: Int, in directory: FileDescriptor) throws -> [SharedDescriptor] {
        let path = try FileDescriptor.workingDirectory.readSymbolicLink(
            BytePath("/proc/self/fd/\(directory.rawValue)")
        )
        try directory.makeDirectory("received", mode: 0o755)
        var trees = [SharedDescriptor]()
        for number in 0..<count {
            let parent = number > 0 ? "-p s\(number - 1)" : ""
            let result = try runCommand([
                "bash", "-c",
                "cd \"$1\" && set -o pipefail && btrfs -q send \(parent) s\(number) | btrfs -q receive received",
                "bash", path.description,
            ])
            guard result.status == 0 else { break }
            trees.append(
                SharedDescriptor(try directory.openDirectory(BytePath("received/s\(number)"))))
        }
        return trees
    }

    // MARK: Replay

    /// A snapshot taken: of which writable tree, and which snapshot that had begun as.
    private struct Snapshot {
        var writable: Int
        var origin: Int?
        /// It was written to when it was read-only already.
        var isEdited = false
    }

    private static func name(_ snapshot: Int) -> BytePath { BytePath("s\(snapshot)") }

    private func replay(
        _ history: History, in directory: FileDescriptor, _ outcome: inout HistoryOutcome
    ) throws -> [Snapshot] {
        var snapshots = [Snapshot]()
        var writable = 0
        var origin: Int?
        try HistorySubvolumes.create(directory, BytePath("w0"))
        var tree = try SharedDescriptor(directory.openDirectory(BytePath("w0")))
        var replay = HistoryReplay(root: tree)
        // Those of a tree that was left still hold their unlinked files, and write to files; with the number of the snapshot
        // that the tree has become.
        var left = [(replay: HistoryReplay, frozen: Int?)]()
        defer { withExtendedLifetime(left) {} }
        // The tree was frozen as this one, and nothing has happened since.
        var frozen: Int?
        func goOn(from base: Int) throws {
            let source = try directory.openDirectory(Self.name(base))
            writable += 1
            let name = BytePath("w\(writable)")
            try HistorySubvolumes.snapshot(source.fd, directory, name, isReadOnly: false)
            origin = base
            left.append((replay, frozen))
            frozen = nil
            tree = try SharedDescriptor(directory.openDirectory(name))
            replay = HistoryReplay(root: tree)
        }
        for operation in history.operations {
            switch operation.verb {
            case .snapshot:
                if let base = frozen { try goOn(from: base) }
                if settles { usleep(1_100_000) }
                try HistorySubvolumes.snapshot(
                    tree.fd, directory, Self.name(snapshots.count), isReadOnly: true)
                snapshots.append(Snapshot(writable: writable, origin: origin))
            case .freeze:
                if let base = frozen { try goOn(from: base) }
                if settles { usleep(1_100_000) }
                try HistorySubvolumes.setReadOnly(tree.fd, true)
                try directory.rename(
                    BytePath("w\(writable)"), to: directory, Self.name(snapshots.count), replacing: false)
                frozen = snapshots.count
                snapshots.append(Snapshot(writable: writable, origin: origin))
            case .rebase:
                let base = operation.count(0)
                if base < snapshots.count { try goOn(from: base) }
            case .edit:
                let number = operation.count(0)
                guard number < snapshots.count else { continue }
                do {
                    try edit(operation, in: directory, Self.name(number))
                    snapshots[number].isEdited = true
                    outcome.done[.edit, default: 0] += 1
                } catch Errno.noSpace {
                    throw Errno.noSpace
                } catch {
                    outcome.refused[.edit, default: 0] += 1
                }
            case .late:
                var hasWritten = replay.writeLate(operation)
                if hasWritten, let frozen { snapshots[frozen].isEdited = true }
                for other in left where other.replay.writeLate(operation) {
                    hasWritten = true
                    if let frozen = other.frozen { snapshots[frozen].isEdited = true }
                }
                if hasWritten { outcome.done[.late, default: 0] += 1 }
            default:
                if let base = frozen { try goOn(from: base) }
                do {
                    try replay.apply(operation)
                    outcome.done[operation.verb, default: 0] += 1
                } catch Errno.noSpace {
                    throw Errno.noSpace
                } catch {
                    outcome.refused[operation.verb, default: 0] += 1
                }
            }
        }
        return snapshots
    }

    /// Writes to a file of a snapshot that is read-only before and after.
    private func edit(
        _ operation: HistoryOperation, in directory: FileDescriptor, _ name: BytePath
    ) throws(Errno) {
        let tree = try directory.openDirectory(name)
        let path = operation.word(0)
        let parent = try OracleTree.openDirectory(tree.fd, path.parent)
        let status = try parent.fd.status(of: path.lastComponent)
        guard status.isRegular else { throw .invalidArgument }
        try HistorySubvolumes.setReadOnly(tree.fd, false)
        defer { try? HistorySubvolumes.setReadOnly(tree.fd, true) }
        let file = try parent.fd.open(path.lastComponent, [.writeOnly, .noFollow, .nonBlocking])
        let bytes = HistoryRandom.bytes(min(operation.count(2), 1 << 20), seed: operation.number(3))
        let result: Result<Void, Errno> = unsafe bytes.withUnsafeBytes { raw in
            do throws(Errno) {
                return unsafe .success(try file.fd.writeFull(raw, at: operation.number(1)))
            } catch {
                return .failure(error)
            }
        }
        try result.get()
        if operation.isQuiet {
            try file.fd.setTimes(access: status.accessTime, modification: status.modificationTime)
        }
    }

    private static func lineage(_ snapshots: [Snapshot], _ old: Int, _ new: Int) -> HistoryLineage {
        // What descends from it descends from another state.
        if snapshots[old].isEdited { return .unrelated }
        var current: Int? = new
        while let snapshot = current {
            // An origin is always a snapshot taken before, so this ends.
            if snapshot != new, snapshot == old { return .ancestor }
            current = snapshots[snapshot].origin
        }
        current = new
        while let snapshot = current {
            if snapshots[snapshot].writable == snapshots[old].writable, old < snapshot { return .earlier }
            current = snapshots[snapshot].origin
        }
        return .unrelated
    }

    private func clean(_ directory: FileDescriptor) throws {
        for entry in try directory.entries() {
            let status = try directory.status(of: entry.name)
            if status.isDirectory, status.inode == 256 {
                try HistorySubvolumes.delete(directory, entry.name)
            } else if status.isDirectory {
                let opened = try directory.openDirectory(entry.name)
                try clean(opened.fd)
                try directory.removeDirectory(entry.name)
            } else {
                try directory.unlink(entry.name)
            }
        }
    }
}
