package import Logging
import Synchronization
import VarveFormats
import VarveOCI
package import VarveStore
import VarveSystem
import SystemPackage

/// containerd's snapshots, each a tree of a store. This is what the calls of `snapshots.v1` do; all of them may wait for the disk,
/// and are called on threads that may.
///
/// What is there is kept in memory and on disk (`RecordDirectory`). Two calls never work on one key at a time: the name that a call
/// makes is taken from its beginning, and what it needs cannot be removed until its end. No lock is held while anything waits
/// for the disk.
package final class Snapshotter: Sendable {
    /// The label by which containerd asks for a snapshot that it need not unpack: the ChainID of the layers.
    package static let referenceLabel = "containerd.io/snapshot.ref"
    /// Bytes of a key.
    package static let keyLimit = 4096
    /// Bytes of a label, key and value together: containerd's own limit.
    package static let labelLimit = 4096
    package static let labelCountLimit = 1000

    package let trees: DaemonTrees
    package let metrics = Metrics()
    private let records: RecordDirectory
    private let deletions: DeletionQueue
    private let superseded: SupersededRecords
    private let logger: Logger
    private let state: Mutex<State>

    /// What a call does to a snapshot that no other call may touch meanwhile.
    private enum Work: String { case applying, committing, removing, updating }

    private struct State {
        var records: [SnapshotKey: SnapshotRecord] = [:]
        var keyOfTree: [UInt64: SnapshotKey] = [:]
        /// How many snapshots have it as their parent, those in the making included.
        var children: [SnapshotKey: Int] = [:]
        /// Names that a call is making.
        var reserved: Set<SnapshotKey> = []
        /// Active snapshots that a layer is applied to, or that are being committed.
        var busy: [SnapshotKey: Work] = [:]
        var nextTree: UInt64 = DaemonTrees.emptyTree + 1

        mutating func insert(_ record: SnapshotRecord) {
            records[record.key] = record
            if !record.sharesTree { keyOfTree[record.tree] = record.key }
        }

        mutating func remove(_ record: SnapshotRecord) {
            records[record.key] = nil
            if keyOfTree[record.tree] == record.key { keyOfTree[record.tree] = nil }
        }

        mutating func newTree() -> UInt64 {
            defer { nextTree += 1 }
            return nextTree
        }

        mutating func adopt(childOf parent: SnapshotKey) {
            if !parent.isEmpty { children[parent, default: 0] += 1 }
        }

        mutating func abandon(childOf parent: SnapshotKey) {
            guard let count = children[parent] else { return }
            children[parent] = count > 1 ? count - 1 : nil
        }
    }

    /// Reads the records. A record that cannot be read is left alone, with a warning, and so are then all trees that no record
    /// names: one of them is that of the record.
    package init(_ trees: DaemonTrees, logger: Logger) throws {
        self.trees = trees
        self.logger = logger
        records = RecordDirectory(trees.records)
        deletions = DeletionQueue(trees, records, logger: logger)
        superseded = SupersededRecords(records, deletions, logger: logger)
        let read: (records: [SnapshotRecord], faults: [RecordDirectory.Fault])
        do throws(Errno) {
            read = try records.read(isOwner: true) { try trees.isThere($0) }
        } catch {
            throw VarveError.system("read the records in", trees.path, error)
        }
        for fault in read.faults {
            logger.warning(
                "the record \(fault.name) is not used, and what it names is kept: \(fault.reason)",
                metadata: ["trees": "\(trees.path)"])
        }
        var state = State()
        let (counting, sharing) = SnapshotRecord.split(read.records)
        for record in counting { state.insert(record) }
        for record in state.records.values { state.adopt(childOf: record.parent) }
        let found = try trees.all()
        state.nextTree = max(found.numbers.max() ?? 0, state.records.values.map(\.tree).max() ?? 0) + 1
        self.state = Mutex(state)
        for record in sharing { keepBoth(record) }
        let all = self.state.withLock { Array($0.records.values) }
        let used = Set(all.map(\.tree))
        var leftovers: [DeletionQueue.Item] = found.others.map { .leftover($0) }
        if read.faults.isEmpty {
            leftovers += found.numbers.filter { $0 != DaemonTrees.emptyTree && !used.contains($0) }.map {
                .tree($0)
            }
        }
        for record in all where record.kind == .active {
            // A commit, or the application of a layer, was cut short.
            trees.thaw(record.tree)
        }
        settleChains()
        deletions.add(leftovers)
    }

    deinit { superseded.removeAll() }

    /// Before the end of the process: what a start would have to find out is written down.
    package func end() { superseded.removeAll() }

    /// A commit that the daemon before made, and of which containerd may not have heard (`SupersededRecords`). Both snapshots have the
    /// same tree. The committed one keeps it, as its views have it too; the active one gets another.
    private func keepBoth(_ superseded: SnapshotRecord) {
        let (found, number) = state.withLock { state in
            (state.keyOfTree[superseded.tree].flatMap { state.records[$0] }, state.newTree())
        }
        do {
            guard var committed = found else { return try records.remove(superseded.key) }
            var active = superseded
            active.chain = nil
            if let chain = committed.chain, try trees.makeTree(number, from: chain, readOnly: false) {
                active.chain = chain
            } else {
                try trees.makeTree(number, from: committed.tree, readOnly: false)
            }
            active.tree = number
            // While the other record has the old tree still, the next start begins anew.
            committed.committedFrom = number
            try write(committed)
            try write(active)
            state.withLock { [committed, active] state in
                state.insert(committed)
                state.insert(active)
                state.adopt(childOf: active.parent)
            }
        } catch {
            // Its record stays: containerd may know this snapshot alone, and the next start tries again.
            logger.warning("cannot serve the snapshot that another was committed from: \(error)")
            // It may name the new tree already.
            if (try? write(superseded)) != nil { deletions.add([.tree(number)]) }
        }
    }

    /// An Apply that was cut short may have exchanged a tree before it wrote the record: the record says which chain the tree is a
    /// snapshot of then.
    private func settleChains() {
        for record in state.withLock({ Array($0.records.values) })
        where record.kind == .active && (record.chain != nil || record.parent.isEmpty) {
            var changed = record
            do {
                if let chain = record.chain, try trees.isSnapshot(record.tree, of: chain) { continue }
                changed.chain = try trees.chain(of: record.tree)
            } catch {
                // Its record stays, for the next start to look again.
                logger.warning("cannot tell which chain a snapshot is of, and so take it for none: \(error)")
                changed.chain = nil
                state.withLock { [changed] in $0.insert(changed) }
                continue
            }
            guard changed != record else { continue }
            do { try write(changed) } catch {
                logger.warning(
                    "cannot say on disk which chain a snapshot is of; the next start does: \(error)")
            }
            state.withLock { $0.insert(changed) }
        }
    }

    // MARK: Making

    /// Prepare and View: the mounts of a new snapshot of `parent`, empty for none.
    ///
    /// An active snapshot whose label asks for a chain that the store holds is made at once, committed, and answered by
    /// `alreadyExists`: containerd then looks for it by that label and unpacks nothing.
    package func make(
        _ kind: SnapshotRecord.Kind, _ key: SnapshotKey, parent: SnapshotKey, labels: [String: String]
    ) throws -> [SnapshotMount] {
        let labels = try Self.checked(labels)
        try Self.check(key)
        let wanted =
            kind == .active ? labels[Self.referenceLabel].flatMap { Digest($0) }.map { ChainID($0) } : nil
        let (number, source) = try state.withLock { state throws -> (UInt64, SnapshotRecord?) in
            var source: SnapshotRecord?
            if !parent.isEmpty {
                guard let found = state.records[parent] else {
                    throw ServiceError(.notFound, "there is no parent snapshot \(parent.text.shown)")
                }
                guard found.kind == .committed else {
                    throw ServiceError(
                        .invalidArgument, "the parent \(parent.text.shown) is not a committed snapshot")
                }
                // It may be gone, or be another one, before this snapshot is there.
                guard state.busy[parent] != .removing, !state.reserved.contains(parent) else {
                    throw ServiceError(
                        .failedPrecondition,
                        "the parent \(parent.text.shown) is just being removed or committed; wait for the end of that"
                    )
                }
                source = found
            }
            guard state.records[key] == nil, !state.reserved.contains(key) else {
                throw ServiceError(.alreadyExists, "there is a snapshot \(key.text.shown)")
            }
            state.reserved.insert(key)
            state.adopt(childOf: parent)
            return (state.newTree(), source)
        }
        // Once the key is taken: a commit that gives it up has entered its record there before.
        superseded.remove(key)
        var record = SnapshotRecord(
            key: key, kind: kind, parent: parent, labels: labels, time: .now(), tree: number)
        do {
            // Of what the store has it is known what it lies on.
            let wanted = try wanted.flatMap { chain in
                try (source == nil || source?.chain != nil) && trees.canLie(chain, on: source?.chain)
                    ? chain : nil
            }
            if let wanted, try isThere(wanted, on: parent) {
                state.withLock { state in
                    state.reserved.remove(key)
                    state.abandon(childOf: parent)
                }
                throw Skipped(chain: wanted)
            }
            if let wanted, try makeTree(number, of: wanted, on: source?.chain) {
                record.kind = .committed
                record.chain = wanted
                try write(record)
            } else if let source, kind == .view, key.namespace == source.key.namespace {
                // Nobody writes to either.
                try trees.check(source.tree)
                record.tree = source.tree
                record.chain = source.chain
                record.sharesTree = true
                try write(record)
            } else {
                try makeTree(of: &record, from: source)
            }
        } catch let skipped as Skipped {
            metrics.countSkipped()
            throw Self.exists(skipped.chain)
        } catch {
            state.withLock { state in
                state.reserved.remove(key)
                state.abandon(childOf: parent)
            }
            // A record may be there that is not on disk. While one is, its tree is not deleted; the next start deletes a tree without one.
            if (try? records.remove(key)) != nil { deletions.add([.tree(number)]) }
            throw ServiceError(error)
        }
        state.withLock { state in
            state.reserved.remove(key)
            state.insert(record)
        }
        if kind == .active, record.kind == .committed, let wanted {
            metrics.countSkipped()
            throw Self.exists(wanted)
        }
        return [.bind(trees.rootfs(of: record.tree), readOnly: kind == .view)]
    }

    /// Makes the tree of a snapshot that is a snapshot of its parent's tree, nil for the empty one. Both that and the record are on disk when
    /// this returns.
    private func makeTree(of record: inout SnapshotRecord, from source: SnapshotRecord?) throws {
        if let chain = source?.chain {
            record.chain = chain
            struct IsGone: Error {}
            do {
                return try making(record) {
                    guard try trees.makeTree(record.tree, from: chain, readOnly: record.kind == .view) else {
                        throw IsGone()
                    }
                }
            } catch is IsGone {
                // The store does not hold it any more.
                record.chain = nil
            }
        }
        let tree = source?.tree ?? DaemonTrees.emptyTree
        try making(record) {
            try trees.makeTree(record.tree, from: tree, readOnly: record.kind == .view)
        }
    }

    /// Enters the record of a snapshot whose tree `make` makes. Both are on disk when this returns; an error leaves no record.
    private func making(_ record: SnapshotRecord, _ make: () throws -> Void) throws {
        do {
            try attemptWriting(record) { () throws(Errno) in try records.begin(record) }
            try make()
            try attemptWriting(record) { () throws(Errno) in try records.confirm(record.key) }
        } catch {
            try? records.abandon(record.key)
            throw error
        }
    }

    /// Makes a read-only tree of a chain that the store has, or can have at once.
    private func makeTree(_ number: UInt64, of chain: ChainID, on base: ChainID?) throws -> Bool {
        if try trees.makeTree(number, from: chain, readOnly: true) { return true }
        return try trees.adopt(chain, on: base) && trees.makeTree(number, from: chain, readOnly: true)
    }

    /// The snapshot that was asked for is there.
    private struct Skipped: Error { var chain: ChainID }

    private static func exists(_ chain: ChainID) -> ServiceError {
        ServiceError(.alreadyExists, "the store holds \(chain), and a snapshot of it is there")
    }

    /// Whether a snapshot of that chain, for that label and on that parent, was made for another namespace of containerd's.
    private func isThere(_ chain: ChainID, on parent: SnapshotKey) throws -> Bool {
        state.withLock { state in
            state.records.values.contains {
                $0.kind == .committed && $0.parent == parent && $0.chain == chain
                    && $0.labels[Self.referenceLabel] == chain.description
            }
        }
    }

    /// Commit: makes the active snapshot `key` a committed one called `name`, whose labels are `labels` alone.
    ///
    /// Nothing is walked. A tree that is a chain is on disk already; of another a snapshot is made, which writes out what is dirty in it.
    ///
    /// - Parameter parent: must be that of the active snapshot, unless it is empty. containerd gives one for what it has prepared on nothing
    ///   to have it put on a parent now, where a snapshotter says that it can, which this one does not.
    package func commit(
        _ name: SnapshotKey, from key: SnapshotKey, labels: [String: String],
        parent: SnapshotKey = SnapshotKey("")
    ) throws {
        let labels = try Self.checked(labels)
        try Self.check(name)
        let (active, number, earlier) = try state.withLock {
            state throws -> (SnapshotRecord, UInt64, SnapshotRecord?) in
            let earlier = Self.earlier(name, from: key, in: state)
            guard state.records[name] == nil || earlier != nil, !state.reserved.contains(name) else {
                throw ServiceError(.alreadyExists, "there is a snapshot \(name.text.shown)")
            }
            if !parent.isEmpty, let record = state.records[key], record.kind == .active,
                record.parent != parent
            {
                _ = try Self.found(parent, in: state)
                throw ServiceError(
                    .invalidArgument,
                    "the parent of the snapshot \(key.text.shown) cannot become \(parent.text.shown) when it is committed"
                )
            }
            let active = try Self.active(key, for: .committing, in: &state)
            state.reserved.insert(name)
            return (active, state.newTree(), earlier)
        }
        superseded.remove(name)
        var record = SnapshotRecord(
            key: name, kind: .committed, parent: active.parent, labels: labels, time: .now(),
            tree: active.tree)
        record.committedFrom = active.tree
        do {
            if let chain = active.chain, try isStill(chain, active.tree) {
                record.chain = chain
                try write(record)
            } else {
                record.tree = number
                record.origin = try trees.origin(of: active.tree)
                try making(record) { try trees.makeTree(number, copying: active.tree) }
            }
        } catch {
            trees.thaw(active.tree)
            state.withLock { state in
                state.reserved.remove(name)
                state.busy[key] = nil
            }
            deletions.add([.tree(number)])
            throw ServiceError(error)
        }
        superseded.add(active, deletesTree: record.tree != active.tree)
        state.withLock { state in
            state.reserved.remove(name)
            state.busy[key] = nil
            state.remove(active)
            if let earlier {
                state.remove(earlier)
                state.abandon(childOf: earlier.parent)
            }
            state.insert(record)
        }
        if let earlier { deletions.add([.tree(earlier.tree)]) }
    }

    /// The snapshot that a commit has made of this one under this name before, without containerd's hearing of it.
    private static func earlier(_ name: SnapshotKey, from key: SnapshotKey, in state: State)
        -> SnapshotRecord?
    {
        guard let found = state.records[name], found.kind == .committed, let active = state.records[key],
            active.kind == .active, found.committedFrom == active.tree, state.children[name] == nil,
            state.busy[name] == nil
        else { return nil }
        return found
    }

    /// Whether an active snapshot's tree is as it was made of a chain. It is read-only then.
    private func isStill(_ chain: ChainID, _ tree: UInt64) throws -> Bool {
        // Of one that shows already that it was written to, nothing more need be asked: that saves a transaction.
        if try trees.wasWritten(tree) { return false }
        try trees.setReadOnly(tree, true)
        return try trees.isUnchanged(tree) && trees.isSnapshot(tree, of: chain)
    }

    private static func active(_ key: SnapshotKey, for work: Work, in state: inout State) throws(ServiceError)
        -> SnapshotRecord
    {
        let record = try found(key, in: state)
        guard record.kind == .active else {
            throw ServiceError(.failedPrecondition, "the snapshot \(key.text.shown) is not active")
        }
        try claim(key, for: work, in: &state)
        return record
    }

    private static func found(_ key: SnapshotKey, in state: State) throws(ServiceError) -> SnapshotRecord {
        guard let record = state.records[key] else {
            throw ServiceError(.notFound, "there is no snapshot \(key.text.shown)")
        }
        return record
    }

    /// No other call changes the snapshot until this one gives it up.
    private static func claim(_ key: SnapshotKey, for work: Work, in state: inout State) throws(ServiceError)
    {
        if let other = state.busy[key] {
            throw ServiceError(
                .failedPrecondition,
                "cannot touch the snapshot \(key.text.shown) while another call is \(other.rawValue) it; wait for its end"
            )
        }
        state.busy[key] = work
    }

    // MARK: Removing

    /// Remove: the snapshot is gone when this returns, its tree soon after.
    package func remove(_ key: SnapshotKey) throws {
        let record = try state.withLock { state throws -> SnapshotRecord in
            let record = try Self.found(key, in: state)
            guard state.children[key] == nil else {
                throw ServiceError(
                    .failedPrecondition,
                    "cannot remove the snapshot \(key.text.shown): others have it as their parent")
            }
            if let other = state.busy[key] {
                throw ServiceError(
                    .failedPrecondition,
                    "cannot remove the snapshot \(key.text.shown) while another call is \(other.rawValue) it; wait for its end"
                )
            }
            state.busy[key] = .removing
            return record
        }
        if let tree = record.committedFrom { superseded.remove(ofTree: tree) }
        do throws(Errno) {
            try records.remove(key)
        } catch {
            state.withLock { $0.busy[key] = nil }
            throw ServiceError(VarveError.system("remove the record of", BytePath(key.text), error))
        }
        state.withLock { state in
            state.busy[key] = nil
            state.remove(record)
            state.abandon(childOf: record.parent)
        }
        deletions.add([record.sharesTree ? .record : .tree(record.tree)])
    }

    /// Cleanup: returns when all trees are gone whose snapshots were removed.
    package func cleanUp() {
        superseded.removeAll()
        deletions.drain()
    }

    // MARK: Asking

    package func record(_ key: SnapshotKey) throws(ServiceError) -> SnapshotRecord {
        try state.withLock { (state) throws(ServiceError) in try Self.found(key, in: state) }
    }

    /// All snapshots that one of the filters matches, by key.
    package func list(_ filters: [SnapshotFilter]) -> [SnapshotRecord] {
        let all = state.withLock { Array($0.records.values) }
        return all.filter { SnapshotFilter.anyMatches(filters, $0) }.sorted { $0.key < $1.key }
    }

    package func mounts(_ key: SnapshotKey) throws(ServiceError) -> [SnapshotMount] {
        let record = try record(key)
        guard record.kind != .committed else {
            throw ServiceError(
                .failedPrecondition,
                "the snapshot \(key.text.shown) is committed; only views of it can be mounted")
        }
        return [.bind(trees.rootfs(of: record.tree), readOnly: record.kind == .view)]
    }

    /// Replaces labels. `paths` are fields as `labels` and `labels.NAME`; none at all stand for all that can be changed.
    package func update(_ key: SnapshotKey, labels: [String: String], paths: [String]) throws
        -> SnapshotRecord
    {
        _ = try record(key)
        let labels = try Self.checked(labels, keepingEmpty: true)
        // The record as it is from now on.
        var changed = try state.withLock { state throws -> SnapshotRecord in
            let record = try Self.found(key, in: state)
            try Self.claim(key, for: .updating, in: &state)
            return record
        }
        defer { state.withLock { $0.busy[key] = nil } }
        let prefix = "labels."
        for path in paths.isEmpty ? ["labels"] : paths {
            if path == "labels" {
                changed.labels = labels
            } else if path.hasPrefix(prefix) {
                let name = String(path.dropFirst(prefix.count))
                if let value = labels.value(ofBytes: name) {
                    // A key that Unicode takes for the same goes: the table holds one of them.
                    changed.labels[name] = nil
                    changed.labels[name] = value
                } else if changed.labels.value(ofBytes: name) != nil {
                    changed.labels[name] = nil
                }
            } else {
                throw ServiceError(
                    .invalidArgument,
                    "the field \(path.shown) of a snapshot cannot be changed; only its labels can")
            }
        }
        changed.labels = try Self.checked(changed.labels)
        changed.updated = .now()
        do { try write(changed) } catch { throw ServiceError(error) }
        state.withLock { $0.insert(changed) }
        return changed
    }

    /// What a snapshot has that its parent has not.
    package func usage(_ key: SnapshotKey) throws -> SnapshotRecord.Usage {
        let record = try record(key)
        if let usage = record.usage { return usage }
        if record.sharesTree { return SnapshotRecord.Usage(size: 0, inodes: 0) }
        do {
            var usage: SnapshotRecord.Usage?
            if record.kind == .committed, let chain = record.chain {
                let parent = state.withLock { $0.records[record.parent] }
                usage = try trees.usage(ofChain: chain, above: parent?.chain)
            }
            let result = try usage ?? trees.usage(of: record)
            if record.kind == .committed {
                // Once: it does not change any more. What is only in memory is found again after the next start.
                state.withLock { state in
                    if state.records[key]?.tree == record.tree { state.records[key]?.usage = result }
                }
            }
            return result
        } catch {
            throw ServiceError(error)
        }
    }

    /// What there is now, for the metrics. It waits for nothing.
    package func present() -> Metrics.Present {
        var present = Metrics.Present()
        present.snapshots = state.withLock { state in
            Dictionary(state.records.values.lazy.map { ($0.kind, 1) }, uniquingKeysWith: +)
        }
        present.treesToDelete = deletions.count
        return present
    }

    // MARK: For the differ

    /// The snapshot whose mount this is; nil if it is none of ours.
    func snapshot(at mount: SnapshotMount) -> SnapshotRecord? {
        guard mount.isPlainBind, let number = trees.number(ofRootfs: BytePath(mount.source)),
            !mount.source.utf8.contains(0)
        else { return nil }
        return state.withLock { state in state.keyOfTree[number].flatMap { state.records[$0] } }
    }

    func parent(of record: SnapshotRecord) -> SnapshotRecord? { state.withLock { $0.records[record.parent] } }

    /// Runs `body` while no other call changes the active snapshot `key`. What `body` returns replaces its record.
    func changing(_ key: SnapshotKey, _ body: (SnapshotRecord) throws -> SnapshotRecord?) throws {
        let record = try state.withLock { state throws in try Self.active(key, for: .applying, in: &state) }
        defer { state.withLock { $0.busy[key] = nil } }
        guard let changed = try body(record), changed != record else { return }
        // A tree that was exchanged is on disk with it: the rename of a subvolume makes the next fsync commit the whole transaction
        // (`btrfs_set_log_full_commit` in btrfs_rename_exchange, fs/btrfs/inode.c).
        try write(changed)
        state.withLock { $0.insert(changed) }
    }

    /// Deletes behind what a tree was exchanged for.
    func discard(_ leftover: BytePath) { deletions.add([.leftover(leftover)]) }

    // MARK: Parts

    private func write(_ record: SnapshotRecord) throws {
        try attemptWriting(record) { () throws(Errno) in try records.write(record) }
    }

    private func attemptWriting(_ record: SnapshotRecord, _ body: () throws(Errno) -> Void) throws(VarveError)
    {
        do throws(Errno) {
            try body()
        } catch {
            throw VarveError.system("write the record of", BytePath(record.key.text), error)
        }
    }

    private static func check(_ key: SnapshotKey) throws(ServiceError) {
        guard !key.isEmpty else {
            throw ServiceError(.invalidArgument, "a snapshot has a key, and this one is empty")
        }
        guard key.bytes.count <= keyLimit else {
            throw ServiceError(
                .invalidArgument,
                "the key of a snapshot has \(key.bytes.count) bytes, and \(keyLimit) are the most")
        }
    }

    /// Labels within the limits. One with an empty value is none, as in containerd's own snapshotters.
    private static func checked(_ labels: [String: String], keepingEmpty: Bool = false) throws(ServiceError)
        -> [String: String]
    {
        guard labels.count <= labelCountLimit else {
            throw ServiceError(
                .invalidArgument, "there are \(labels.count) labels, and \(labelCountLimit) are the most")
        }
        for (key, value) in labels where key.utf8.count + value.utf8.count > labelLimit {
            throw ServiceError(
                .invalidArgument,
                "the label \(key.shown) and its value have \(key.utf8.count + value.utf8.count) bytes, and \(labelLimit) are the most"
            )
        }
        return keepingEmpty ? labels : labels.filter { !$0.value.isEmpty }
    }
}
