import ContainerdChecks
import TestSupport
import Testing
import VarveOCI
import VarveStore
import VarveSystem

@testable import VarveContainerd

/// What the daemon tells Prometheus.
@Suite struct MetricsTests {
    private func figures(_ metrics: Metrics, _ present: Metrics.Present = Metrics.Present()) -> [String:
        String]
    {
        var result: [String: String] = [:]
        for line in metrics.text(present).split(separator: "\n") where !line.hasPrefix("#") {
            let end = line.lastIndex(of: " ") ?? line.endIndex
            result[String(line[..<end])] = String(line[end...].dropFirst())
        }
        return result
    }

    @Test func calls() {
        let metrics = Metrics()
        let call = Metrics.Call(service: "s", method: "m")
        for seconds in [0.0005, 0.02, 0.02, 1000] { metrics.count(call, code: "OK", seconds: seconds) }
        metrics.count(call, code: "NotFound", seconds: 0.001)
        let found = figures(metrics)
        let labels = "service=\"s\",method=\"m\""
        #expect(found["varve_calls_total{\(labels),code=\"OK\"}"] == "4")
        #expect(found["varve_calls_total{\(labels),code=\"NotFound\"}"] == "1")
        let name = "varve_call_duration_seconds"
        for (end, count) in [("0.001", 2), ("0.01", 2), ("0.025", 4), ("300.0", 4), ("+Inf", 5)] {
            #expect(found["\(name)_bucket{\(labels),le=\"\(end)\"}"] == "\(count)", "\(end)")
        }
        #expect(found["\(name)_count{\(labels)}"] == "5")
        #expect(
            found["\(name)_sum{\(labels)}"].flatMap { Double($0) }.map { abs($0 - 1000.0415) < 1e-6 } == true)
    }

    @Test func format() {
        var present = Metrics.Present()
        present.work = [("short", 1, 2)]
        let lines = Metrics().text(present).split(separator: "\n", omittingEmptySubsequences: false)
        #expect(lines.last == "", "the last line ends too")
        var families: [Substring] = []
        for line in lines.dropLast() {
            if line.hasPrefix("# TYPE ") { families.append(line.split(separator: " ")[2]) }
            guard !line.hasPrefix("#") else { continue }
            let family = families.last ?? ""
            #expect(line.hasPrefix(family), "\(line) belongs to \(family)")
            #expect(line.split(separator: " ").last.flatMap { Double($0) } != nil, "\(line)")
        }
        #expect(families.count == Set(families).count && families.contains("varve_calls_running"))
    }

    /// What the calls of a snapshotter and a differ are counted as.
    @Test func layers() throws {
        let room = try DaemonRoom()
        let snapshotter = try room.snapshotter()
        let differ = Differ(snapshotter, logger: DaemonRoom.quiet)
        let layer = room.content.add(tarEntry("a", "0", "one") + endOfTar)
        func prepare(_ key: String, on parent: String = "", chain: ChainID? = nil) throws -> [SnapshotMount] {
            try snapshotter.make(
                .active, SnapshotKey(key), parent: SnapshotKey(parent),
                labels: chain.map { [Snapshotter.referenceLabel: "\($0)"] } ?? [:])
        }
        func apply(to mounts: [SnapshotMount]) throws {
            _ = try differ.apply(
                layer, to: mounts, synchronizes: false, from: room.content, memory: 1 << 20,
                Cancellation())
        }
        try apply(to: prepare("built"))
        try apply(to: prepare("found"))
        let own = try prepare("private")
        try room.run("echo x >x", in: own)
        try apply(to: own)
        #expect(code { _ = try prepare("skipped", chain: ChainID(layer.digest)) } == .alreadyExists)
        let blob = try differ.diff(
            from: [], to: own, mediaType: "", reference: "", labels: [:], latestTime: nil, into: room.content,
            threads: 1, Cancellation())
        let found = figures(snapshotter.metrics, snapshotter.present())
        for outcome in ["built", "found", "private", "skipped"] {
            #expect(found["varve_layers_total{outcome=\"\(outcome)\"}"] == "1", "\(outcome)")
        }
        #expect(found["varve_layers_total{outcome=\"adopted\"}"] == "0")
        #expect(found["varve_applied_bytes_total"] == "\(2 * layer.size)")
        #expect(found["varve_read_bytes_total"] == "\(2 * layer.size)")
        #expect(found["varve_written_bytes_total"] == "\(blob.size)")
        #expect(
            found["varve_diffs_total{source=\"search\"}"] == "1"
                || found["varve_diffs_total{source=\"walk\"}"] == "1")
        #expect(found["varve_snapshots{kind=\"active\"}"] == "3")
        #expect(found["varve_snapshots{kind=\"committed\"}"] == "1")
        #expect(found["varve_snapshots{kind=\"view\"}"] == "0")
    }
}
