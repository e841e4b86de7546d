import TestSupport
package import VarveContainerd
import VarveOCI
package import VarveStore
import VarveSystem
import SystemPackage

/// A random history as a containerd has it made: each snapshot of it is committed on the one before, taken apart into a layer, and that
/// layer is applied to the same parent again. What comes of it must be what was committed, as an independent walk sees both.
package final class DaemonHistory {
    /// What does not hold.
    package struct Failure: Error, CustomStringConvertible {
        package var description: String
    }

    private let snapshotter: Snapshotter
    private let store: SnapshotStore
    private let content = MemoryContent()
    private let differ: Differ
    private let seed: UInt64
    /// Of the committed snapshots, in the order in which they were: the key of each, and of the snapshot that its layers alone give.
    private var committed: [(key: String, layers: String?)] = []
    private var number = 0
    /// Which of the media types is next.
    private var kind: Int
    /// Layers that were applied and compared.
    package private(set) var layers = 0
    /// Those of them that became chains.
    package private(set) var chains = 0
    /// What no layer can hold.
    package private(set) var refused = 0

    package init(_ snapshotter: Snapshotter, _ store: SnapshotStore, seed: UInt64) {
        self.snapshotter = snapshotter
        self.store = store
        self.seed = seed
        kind = Int(seed % 3)
        differ = Differ(snapshotter, logger: DaemonRoom.quiet)
    }

    private func newKey(_ what: String) -> String {
        number += 1
        return "history/\(number)/\(what) of \(seed)"
    }

    private func root(_ key: String) throws -> SharedDescriptor {
        let tree = try snapshotter.record(SnapshotKey(key)).tree
        return SharedDescriptor(
            try FileDescriptor.workingDirectory.openDirectory(snapshotter.trees.rootfs(of: tree)))
    }

    /// - Throws: `Failure`, and whatever the daemon throws where it should not.
    package func run() throws {
        var base: Int?
        var active = try prepare(on: nil)
        var replay = HistoryReplay(root: try root(active))
        for operation in History(generating: seed).operations {
            switch operation.verb {
            case .snapshot, .freeze:
                let number = try commit(active, on: base)
                base = number
                active = try prepare(on: number)
                replay = HistoryReplay(root: try root(active))
            case .rebase:
                let other = operation.count(0)
                guard other < committed.count else { continue }
                try snapshotter.remove(SnapshotKey(active))
                base = other
                active = try prepare(on: other)
                replay = HistoryReplay(root: try root(active))
            // What is written to a committed snapshot behind the daemon's back is another test's matter.
            case .edit, .late: continue
            default:
                do { try replay.apply(operation) } catch Errno.noSpace { throw Errno.noSpace } catch {}
            }
        }
        try removeAll()
    }

    private func prepare(on base: Int?) throws -> String {
        let key = newKey("active")
        _ = try snapshotter.make(
            .active, SnapshotKey(key), parent: SnapshotKey(base.map { committed[$0].key } ?? ""), labels: [:])
        return key
    }

    private func commit(_ active: String, on base: Int?) throws -> Int {
        // What is asked of the active snapshot is what it is committed as.
        let before = try diff(base, snapshotter.mounts(SnapshotKey(active)))
        defer { kind += 1 }
        let key = newKey("committed")
        try snapshotter.commit(SnapshotKey(key), from: SnapshotKey(active), labels: [:])
        committed.append((key, nil))
        let new = committed.count - 1
        let layer = try withView(of: key) { view in try diff(base, view) }
        guard before?.digest == layer?.digest else {
            throw Failure(description: "seed \(seed), \(key): before it was committed it gave another layer")
        }
        try check(layer, on: base.map { committed[$0].key }, gives: key)
        // The same of layers alone, which must give chains.
        if let layer, base == nil || committed[base ?? 0].layers != nil {
            committed[new].layers = try chain(layer, on: base, gives: key)
        }
        // Two that need not descend from each other.
        if new > 1, new % 2 == 0 {
            let other = Int(seed % UInt64(new))
            try check(
                try withView(of: key) { view in try diff(other, view) }, on: committed[other].key, gives: key)
        }
        return new
    }

    private func withView<R>(of key: String, _ body: ([SnapshotMount]) throws -> R) throws -> R {
        let view = newKey("view")
        let mounts = try snapshotter.make(.view, SnapshotKey(view), parent: SnapshotKey(key), labels: [:])
        let result = try body(mounts)
        try snapshotter.remove(SnapshotKey(view))
        return result
    }

    /// Nil for what no layer can hold.
    private func diff(_ old: Int?, _ right: [SnapshotMount]) throws -> Descriptor? {
        func make(_ left: [SnapshotMount]) throws -> Descriptor? {
            let kinds = ["tar", "tar+gzip", "tar+zstd"]
            do {
                return try differ.diff(
                    from: left, to: right,
                    mediaType: "application/vnd.oci.image.layer.v1."
                        + kinds[kind % 3],
                    reference: "", labels: [:], latestTime: nil, into: content, threads: 1, Cancellation())
            } catch let error as ServiceError where error.message.contains("cannot go into a layer") {
                refused += 1
                return nil
            }
        }
        guard let old else { return try make([]) }
        return try withView(of: committed[old].key, make)
    }

    private func apply(_ layer: Descriptor, to key: String) throws {
        _ = try differ.apply(
            layer, to: snapshotter.mounts(SnapshotKey(key)), hasPayloads: false, synchronizes: false,
            from: content, memory: 8 << 20, Cancellation())
    }

    /// Applies a layer to a snapshot, and compares.
    private func check(_ layer: Descriptor?, on parent: String?, gives key: String) throws {
        guard let layer else { return }
        let copy = newKey("copy")
        _ = try snapshotter.make(.active, SnapshotKey(copy), parent: SnapshotKey(parent ?? ""), labels: [:])
        try apply(layer, to: copy)
        try compare(copy, key)
        try snapshotter.remove(SnapshotKey(copy))
        layers += 1
    }

    /// Applies a layer to what the layers before it gave.
    ///
    /// - Returns: the key of the committed snapshot, which is a chain.
    private func chain(_ layer: Descriptor, on base: Int?, gives key: String) throws -> String {
        let extracted = newKey("extracted")
        let parent = base.flatMap { committed[$0].layers } ?? ""
        _ = try snapshotter.make(.active, SnapshotKey(extracted), parent: SnapshotKey(parent), labels: [:])
        try apply(layer, to: extracted)
        let name = newKey("layers")
        try snapshotter.commit(SnapshotKey(name), from: SnapshotKey(extracted), labels: [:])
        guard let chain = try snapshotter.record(SnapshotKey(name)).chain, try snapshotter.trees.holds(chain)
        else { throw Failure(description: "seed \(seed), \(key): its layers did not become a chain") }
        try compare(name, key)
        chains += 1
        return name
    }

    private func compare(_ found: String, _ expected: String) throws {
        let (found, wanted) = (try root(found), try root(expected))
        let differences = try TreeCompare.differences(wanted.fd, found.fd)
        extendLifetime((found, wanted))
        guard differences.isEmpty else {
            throw Failure(
                description: "seed \(seed), \(expected): \(differences.prefix(10).joined(separator: "\n"))")
        }
    }

    /// In the end nothing is left, once the chains are collected that only these snapshots needed.
    private func removeAll() throws {
        var left = snapshotter.list([])
        while !left.isEmpty {
            let parents = Set(left.map(\.parent))
            for record in left where !parents.contains(record.key) { try snapshotter.remove(record.key) }
            left = snapshotter.list([])
        }
        snapshotter.cleanUp()
        _ = try GarbageCollection(store, options: .init()).run()
        let trees = try snapshotter.trees.all()
        guard trees.numbers == [DaemonTrees.emptyTree], trees.others.isEmpty, try store.chains.all().isEmpty
        else { throw Failure(description: "seed \(seed): left are the trees \(trees)") }
    }
}
