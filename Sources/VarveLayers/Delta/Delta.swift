package import VarveBtrfs
package import Logging
package import VarveSystem
package import SystemPackage

/// One side of a delta: a tree in a subvolume.
package struct DeltaTree: Sendable {
    /// The root directory of the subvolume.
    package var subvolume: FileDescriptor
    /// The root of the tree: the same directory, or one below it, open for reading.
    package var root: FileDescriptor
    /// What is known of the subvolume before it is compared.
    package var state: State

    package enum State: Sendable {
        /// Nothing. Files in it may still be open for writing from before it was made read-only.
        case unknown
        /// Nobody can have had a file in it open for writing: it is a read-only snapshot that was made to be compared.
        case snapshot
        /// It holds what it was made with, as was found out when its info was this (`settledSubvolumeInfo`), even if that has a
        /// later `changeTransaction`.
        case proven(SubvolumeInfo)
    }

    /// The stubs of nested subvolumes are taken for the empty directories as which users see them. No image has such.
    package var seesSubvolumes: Bool

    /// Nobody can have worked in what it is a snapshot of. Else a page of a mapped file may have been written to after it was flushed for the
    /// snapshot, and before that was committed: the snapshot has the file with its new change time and its old content, and what is written
    /// to the page later gives it no other.
    package var isUndisturbed: Bool

    package init(
        subvolume: FileDescriptor, root: FileDescriptor, state: State = .unknown,
        seesSubvolumes: Bool = false,
        isUndisturbed: Bool = false
    ) {
        self.subvolume = subvolume
        self.root = root
        self.state = state
        self.seesSubvolumes = seesSubvolumes
        self.isUndisturbed = isUndisturbed
    }

    /// The info with everything in it that was written before this call.
    fileprivate func info() throws(BtrfsError) -> SubvolumeInfo {
        switch state {
        case .unknown: try subvolume.settledSubvolumeInfo()
        case .snapshot: try subvolume.subvolumeInfo()
        case .proven(let info): info
        }
    }

    /// The transaction in which the tree was changed last.
    fileprivate func changeTransaction(_ info: SubvolumeInfo) -> UInt64 {
        if case .proven = state {
            min(info.changeTransaction, info.originTransaction)
        } else {
            info.changeTransaction
        }
    }

    /// Throws if the tree was written to since its info was `info`.
    fileprivate func check(unchangedSince info: SubvolumeInfo) throws {
        if case .snapshot = state { return }
        guard try subvolume.settledSubvolumeInfo().changeTransaction == info.changeTransaction else {
            throw LayerError.treeChanged
        }
    }
}

/// What changed between two trees, and how that was found out.
public struct DeltaResult: Sendable {
    /// In byte order of their paths.
    public var changes: [Change]
    /// The source that was used; `auto` if a driver knew the changes without any.
    public var source: DeltaSource
    /// Why that one.
    public var reason: String
    /// The first change whose path is longer than a layer can hold. Not all of such changes are there. Nil where all changes are.
    package var tooDeep: BytePath?
    /// The new tree is the old one and what was changed in this transaction or a later one. Nil where it does not descend from that.
    package var since: UInt64?

    /// What a driver found.
    ///
    /// - Parameters:
    ///   - changes: in path order, each path once.
    ///   - source: what the answer came from.
    ///   - reason: why that source was taken.
    public init(changes: [Change], source: DeltaSource, reason: String) {
        self.changes = changes
        self.source = source
        self.reason = reason
    }

    /// Throws unless every change is in `changes`.
    package func requireAll() throws(LayerError) -> DeltaResult {
        if let tooDeep {
            // It may be longer than anybody reads.
            let shown = BytePath(tooDeep.bytes.prefix(LayerPacker.pathLimit + 256)) ?? tooDeep
            throw LayerPacker.tooLong(shown, in: tooDeep.count)
        }
        return self
    }

    init(_ changes: [BytePath: Change], _ findings: WalkFindings, source: DeltaSource, reason: String) {
        self.init(changes: changes.values.sorted { $0.path < $1.path }, source: source, reason: reason)
        tooDeep = findings.tooDeep
    }
}

