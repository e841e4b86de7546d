import VarveStore
import VarveSystem
import Synchronization

/// How far an operation is, as one line on a terminal: drawn ten times a second at most, and not at all for what is
/// done in a moment. With `--log-format json` a message now and then.
final class ProgressLine: Sendable {
    private struct State {
        var layers = 0
        var layer = 0
        var isWaiting = false
        var planned: Int64?
        var bytes: Int64 = 0
        var changes: Int?
        var items: (done: Int, count: Int)?
        var nextDrawing: Double
        /// When bytes began to flow.
        var start: Double
    }

    private static let delay = 0.25
    private let interval: Double
    private let verb: String
    private let diagnostics: Diagnostics
    private let clock: @Sendable () -> Double
    private let state: Mutex<State>

    /// - Parameters:
    ///   - interval: seconds between two drawings.
    ///   - clock: seconds of any monotonic clock.
    init(
        _ verb: String, on diagnostics: Diagnostics, every interval: Double,
        clock: @escaping @Sendable () -> Double = { monotonicSeconds() }
    ) {
        self.verb = verb
        self.diagnostics = diagnostics
        self.clock = clock
        self.interval = interval
        let start = clock()
        state = Mutex(State(nextDrawing: start + max(Self.delay, interval), start: start))
    }

    var handler: ProgressHandler { { self.update($0) } }

    func update(_ progress: Progress) {
        let now = clock()
        let line: String? = state.withLock { state in
            switch progress {
            case .planned(let inPlace, let layers, let bytes):
                state.layer = inPlace
                state.layers = layers
                state.planned = bytes
                state.start = now
            case .layer(let index, let isWaiting):
                state.layer = index
                state.isWaiting = isWaiting
            case .read(let bytes), .written(let bytes):
                state.bytes = bytes
            case .changes(let count):
                state.changes = count
                state.start = now
            case .items(let done, let count):
                state.items = (done, count)
            }
            guard now >= state.nextDrawing else { return nil }
            state.nextDrawing = now + interval
            return text(state, seconds: now - state.start)
        }
        guard let line else { return }
        diagnostics.showProgress(line)
    }

    private func text(_ state: State, seconds: Double) -> String {
        var parts: [String] = []
        if state.layers > 0 { parts.append("\(state.layer) of \(state.layers) layers") }
        if let changes = state.changes { parts.append("\(changes) \(changes == 1 ? "change" : "changes")") }
        if let items = state.items { parts.append("\(items.done) of \(items.count)") }
        if state.isWaiting {
            parts.append("waiting for another process that unpacks the same layer")
            return "\(verb): " + parts.joined(separator: ", ")
        }
        if let planned = state.planned {
            parts.append("\(binarySize(state.bytes)) of \(binarySize(planned))")
        } else if state.bytes > 0 {
            parts.append(binarySize(state.bytes))
        }
        if state.bytes > 0, seconds > 0 {
            let rate = Double(state.bytes) / seconds
            parts.append("\(binarySize(Int64(rate)))/s")
            if let planned = state.planned, planned > state.bytes {
                parts.append("\(duration(Double(planned - state.bytes) / rate)) left")
            }
        }
        return "\(verb): " + parts.joined(separator: ", ")
    }

    private func duration(_ seconds: Double) -> String {
        let whole = Int(min(seconds.rounded(.up), 360_000))
        if whole < 60 { return "\(whole) s" }
        let (minutes, rest) = (whole / 60, whole % 60)
        return minutes < 60 ? "\(minutes) min \(rest) s" : "\(minutes / 60) h \(minutes % 60) min"
    }
}
