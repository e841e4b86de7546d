import VarveSystem
package import SystemPackage

extension RecordedTree: OldTree {
    func rootStatus() -> FileStatus { nodes[Self.root].status }
    func openRoot() -> Int { Self.root }

    func open(_ name: BytePath, in directory: Int, path: BytePath) throws(LayerError) -> Int {
        try node(name, directory, path)
    }

    func open(at path: BytePath) throws(LayerError) -> Int {
        var directory = Self.root
        for name in path.components { directory = try node(name, directory, path) }
        return directory
    }

    private func node(_ name: BytePath, _ directory: Int, _ path: BytePath) throws(LayerError) -> Int {
        guard let found = find(name, in: directory) else {
            throw .system(operation: "find in the record", path: path, errno: .noSuchFileOrDirectory)
        }
        return found
    }

    func entries(of directory: Int, path: BytePath) -> [DirectoryEntry] {
        nodes[directory].children.map { child in
            let node = nodes[child]
            return DirectoryEntry(name: node.name, inode: node.status.inode, type: node.status.type)
        }
    }

    func status(of name: BytePath, in directory: Int, path: BytePath) -> FileStatus? {
        find(name, in: directory).map { nodes[$0].status }
    }

    func target(of side: OldSide<Self>, path: BytePath) throws(LayerError) -> BytePath {
        nodes[try node(side.name, side.directory, path)].target
    }

    func attributes(of side: OldSide<Self>, path: BytePath) throws(LayerError) -> [ExtendedAttribute]? {
        let node = nodes[try node(side.name, side.directory, path)]
        if case .mtree = knowledge, !node.status.isRegular, !node.status.isDirectory { return nil }
        return node.attributes
    }

    func isSame(_ old: Timestamp, _ new: Timestamp) -> Bool {
        switch knowledge {
        case .everything: old == new
        case .mtree: old.seconds == new.seconds
        }
    }

    /// Inode numbers of an mtree file are made up, and what a record says of the names of one file is its own.
    var hasTrueInodes: Bool { false }

    var knowsDeviceNumbers: Bool {
        if case .everything = knowledge { true } else { false }
    }

    func mayDifferUnseen(_ old: OldSide<RecordedTree>, _ new: NewSide, path: BytePath) throws(LayerError)
        -> Bool
    {
        guard case .mtree(let written) = knowledge else { return false }
        if nodes[try node(old.name, old.directory, path)].hasUnknownLinks { return true }
        // Whatever changes a file sets its change time, which nobody can set back.
        guard new.status.changeTime > written else { return false }
        switch new.status.type {
        case .characterDevice, .blockDevice: return true
        case .symbolicLink, .fifo: return try !new.attributes(path).isEmpty
        default: return false
        }
    }
}

extension Delta {
    /// Compares a tree with what was recorded of it.
    ///
    /// - Parameters:
    ///   - root: the root directory of the tree, open for reading; nothing may change in it meanwhile.
    ///   - readsAll: reads the content of every file, also where inode number and change time say that it is as it was.
    ///   - onEntry: called for each entry looked at, by any of the walk's threads; throws to stop.
    /// - Throws: `LayerError`, or what `onEntry` throws.
    package static func compute(
        old record: RecordedTree, new root: FileDescriptor, readsAll: Bool = false,
        onEntry: @escaping @Sendable () throws -> Void = {}
    ) throws -> DeltaResult {
        var trust = InodeTrust.none
        var reason = "the bundle has an mtree file, and no record of its own"
        if case .everything(let trusted) = record.knowledge {
            if !readsAll { trust = .unchangedBefore(trusted) }
            reason =
                readsAll
                ? "every file was to be read" : "the bundle has a record of the tree that was unpacked"
        }
        let tree = try ComparedTree(root: root)
        let walk = PairedWalk(old: record, new: tree, dirty: nil, trust: trust, onEntry: onEntry)
        let linked = LinkedDigests()
        let findings = try walk.run(threads: walkThreads) {
            let hashing = FileHashing()
            return FileComparison(record) { old, new, path throws(LayerError) in
                guard let node = record.find(old.name, in: old.directory),
                    let digest = record.nodes[node].digest
                else { return true }
                return try linked.digest(new.status) { () throws(LayerError) in
                    try hashing.digest(of: new, path, isStopped: { (try? onEntry()) == nil })
                } != digest
            }
        }
        var changes = findings.changes
        try findings.links.complete(&changes, names: WalkedLinkNames(links: findings.links)) { path in
            try tree.status(at: path)?.type ?? .regular
        }
        return DeltaResult(changes, findings, source: .walk, reason: reason)
    }
}
