import VarveBtrfs
import VarveLayers
package import VarveSystem
import SystemPackage

/// What one containerd has in a store: `containerd/ID/`. The process that serves it has it as `DaemonTrees`, and goes on while others
/// read here: what they find is what was there at some moment.
package struct ContainerdPlace: Sendable {
    package let id: String
    /// Its absolute path, or that by which the store was named.
    package let path: BytePath
    let store: SnapshotStore
    let directory: SharedDescriptor
    private let parent: SharedDescriptor
    /// Nil where the directory is not there.
    let trees: SubvolumeDirectory?
    let records: RecordDirectory?

    /// The records are moved there at once, all of them, when they are to be deleted.
    static let forgotten: BytePath = "forgotten"

    init(_ id: String, _ directory: SharedDescriptor, in parent: SharedDescriptor, of store: SnapshotStore)
        throws
    {
        self.id = id
        self.directory = directory
        self.parent = parent
        self.store = store
        let name = StoreLayout.containerd.appending(BytePath(id))
        let path = store.path.appending(name)
        self.path = path
        func open(_ name: BytePath) throws(VarveError) -> SharedDescriptor? {
            try attempt("open", path.appending(name)) { () throws(Errno) -> SharedDescriptor? in
                do throws(Errno) {
                    return SharedDescriptor(try directory.fd.openDirectory(name))
                } catch .noSuchFileOrDirectory {
                    return nil
                }
            }
        }
        records = try open(StoreLayout.records).map { RecordDirectory($0) }
        trees = try open(StoreLayout.trees).map {
            SubvolumeDirectory(opened: $0, store: store.path, name: name.appending(StoreLayout.trees))
        }
    }

    /// Keeps every daemon from serving it for as long as the value is there; nil while one does. A daemon that starts meanwhile waits
    /// for a moment (`isServed`).
    func lock() throws(VarveError) -> HeldLock? {
        try attempt("lock", path) { () throws(Errno) in
            // On an open description of its own: one and the same has one lock.
            let opened = SharedDescriptor(try directory.fd.openDirectory(.current))
            return try opened.fd.tryLock(.exclusive) ? HeldLock(on: opened) : nil
        }
    }

    /// Whether a daemon serves it just now, or somebody looks after it.
    package var isServed: Bool {
        get throws { try lock() == nil }
    }

    /// The same for what is to be deleted.
    ///
    /// - Throws: `VarveError`, `failed` while a daemon serves it, or a tree is mounted in any mount name space (`TreeUsers`).
    func lockUnused() throws -> HeldLock {
        guard let lock = try lock() else {
            throw VarveError(
                .failed, "a daemon serves the containerd \"\(id)\" from the store \"\(store.path)\"",
                subject: path, remedy: .endDaemon(id))
        }
        try checkUnused()
        return lock
    }

    /// Throws if a tree is mounted in any mount name space, or a part of one.
    ///
    /// - Parameter name: of the tree; nil for any.
    func checkUnused(_ name: BytePath? = nil) throws(VarveError) {
        guard let trees,
            let user = try users(of: trees, in: .all, name).first
        else { return }
        throw VarveError(
            .failed, "the snapshots of the containerd \"\(id)\" are in use: \(user.words)", subject: path,
            remedy: user.remedy)
    }

    /// What was found there.
    package struct State: Sendable {
        /// The records that count, by key.
        package var records: [SnapshotRecord]
        /// Files that are no records.
        package var faults: [RecordDirectory.Fault]
        /// The numbers of the trees, in ascending order, without the empty one that others are made of.
        package var trees: [UInt64]
        /// What else lies beside the trees, by name: what was on its way when a process ended.
        package var others: [BytePath]

        /// Trees that no record names.
        package var unnamed: [UInt64] {
            let used = Set(records.map(\.tree))
            return trees.filter { !used.contains($0) }
        }
    }

    package func state() throws -> State {
        let (found, faults) = try attempt("read the records in", path) {
            () throws(Errno) -> ([SnapshotRecord], [RecordDirectory.Fault]) in
            try records?.read(isOwner: false) { try open($0) != nil } ?? ([], [])
        }
        let counting = SnapshotRecord.split(found).counting
        let (numbers, others) = DaemonTrees.split(try trees?.entries() ?? [])
        return State(
            records: counting.sorted { $0.key < $1.key },
            faults: faults.sorted { $0.name < $1.name },
            trees: numbers.filter { $0 != DaemonTrees.emptyTree }.sorted(), others: others.sorted())
    }

    /// A tree; nil if it is not there, or something else is.
    func open(_ tree: UInt64) throws -> SharedDescriptor? {
        try trees?.subvolume(DaemonTrees.name(tree))
    }

    // MARK: Snapshots

    /// One of its snapshots, and what becomes of it.
    package struct Snapshot: Sendable {
        package var record: SnapshotRecord
        /// What it has that its parent has not; nil where that cannot be told, because a tree is not there.
        package var usage: SnapshotRecord.Usage?
        /// How many others have it as their parent.
        package var children: Int
        /// Where this process sees it mounted, or something in it; the oldest first.
        package var mounts: [BytePath]
    }

    /// All of its snapshots, by key. Costs what was written to those that are active, and for those that are chains what their layers
    /// changed.
    ///
    /// - Throws: `VarveError`, `unsupported` for others than root, who may not search trees.
    package func snapshots() throws -> [Snapshot] {
        try store.requireTreeSearch("measure the snapshots of containerd in")
        let state = try state()
        let byKey = Dictionary(state.records.map { ($0.key, $0) }) { first, _ in first }
        let children = Dictionary(grouping: state.records, by: \.parent).mapValues(\.count)
        let mounts = try self.mounts()
        return try state.records.map { record in
            Snapshot(
                record: record, usage: try usage(of: record, above: byKey[record.parent]),
                children: children[record.key] ?? 0, mounts: mounts[record.tree] ?? [])
        }
    }

    private func usage(of record: SnapshotRecord, above parent: SnapshotRecord?) throws
        -> SnapshotRecord.Usage?
    {
        if let usage = record.usage { return usage }
        if record.sharesTree { return SnapshotRecord.Usage(size: 0, inodes: 0) }
        if record.kind == .committed, let chain = record.chain,
            let found = try store.chains.find(ChainName(chain))
        {
            let below = try parent?.chain.flatMap { try store.chains.find(ChainName($0)) }
            return try SnapshotRecord.Usage(of: found, above: below)
        }
        guard let opened = try open(record.tree) else { return nil }
        return try SnapshotRecord.Usage(of: opened.fd, as: record)
    }

    // MARK: Mounts

    /// Where this process sees its trees mounted, or something in them, by the numbers of the trees.
    package func mounts() throws -> [UInt64: [BytePath]] {
        var result: [UInt64: [BytePath]] = [:]
        for user in try trees.map({ try users(of: $0, in: .own) }) ?? [] {
            guard case .mount(let point) = user.kind,
                let number = user.place.first.flatMap(DaemonTrees.number)
            else { continue }
            result[number, default: []].append(point)
        }
        return result
    }

    private func users(
        of trees: SubvolumeDirectory, in nameSpaces: TreeUsers.NameSpaces, _ name: BytePath? = nil
    ) throws(VarveError) -> [TreeUsers.User] {
        try attempt("look for mounts of", path) { () throws(Errno) in
            try trees.users(in: nameSpaces, of: name, store.locks.cancellation)
        }
    }

    // MARK: Forgetting

    /// Deletes all that this containerd has: records, then trees. The chains that they were made of stay, for `GarbageCollection`. After
    /// a crash in the middle no record is there any more, and a second call deletes the rest.
    ///
    /// - Returns: how many snapshots there were.
    /// - Throws: `VarveError`, `failed` while a daemon serves it, or a tree is mounted in any mount name space (`TreeUsers`).
    @discardableResult
    package func forget(_ cancellation: Cancellation) throws -> Int {
        try forget(holding: lockUnused(), cancellation)
    }

    /// The same with the lock that `lockUnused` gave.
    @discardableResult
    func forget(holding lock: HeldLock, _ cancellation: Cancellation) throws -> Int {
        let state = try state()
        if records != nil {
            // Those that a call which was cut short has moved away, before a daemon began anew.
            try removePlainDirectory(Self.forgotten)
        }
        try attempt("delete the records in", path) { () throws(Errno) in
            if records != nil {
                try directory.fd.rename(
                    StoreLayout.records, to: directory.fd, Self.forgotten, replacing: false)
            }
            try directory.fd.synchronize()
        }
        for entry in try trees?.entries() ?? [] {
            try cancellation.check()
            try trees?.deleteEntry(entry.name)
        }
        for name in [StoreLayout.records, Self.forgotten] { try removePlainDirectory(name) }
        try removeDirectories()
        extendLifetime(lock)
        return state.records.count
    }

    /// Deletes a directory of records.
    func removePlainDirectory(_ name: BytePath) throws {
        let isThere = try attempt("look at", path.appending(name)) { () throws(Errno) in
            try directory.fd.statusIfPresent(of: name) != nil
        }
        if isThere { try TreeRemoval.removeTree(name, in: directory.fd, path: path.appending(name)) }
    }

    private func removeDirectories() throws {
        try attempt("remove the directory", path) { () throws(Errno) in
            if trees != nil { try directory.fd.removeDirectory(StoreLayout.trees) }
            try parent.fd.removeDirectory(BytePath(id))
            try parent.fd.synchronize()
        }
    }
}

extension SnapshotRecord.Usage {
    /// What a chain has that another does not have, on top of which it was made; nil for nothing. A chain that was not made on top of
    /// that counts whole.
    init(of chain: OpenChain, above below: OpenChain?) throws(BtrfsError) {
        var since: UInt64 = 0
        if let below, below.info.originTransaction < chain.info.originTransaction {
            since = below.info.originTransaction + 1
        }
        try self.init(of: chain.subvolume.fd, since: since)
    }

    /// What the tree of a record has that it was not made with: what was written since it, or what it was committed from, was made.
    init(of tree: FileDescriptor, as record: SnapshotRecord) throws(BtrfsError) {
        let made = try tree.subvolumeInfo().originTransaction
        try self.init(of: tree, since: record.origin?.transaction ?? made)
    }

    /// What was written to a tree in a transaction or a later one. It costs what has changed. Data that was not written out yet does
    /// not count.
    init(of subvolume: FileDescriptor, since transaction: UInt64) throws(BtrfsError) {
        let usage = try ActiveTree.Usage(of: subvolume, since: transaction)
        self.init(size: Int64(clamping: usage.bytes), inodes: Int64(usage.inodes))
    }
}
