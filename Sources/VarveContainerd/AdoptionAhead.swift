import Logging
import Synchronization
import VarveStore
import VarveSystem

/// Makes chains of the trees that layers were written of while the client is still at work on the rest of its image: it has the layers unpacked next.
/// Whatever fails here is done when the layer is applied.
final class AdoptionAhead: Sendable {
    private enum State { case idle, running, wanted }

    private let trees: DaemonTrees
    private let logger: Logger
    private let state = Mutex(State.idle)

    init(_ trees: DaemonTrees, logger: Logger) {
        self.trees = trees
        self.logger = logger
    }

    /// A layer was written. Returns at once.
    func wake() {
        let starts = state.withLock { state in
            defer { state = state == .idle ? .running : .wanted }
            return state == .idle
        }
        guard starts else { return }
        do {
            try WorkerThread.detached(name: "varve-adopt") { [self] in run() }
        } catch {
            state.withLock { $0 = .idle }
        }
    }

    private func run() {
        repeat {
            do {
                while try trees.adoptNext() {}
            } catch {
                logger.debug(
                    "a layer that was written will be read, or looked at again, where it is applied: \(error)"
                )
            }
        } while state.withLock { state in
            defer { state = state == .wanted ? .running : .idle }
            return state == .wanted
        }
    }
}
