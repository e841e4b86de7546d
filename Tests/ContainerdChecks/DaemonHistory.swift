import TestSupport
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

    private let calls: any HistoryCalls
    private let store: SnapshotStore
    private let seed: UInt64
    /// Of the committed snapshots, in the order in which they were: the key of each, and of the snapshot that its layers alone give.
    private var committed: [(key: String, layers: String?)] = []
    /// All committed snapshots, those of layers too.
    private var all: [String] = []
    private var number = 0
    /// Which of the media types is next.
    private var kind: Int
    /// Layers that were applied and compared.
    package private(set) var layers = 0
    /// Those of them that became chains.
    package private(set) var chains = 0
    /// What no layer can hold.
    package private(set) var refused = 0

    package init(_ calls: any HistoryCalls, _ store: SnapshotStore, seed: UInt64) {
        self.calls = calls
        self.store = store
        self.seed = seed
        kind = Int(seed % 3)
    }

    private func newKey(_ what: String) -> String {
        number += 1
        return "history/\(seed)/\(number) \(what)"
    }

    private func root(_ key: String) throws -> SharedDescriptor {
        SharedDescriptor(
            try FileDescriptor.workingDirectory.openDirectory(calls.rootfs(of: calls.record(key))))
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
                try calls.remove(active)
                base = other
                active = try prepare(on: other)
                replay = HistoryReplay(root: try root(active))
            // What is written to a committed snapshot behind the daemon's back is another test's matter.
            case .edit, .late: continue
            default:
                do { try replay.apply(operation) } catch Errno.noSpace { throw Errno.noSpace } catch {}
            }
        }
        try calls.remove(active)
        try removeAll()
    }

    private func prepare(on base: Int?) throws -> String {
        let key = newKey("active")
        try calls.prepare(key, parent: base.map { committed[$0].key } ?? "")
        return key
    }

    private func commit(_ active: String, on base: Int?) throws -> Int {
        // What is asked of the active snapshot is what it is committed as.
        let before = try diff(base, active)
        defer { kind += 1 }
        let key = newKey("committed")
        try calls.commit(key, from: active)
        all.append(key)
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

    private func withView<R>(of key: String, _ body: (String) throws -> R) throws -> R {
        let view = newKey("view")
        try calls.view(view, parent: key)
        let result = try body(view)
        try calls.remove(view)
        return result
    }

    /// Nil for what no layer can hold.
    private func diff(_ old: Int?, _ right: String) throws -> Descriptor? {
        func make(_ left: String?) throws -> Descriptor? {
            let kinds = ["tar", "tar+gzip", "tar+zstd"]
            let layer = try calls.diff(
                left, right, mediaType: "application/vnd.oci.image.layer.v1." + kinds[kind % 3])
            if layer == nil { refused += 1 }
            return layer
        }
        guard let old else { return try make(nil) }
        return try withView(of: committed[old].key, make)
    }

    /// Applies a layer to a snapshot, and compares.
    private func check(_ layer: Descriptor?, on parent: String?, gives key: String) throws {
        guard let layer else { return }
        let copy = newKey("copy")
        try calls.prepare(copy, parent: parent ?? "")
        try calls.apply(layer, to: copy)
        try compare(copy, key)
        try calls.remove(copy)
        layers += 1
    }

    /// Applies a layer to what the layers before it gave.
    ///
    /// - Returns: the key of the committed snapshot, which is a chain.
    private func chain(_ layer: Descriptor, on base: Int?, gives key: String) throws -> String {
        let extracted = newKey("extracted")
        let parent = base.flatMap { committed[$0].layers } ?? ""
        try calls.prepare(extracted, parent: parent)
        try calls.apply(layer, to: extracted)
        let name = newKey("layers")
        try calls.commit(name, from: extracted)
        all.append(name)
        guard let chain = try calls.record(name).chain, try store.chains.find(ChainName(chain)) != nil
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
        // What was made later may have what was made earlier as its parent.
        for key in all.reversed() { try calls.remove(key) }
        let trees = try calls.treesLeft()
        _ = try GarbageCollection(store, options: .init()).run()
        guard trees == ["\(DaemonTrees.emptyTree)"], try store.chains.all().isEmpty else {
            throw Failure(description: "seed \(seed): left are the trees \(trees)")
        }
    }
}
