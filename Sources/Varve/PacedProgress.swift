import VarveStore
import Synchronization

/// Lets a moment pass at most 20 times a second, whichever thread asks.
private final class Pace: Sendable {
    private static let interval = Duration.milliseconds(50)
    private let last = Mutex<ContinuousClock.Instant?>(nil)

    /// Whether it is time again.
    func isDue() -> Bool {
        let now = ContinuousClock.now
        return last.withLock { last in
            if let last, now - last < Self.interval { return false }
            last = now
            return true
        }
    }
}

/// Calls a handler at most 20 times a second. What is told once an operation, how much there is to do, always arrives.
func paced(_ handler: @escaping ProgressHandler) -> ProgressHandler {
    let pace = Pace()
    return { progress in
        switch progress {
        case .planned, .changes: handler(progress)
        case .layer, .read, .written, .items: if pace.isDue() { handler(progress) }
        }
    }
}

/// Counts entries for a progress handler that need not hear of each.
final class EntryCounter: Sendable {
    private let value = Atomic<Int>(0)
    private let pace = Pace()
    private let progress: @Sendable (Int) -> Void

    init(_ progress: @escaping @Sendable (Int) -> Void) { self.progress = progress }

    func count() {
        let count = value.add(1, ordering: .relaxed).newValue
        // The clock is not asked for each.
        if count % 64 == 0, pace.isDue() { progress(count) }
    }
}
