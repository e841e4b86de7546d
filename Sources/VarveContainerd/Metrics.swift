import Synchronization
import VarveLayers
package import VarveStore
import VarveSystem

/// What the daemon has counted since it was started, and how Prometheus is told of it.
///
/// Each thing is counted where it happens: calls by the server, layers by the differ and the snapshotter. What there is at the
/// moment, such as snapshots, is not counted but asked for by `text`.
package final class Metrics: Sendable {
    /// One method of one service, such as `Prepare` of `containerd.services.snapshots.v1.Snapshots`.
    package struct Call: Sendable, Hashable, Comparable {
        package var service: String
        package var method: String

        package init(service: String, method: String) {
            self.service = service
            self.method = method
        }

        package static func < (a: Call, b: Call) -> Bool {
            (a.service, a.method) < (b.service, b.method)
        }
    }

    /// Upper ends of the steps in which durations are counted, in seconds.
    private static let durationSteps: [Double] = [
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300,
    ]

    private struct Durations {
        /// How many were in each step, those above the last one behind it.
        var steps = [Int](repeating: 0, count: Metrics.durationSteps.count + 1)
        var sum = 0.0

        mutating func add(_ seconds: Double) {
            steps[Metrics.durationSteps.firstIndex { seconds <= $0 } ?? Metrics.durationSteps.count] += 1
            sum += seconds
        }
    }

    private struct State {
        /// By the code that was answered, in gRPC's names.
        var calls: [Call: [String: Int]] = [:]
        var durations: [Call: Durations] = [:]
        var layers: [DaemonTrees.AppliedLayer.Source: Int] = [:]
        /// Layers that Prepare found: containerd neither fetched nor gave them.
        var skipped = 0
        var appliedBytes: Int64 = 0
        var readBytes: Int64 = 0
        var diffs: [DeltaSource: Int] = [:]
        var writtenBytes: Int64 = 0
    }

    private let state = Mutex(State())

    package init() {}

    // MARK: Counting

    /// - Parameters:
    ///   - code: as gRPC calls it, `OK` or `NotFound`.
    ///   - seconds: from the request to the end of the answer.
    package func count(_ call: Call, code: String, seconds: Double) {
        state.withLock { state in
            state.calls[call, default: [:]][code, default: 0] += 1
            state.durations[call, default: Durations()].add(seconds)
        }
    }

    func countSkipped() { state.withLock { $0.skipped += 1 } }

    /// - Parameter blobSize: bytes of the layer as it is stored.
    func count(_ layer: DaemonTrees.AppliedLayer, blobSize: Int64) {
        state.withLock { state in
            state.layers[layer.source, default: 0] += 1
            guard layer.source == .built || layer.source == .private else { return }
            state.appliedBytes &+= layer.size
            state.readBytes &+= blobSize
        }
    }

    func count(_ layer: DaemonTrees.PackedLayer, blobSize: Int64) {
        state.withLock { state in
            state.diffs[layer.source, default: 0] += 1
            state.writtenBytes &+= blobSize
        }
    }

    // MARK: Telling

    /// What there is at the moment.
    package struct Present: Sendable {
        /// Calls of one kind: those that run, and those that wait in line.
        package var work: [(kind: String, running: Int, waiting: Int)] = []
        package var snapshots: [SnapshotRecord.Kind: Int] = [:]
        /// Trees of removed snapshots that are still to be deleted.
        package var treesToDelete = 0

        package init() {}
    }

    /// All figures in the text format of Prometheus, version 0.0.4
    /// (https://prometheus.io/docs/instrumenting/exposition_formats/).
    package func text(_ present: Present) -> String {
        let state = state.withLock { $0 }
        var text = MetricsText()
        text.family("varve_calls_total", .counter, "Calls that were answered, by gRPC's code.") { family in
            for (call, codes) in state.calls.sorted(by: { $0.key < $1.key }) {
                for (code, count) in codes.sorted(by: { $0.key < $1.key }) {
                    family.add(call.labels + [("code", code)], count)
                }
            }
        }
        text.family(
            "varve_call_duration_seconds", .histogram, "From a request to the end of its answer."
        ) { family in
            for (call, durations) in state.durations.sorted(by: { $0.key < $1.key }) {
                var count = 0
                for (index, step) in durations.steps.enumerated() {
                    count += step
                    let end = index < Self.durationSteps.count ? "\(Self.durationSteps[index])" : "+Inf"
                    family.add(call.labels + [("le", end)], count, suffix: "_bucket")
                }
                family.add(call.labels, durations.sum, suffix: "_sum")
                family.add(call.labels, count, suffix: "_count")
            }
        }
        text.family("varve_calls_running", .gauge, "Calls that are at work.") { family in
            for work in present.work { family.add([("kind", work.kind)], work.running) }
        }
        text.family("varve_calls_waiting", .gauge, "Calls that wait in line for others of their kind.") {
            family in
            for work in present.work { family.add([("kind", work.kind)], work.waiting) }
        }
        text.family(
            "varve_layers_total", .counter,
            "Layers: built into a chain, put onto a private tree, found in the store or adopted from a tree when they were to be applied, or skipped before they were fetched."
        ) { family in
            for source in DaemonTrees.AppliedLayer.Source.allCases {
                family.add([("outcome", source.rawValue)], state.layers[source] ?? 0)
            }
            family.add([("outcome", "skipped")], state.skipped)
        }
        text.family("varve_applied_bytes_total", .counter, "Bytes of the archives that were applied.") {
            $0.add([], state.appliedBytes)
        }
        text.family("varve_read_bytes_total", .counter, "Bytes of the blobs that were read for that.") {
            $0.add([], state.readBytes)
        }
        text.family(
            "varve_diffs_total", .counter, "Layers that were written, by how their changes were found."
        ) { family in
            for (source, count) in state.diffs.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
                family.add([("source", source.rawValue)], count)
            }
        }
        text.family("varve_written_bytes_total", .counter, "Bytes of the blobs of those layers.") {
            $0.add([], state.writtenBytes)
        }
        text.family("varve_snapshots", .gauge, "Snapshots that there are.") { family in
            for kind in SnapshotRecord.Kind.allCases {
                family.add([("kind", kind.rawValue)], present.snapshots[kind] ?? 0)
            }
        }
        text.family("varve_trees_to_delete", .gauge, "Trees of removed snapshots that wait to be deleted.") {
            $0.add([], present.treesToDelete)
        }
        text.family("process_resident_memory_bytes", .gauge, "Memory that the daemon has.") {
            if let bytes = ProgramMemory.resident { $0.add([], bytes) }
        }
        return text.output
    }
}

extension Metrics.Call {
    fileprivate var labels: [(String, String)] { [("service", service), ("method", method)] }
}

/// Families of figures as Prometheus reads them.
private struct MetricsText {
    enum Kind: String { case counter, gauge, histogram }

    private(set) var output = ""

    mutating func family(_ name: String, _ kind: Kind, _ help: String, _ body: (inout Family) -> Void) {
        var family = Family(name: name)
        body(&family)
        output += "# HELP \(name) \(help)\n# TYPE \(name) \(kind.rawValue)\n\(family.lines)"
    }

    struct Family {
        let name: String
        fileprivate var lines = ""

        fileprivate init(name: String) { self.name = name }

        /// - Parameter labels: their values hold nothing that had to be escaped: they are names of this program's own.
        mutating func add(
            _ labels: [(String, String)], _ value: some CustomStringConvertible, suffix: String = ""
        ) {
            let shown = labels.map { "\($0)=\"\($1)\"" }.joined(separator: ",")
            lines += name + suffix + (shown.isEmpty ? "" : "{\(shown)}") + " \(value)\n"
        }
    }
}
