import Glibc
import Logging
import Synchronization
import VarveStore
import VarveSystem

/// Deletes trees behind the calls that gave them up. Deleting takes the kernel half a second for a large one, and containerd waits
/// for Remove under its lock.
final class DeletionQueue: Sendable {
    enum Item: Sendable, Hashable {
        case tree(UInt64)
        /// No tree: the record alone is to be gone from the disk.
        case record
        /// Something beside the numbered trees.
        case leftover(BytePath)
    }

    private struct State {
        var items: [Item] = []
        /// Taken out of `items`, and not deleted yet.
        var underWay = 0
        var isRunning = false
        /// What could not be deleted; Cleanup tries it again.
        var failed: [Item] = []
    }

    private let trees: DaemonTrees
    private let records: RecordDirectory
    private let logger: Logger
    private let state = Mutex(State())

    init(_ trees: DaemonTrees, _ records: RecordDirectory, logger: Logger) {
        self.trees = trees
        self.records = records
        self.logger = logger
    }

    /// Returns at once.
    func add(_ items: [Item]) {
        guard !items.isEmpty else { return }
        let starts = state.withLock { state in
            state.items += items
            guard !state.isRunning else { return false }
            state.isRunning = true
            return true
        }
        guard starts else { return }
        do {
            try WorkerThread.detached(name: "varve-delete") { [self] in run() }
        } catch {
            // No thread can be had: it is done by the next call that has something to delete, or here if that is Cleanup.
            state.withLock { $0.isRunning = false }
        }
    }

    private func run() {
        while let batch = take() { delete(batch) }
    }

    private func take() -> [Item]? {
        state.withLock { state in
            guard !state.items.isEmpty else {
                state.isRunning = false
                return nil
            }
            defer { state.items = [] }
            state.underWay = state.items.count
            return state.items
        }
    }

    /// How many are still to be deleted.
    var count: Int { state.withLock { $0.items.count + $0.underWay + $0.failed.count } }

    private func delete(_ items: [Item]) {
        do {
            // A record that a crash brings back must find its tree.
            try records.synchronize()
        } catch {
            logger.warning(
                "cannot write out the removal of records, and so keep their trees for now: \(error)")
            state.withLock { state in
                state.underWay = 0
                state.failed += items
            }
            return
        }
        for item in items {
            defer { state.withLock { $0.underWay -= 1 } }
            do {
                switch item {
                case .tree(let number): try trees.delete(number)
                case .record: break
                case .leftover(let name): try trees.delete(name)
                }
            } catch {
                logger.warning("cannot delete a tree that is not needed any more: \(error)")
                state.withLock { $0.failed.append(item) }
            }
        }
    }

    /// Deletes all that was given up before, what could not be deleted then included, and returns when that is done.
    func drain() {
        let isOurs = state.withLock { state in
            state.items += state.failed
            state.failed = []
            guard !state.isRunning else { return false }
            state.isRunning = true
            return true
        }
        if isOurs { return run() }
        while state.withLock({ $0.isRunning }) { usleep(2_000) }
    }
}
