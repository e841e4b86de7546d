import Glibc
import Logging
import Synchronization
import SystemPackage
import VarveStore
import VarveSystem

/// Records of active snapshots that were committed, which stay on the disk for a while beside those of the committed ones.
///
/// containerd writes down a commit once it was answered. If this process is killed before that, containerd knows the active snapshot and
/// not the committed one, and has removed what it does not know: had the commit taken the active one's place at once, nothing would
/// be left. A start that finds both records serves both snapshots, and containerd removes the one that it does not know.
final class SupersededRecords: Sendable {
    /// How long containerd may take to write down what it was answered.
    private static let grace: Duration = .seconds(10)
    /// How often the thread looks.
    private static let interval: UInt32 = 100_000

    private struct Entry {
        var due: ContinuousClock.Instant
        /// Of the active snapshot.
        var tree: UInt64
        /// Whether the committed snapshot has another tree, so that this one goes with the record.
        var deletesTree: Bool
    }

    private struct State {
        var entries: [SnapshotKey: Entry] = [:]
        /// Being removed just now.
        var going: Set<SnapshotKey> = []
        var isRunning = false
    }

    private let records: RecordDirectory
    private let deletions: DeletionQueue
    private let logger: Logger
    private let state = Mutex(State())

    init(_ records: RecordDirectory, _ deletions: DeletionQueue, logger: Logger) {
        self.records = records
        self.deletions = deletions
        self.logger = logger
    }

    /// Removes the record of an active snapshot later. Returns at once.
    func add(_ active: SnapshotRecord, deletesTree: Bool) {
        let entry = Entry(due: .now + Self.grace, tree: active.tree, deletesTree: deletesTree)
        let starts = state.withLock { state in
            state.entries[active.key] = entry
            defer { state.isRunning = true }
            return !state.isRunning
        }
        guard starts else { return }
        do {
            // It keeps nothing alive while it waits.
            try WorkerThread.detached(name: "varve-commits") { [weak self] in
                while self?.removeDue() == true { usleep(Self.interval) }
            }
        } catch {
            // No thread can be had: the next commit starts one, or Cleanup removes them.
            state.withLock { $0.isRunning = false }
        }
    }

    /// Removes those whose time has come. False if none is left, so that the thread ends.
    private func removeDue() -> Bool {
        let due = state.withLock { state -> [SnapshotKey]? in
            guard !state.entries.isEmpty else {
                state.isRunning = false
                return nil
            }
            let now = ContinuousClock.now
            return state.entries.filter { $0.value.due <= now }.map(\.key)
        }
        guard let due else { return false }
        for key in due { remove(key) }
        return true
    }

    /// The record of this key is gone when this returns, unless it is that of another snapshot.
    func remove(_ key: SnapshotKey) {
        let entry = state.withLock { state -> Entry? in
            guard let entry = state.entries.removeValue(forKey: key) else { return nil }
            state.going.insert(key)
            return entry
        }
        guard let entry else {
            // Else what removes it would remove the next record of that name.
            while state.withLock({ $0.going.contains(key) }) { usleep(1_000) }
            return
        }
        defer { _ = state.withLock { $0.going.remove(key) } }
        do throws(Errno) {
            try records.remove(key)
        } catch {
            logger.warning("cannot remove the record of a snapshot that is committed: \(error)")
            return
        }
        if entry.deletesTree { deletions.add([.tree(entry.tree)]) }
    }

    /// That of the active snapshot which had this tree.
    func remove(ofTree tree: UInt64) {
        let keys = state.withLock { state in state.entries.filter { $0.value.tree == tree }.map(\.key) }
        for key in keys { remove(key) }
    }

    func removeAll() {
        for key in state.withLock({ Array($0.entries.keys) + $0.going }) { remove(key) }
    }
}