/// The exact difference between two trees: see Docs/delta.md.
package enum Delta {
    /// The threads of a long walk: it waits for the disk more than it computes.
    static let walkThreads = 4
    /// Dirty inodes from which on a walk is a long one: some 50 ms of it.
    private static let manyInodes = 4096

    /// Compares two trees of read-only subvolumes of one btrfs: as they are now, with all that was written to them before.
    ///
    /// - Parameters:
    ///   - source: where dirty inodes are learnt from; one that was asked for and cannot be used is an error.
    ///   - known: subvolumes between the two that the caller has looked at: without privileges, none can be found by its
    ///     UUID.
    ///   - logger: gets, at debug level, which source was used and why.
    ///   - onEntry: called for each entry looked at, by any of the walk's threads; throws to stop.
    /// - Throws: `LayerError`, `BtrfsError`, or what `onEntry` throws. `LayerError.treeChanged` if one was written to meanwhile:
    ///   compare snapshots then.
    package static func compute(
        old: DeltaTree, new: DeltaTree, source: DeltaSource = .auto, known: [SubvolumeInfo] = [],
        logger: Logger? = nil, onEntry: @escaping @Sendable () throws -> Void = {}
    ) throws -> DeltaResult {
        // First of all: lineage, search and extents are asked of metadata.
        let oldInfo = try old.info()
        let newInfo = try new.info()
        var lineageInfo = oldInfo
        lineageInfo.changeTransaction = old.changeTransaction(oldInfo)
        let lineage = Lineage.of(old: lineageInfo, new: newInfo, isUndisturbed: old.isUndisturbed) { uuid in
            known.first { $0.uuid == uuid } ?? (try? new.subvolume.subvolume(withUUID: uuid))
        }
        let choice = try DirtyInodes.find(
            source, old: old, new: new, lineage: lineage,
            areReadOnly: oldInfo.isReadOnly && newInfo.isReadOnly,
            onEntry: onEntry)
        logger?.debug("delta source: \(choice.source.rawValue), because \(choice.reason)")

        let oldTree = try ComparedTree(root: old.root)
        let newTree = try ComparedTree(root: new.root, seesSubvolumes: new.seesSubvolumes)
        var trust = InodeTrust.none
        if case .descends = lineage, old.isUndisturbed {
            // The clock of change times has ticks of up to 10 ms (CONFIG_HZ=100): what was changed just before
            // the snapshot may have been changed again just after it, and bear the same time.
            trust = .unchangedBefore(
                Timestamp(
                    seconds: oldInfo.originTime.seconds - 1, nanoseconds: oldInfo.originTime.nanoseconds))
        }
        let walk = PairedWalk(
            old: oldTree, new: newTree, dirty: choice.dirty, trust: trust, onEntry: onEntry)
        let isPruned = choice.dirty != nil
        let isShort = choice.dirty.map { $0.inodes.count < manyInodes } ?? false
        let findings = try walk.run(threads: isShort ? 1 : walkThreads) {
            let content = ContentComparison(
                equalExtents: isPruned ? ExtentComparison(old: old, new: new).areEqual : nil,
                isStopped: { (try? onEntry()) == nil })
            return FileComparison(oldTree, content: content.differs)
        }
        var changes = findings.changes
        let type = { (path: BytePath) throws -> VarveSystem.FileType in
            try newTree.status(at: path)?.type ?? .regular
        }
        var deepName: BytePath?
        if isPruned {
            let names = try SearchedLinkNames(
                old: old, oldTree: oldTree, new: new, newTree: newTree, onEntry: onEntry)
            try findings.links.complete(&changes, names: names, type: type)
            deepName = names.tooDeep
        } else {
            try findings.links.complete(
                &changes, names: WalkedLinkNames(links: findings.links), type: type)
        }
        try old.check(unchangedSince: oldInfo)
        try new.check(unchangedSince: newInfo)
        var result = DeltaResult(changes, findings, source: choice.source, reason: choice.reason)
        if result.tooDeep == nil { result.tooDeep = deepName }
        if case .descends(let since) = lineage { result.since = since }
        return result
    }
}
