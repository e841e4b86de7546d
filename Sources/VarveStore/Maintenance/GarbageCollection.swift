import VarveBtrfs
package import VarveOCI
public import VarveSystem
import SystemPackage

/// Deletes the chains that nothing needs.
///
/// A chain is kept if a bundle or a snapshot descends from it, if it is a prefix of an image that is to be kept, if it is
/// younger than asked for, if somebody works with it just now or has it mounted, and if a chain that is kept was made on top of it.
public struct GarbageCollection: Sendable {
    package struct Options: Sendable {
        /// Every chain of these images is kept, with any options.
        package var keptChains: Set<ChainID> = []
        /// Chains that were made later are kept. Nil: age does not count.
        package var madeBefore: Timestamp?
        package var isDryRun = false
        /// Wait until the file system has given the space back.
        package var waitsForSpace = false
        /// Delete only until so many bytes are free on the file system: the oldest chains first. Nil: all that nothing needs.
        package var wantedFree: Int64?
        package init() {}
    }

    /// What was collected, or would be.
    public struct Report: Sendable {
        /// In the order in which they were deleted: those made on top of others first.
        public var chains: [ChainName] = []
        /// States of refreshed bundles that do not exist any more.
        public var refreshed: [BytePath] = []
        /// Unneeded, but somebody was at them.
        public var inUse: [ChainName] = []
        /// How many chains stay.
        public var kept = 0
        /// What a dry run would free, in bytes on disk; nil where it was not asked, and for others than root.
        public var exclusiveBytes: UInt64?
        /// What images came from that are no longer kept in the store's own layout, and the blobs that went with them.
        package var images: [String] = []
        package var blobs = CollectionReport()
        /// False if the space was waited for and has not all come back.
        public var isSpaceBack = true
        /// What was free on the file system at the end, if that was asked; a dry run counts what it would free.
        package var free: Int64?
        /// Of that file system.
        package var mountPoint: BytePath?
        /// Nothing was deleted.
        package var isDryRun = false
        package init() {}
    }

    private let store: SnapshotStore
    private let options: Options
    private let cancellation: Cancellation
    private let progress: ProgressHandler

    /// - Parameter progress: told how many of the chains that nothing needs are deleted.
    package init(
        _ store: SnapshotStore, options: Options, cancellation: Cancellation = Cancellation(),
        progress: @escaping ProgressHandler = { _ in }
    ) {
        self.store = store
        self.options = options
        self.cancellation = cancellation
        self.progress = progress
    }

    /// A chain, with what it was made on top of.
    private struct Candidate {
        var chain: OpenChain
        var below: ChainName?
    }

    package func run() throws -> Report {
        // Others than root collect what they see to be needed by nothing; what it takes, and when it is free, the trees alone say.
        if options.wantedFree != nil || options.waitsForSpace {
            try store.requireTreeSearch("measure what is free after garbage is collected in")
        }
        if !options.isDryRun {
            // What a comparison of images left that was killed.
            WorkDirectory.clean(in: store.path.appending(StoreLayout.bundles), store.locks.cancellation)
        }
        if let wanted = options.wantedFree { return try run(until: wanted) }
        var deleted: [UInt64] = []
        var report = try collect(&deleted)
        // Not before all that was open of the chains is closed: the cleaner leaves alone what somebody holds.
        if options.waitsForSpace { report.isSpaceBack = try waitForCleaner(deleted) }
        return report
    }

    /// A round deletes as many chains as should do, by their data on disk, and looks what is free then: metadata is not counted before, and
    /// some of them may be in use.
    private func run(until wanted: Int64) throws -> Report {
        func free() throws(VarveError) -> Int64 {
            try attempt("look at the file system of", store.path) { () throws(Errno) in
                try store.directory.fd.freeBytes()
            }
        }
        var total = Report()
        var now = try free()
        var isFirst = true
        var inUse: Set<ChainName> = []
        // Where there is room enough nothing is looked at, however much nothing needs.
        while now < wanted {
            var deleted: [UInt64] = []
            let report = try collect(&deleted, missing: UInt64(wanted - now), keeping: inUse)
            total.add(report, isFirst: isFirst)
            inUse.formUnion(report.inUse)
            total.inUse = inUse.sorted { $0.description < $1.description }
            isFirst = false
            if options.isDryRun {
                now += Int64(clamping: report.exclusiveBytes ?? 0)
                break
            }
            total.isSpaceBack = try waitForCleaner(deleted) && total.isSpaceBack
            // What the cleaner has freed is free after the next commit.
            try store.directory.fd.commitTransaction()
            now = try free()
            if report.chains.isEmpty, report.inUse.isEmpty { break }
        }
        if options.isDryRun, isFirst { total.exclusiveBytes = 0 }
        total.free = now
        total.mountPoint = (try? store.directory.fd.path()).flatMap { MountTable.point(near: $0) }
        return total
    }

    /// - Parameters:
    ///   - missing: bytes on disk that are to be freed; nil for all that can be.
    ///   - names: chains that stay.
    private func collect(
        _ deleted: inout [UInt64], missing: UInt64? = nil, keeping names: Set<ChainName> = []
    ) throws -> Report {
        let images = try PulledImages(of: store)
        let all = try store.chains.all().map { chain in
            Candidate(
                chain: chain,
                below: try PublicationRecord.read(from: chain.subvolume.fd, chain.name.path)?.below)
        }
        let users = try ChainUsers(of: store, besides: all.map(\.chain))
        var kept = Set(
            all.filter {
                isKept($0.chain) || users.contains($0.chain) || names.contains($0.chain.name)
                    || images.keptChains.contains($0.chain.name.chainID)
            }.map(\.chain.name))
        close(&kept, all)
        var unneeded = inOrder(all.filter { !kept.contains($0.chain.name) })
        let orphans = users.orphans
        if let missing { unneeded = try enough(unneeded, besides: orphans.map(\.id), toFree: missing) }
        var report = Report()
        report.kept = all.count - unneeded.count
        report.isDryRun = options.isDryRun

        if options.isDryRun {
            report.chains = unneeded.map(\.chain.name)
            report.refreshed = orphans.map(\.name)
            let ids = unneeded.map(\.chain.info.id) + orphans.map(\.id)
            if try store.maySearchTrees() {
                report.exclusiveBytes = try SpaceUsage(store.directory.fd, store.locks.cancellation)
                    .exclusive(together: ids)
            }
            try images.collect(options, into: &report)
            return report
        }
        deleted = try collect(unneeded, all, &report)
        let mounted = orphans.isEmpty ? [] : try store.refreshedDirectory.namesInUse(cancellation)
        for orphan in orphans where !mounted.contains(orphan.name) {
            try cancellation.check()
            deleted += try store.refreshedDirectory.delete(orphan.name)
            report.refreshed.append(orphan.name)
        }
        store.removeUnusedTimes()
        try images.collect(options, into: &report)
        return report
    }

    private func isKept(_ chain: OpenChain) -> Bool {
        if options.keptChains.contains(chain.name.chainID) { return true }
        return options.madeBefore.map { chain.info.originTime >= $0 } ?? false
    }

    /// What a kept chain was made on top of is kept.
    private func close(_ kept: inout Set<ChainName>, _ all: [Candidate]) {
        let below = Dictionary(all.map { ($0.chain.name, $0.below) }) { first, _ in first }
        for name in kept {
            var next = below[name] ?? nil
            while let current = next, below[current] != nil, kept.insert(current).inserted {
                next = below[current] ?? nil
            }
        }
    }

    /// Those made on top of others before those, for a run that is cut short leaves prefixes, which are of use, and no gaps; and of those
    /// that nothing lies on any more, the oldest first.
    private func inOrder(_ some: [Candidate]) -> [Candidate] {
        let byName = Dictionary(some.map { ($0.chain.name, $0) }) { first, _ in first }
        var above: [ChainName: Int] = [:]
        for candidate in some {
            if let below = candidate.below, below != candidate.chain.name { above[below, default: 0] += 1 }
        }
        func isEarlier(_ one: Candidate, _ other: Candidate) -> Bool {
            (one.chain.info.originTime, one.chain.name.description)
                < (other.chain.info.originTime, other.chain.name.description)
        }
        var ready = Heap(some.filter { above[$0.chain.name, default: 0] == 0 }, isEarlier)
        var result: [Candidate] = []
        result.reserveCapacity(some.count)
        while let next = ready.popFirst() {
            result.append(next)
            guard let below = next.below, let left = above[below], let candidate = byName[below] else {
                continue
            }
            above[below] = left - 1
            if left == 1 { ready.insert(candidate) }
        }
        // What is damaged may go round in circles, and is never ready.
        if result.count < some.count {
            let done = Set(result.map(\.chain.name))
            result += some.filter { !done.contains($0.chain.name) }
        }
        return result
    }

    /// The first of them that together free so many bytes; all where that is not enough.
    ///
    /// - Parameters:
    ///   - chains: in the order in which they are deleted.
    ///   - others: what goes before them.
    private func enough(_ chains: [Candidate], besides others: [UInt64], toFree missing: UInt64) throws
        -> [Candidate]
    {
        let freed = try SpaceUsage(store.directory.fd, store.locks.cancellation).freed(
            inOrder: [others] + chains.map { [$0.chain.info.id] })
        var sum: UInt64 = 0
        for (index, bytes) in freed.enumerated() {
            sum += bytes
            if sum >= missing { return Array(chains.prefix(index)) }
        }
        return chains
    }

    /// Locks and leases first, then another look at who needs what: a bundle may have been made meanwhile. From then on
    /// nobody else can get hold of these chains until they are gone.
    private func collect(_ unneeded: [Candidate], _ all: [Candidate], _ report: inout Report) throws
        -> [UInt64]
    {
        var held: [ChainName: HeldChain] = [:]
        var everything: HeldLock?
        do {
            held = try hold(unneeded, byName: true)
        } catch let error as VarveError where error.code == .noSpace {
            // No room for the locks' files: the locks of all names at once need none.
            everything = try attempt("lock", StoreLayout.locks) { () throws(Errno) in
                try store.locks.tryLockEverything()
            }
            if everything == nil { throw error }
            held = try hold(unneeded, byName: false)
        }
        defer { extendLifetime(everything) }
        let mounted = unneeded.isEmpty ? [] : try store.chains.directory.namesInUse(cancellation)
        var kept = Set(unneeded.map(\.chain.name).filter { held[$0] == nil || mounted.contains($0.path) })
        report.inUse = kept.sorted { $0.description < $1.description }
        let users = try ChainUsers(of: store, besides: try store.chains.all())
        kept.formUnion(unneeded.filter { users.contains($0.chain) }.map(\.chain.name))
        close(&kept, all)
        report.kept += kept.count
        for name in kept { held[name] = nil }
        var deleted: [UInt64] = []
        for candidate in unneeded where held[candidate.chain.name] != nil {
            try cancellation.check()
            let name = candidate.chain.name
            deleted += try store.chains.directory.delete(name.path)
            held[name] = nil
            report.chains.append(name)
            progress(.items(done: report.chains.count, count: unneeded.count))
        }
        return deleted
    }

    private func hold(_ chains: [Candidate], byName: Bool) throws -> [ChainName: HeldChain] {
        var held: [ChainName: HeldChain] = [:]
        for candidate in chains {
            try cancellation.check()
            held[candidate.chain.name] = try HeldChain(candidate.chain.name, of: store, byName: byName)
        }
        return held
    }

    /// Gives up once the cleaner has freed none of them for a minute: something has a file open there.
    private func waitForCleaner(_ ids: [UInt64]) throws -> Bool {
        var left = ids
        var idle = 0
        while !left.isEmpty {
            try cancellation.check()
            if try store.directory.fd.waitForCleaner(of: left, seconds: 0.5) { return true }
            let still = Set(try store.directory.fd.deletedSubvolumes())
            let next = left.filter { still.contains($0) }
            idle = next.count < left.count ? 0 : idle + 1
            if idle == 120 { return false }
            left = next
        }
        return true
    }

    /// A chain that nobody can build, open or delete but the owner of this value.
    private final class HeldChain {
        private let lock: FileLock?
        private let subvolume: SharedDescriptor

        /// Nil if somebody is at it, or it is gone.
        ///
        /// - Parameter byName: false if all names are locked already.
        init?(_ name: ChainName, of store: SnapshotStore, byName: Bool) throws {
            var lock: FileLock?
            if byName {
                lock = try attempt("lock the chain by", store.locks.path(of: name.path)) { () throws(Errno) in
                    try store.locks.tryLock(name.path)
                }
                if lock == nil { return nil }
            }
            guard let subvolume = try store.chains.unleased(name) else { return nil }
            self.lock = lock
            self.subvolume = subvolume
        }
    }
}

extension GarbageCollection.Report {
    /// What a further round did.
    fileprivate mutating func add(_ other: Self, isFirst: Bool) {
        chains += other.chains
        refreshed += other.refreshed
        images = Set(images + other.images).sorted()
        kept = other.kept
        if let bytes = other.exclusiveBytes { exclusiveBytes = (exclusiveBytes ?? 0) + bytes }
        if isFirst {
            blobs = other.blobs
        } else {
            blobs.removed += other.blobs.removed
        }
    }
}

/// A binary heap: the first of its elements at any time, in the order given.
private struct Heap<Element> {
    private var elements: [Element] = []
    private let isBefore: (Element, Element) -> Bool

    init(_ elements: [Element], _ isBefore: @escaping (Element, Element) -> Bool) {
        self.isBefore = isBefore
        // In order already is a heap too.
        self.elements = elements.sorted(by: isBefore)
    }

    mutating func insert(_ element: Element) {
        elements.append(element)
        var child = elements.count - 1
        while child > 0, isBefore(elements[child], elements[(child - 1) / 2]) {
            elements.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    mutating func popFirst() -> Element? {
        guard let first = elements.first, let last = elements.popLast() else { return nil }
        guard !elements.isEmpty else { return first }
        elements[0] = last
        var parent = 0
        while true {
            let children = [2 * parent + 1, 2 * parent + 2].filter { $0 < elements.count }
            guard let least = children.min(by: { isBefore(elements[$0], elements[$1]) }),
                isBefore(elements[least], elements[parent])
            else { return first }
            elements.swapAt(parent, least)
            parent = least
        }
    }
}

extension SnapshotStore {
    /// Whether the trees of btrfs may be searched.
    func maySearchTrees() throws(BtrfsError) -> Bool {
        var search = TreeSearch(directory.fd, bufferSize: 0)
        do throws(BtrfsError) {
            _ = try search.inodeItem(TreeSearch.firstInode)
            return true
        } catch {
            guard error.errno == .notPermitted else { throw error }
            return false
        }
    }

    /// Throws unless they may.
    func requireTreeSearch(_ operation: String) throws {
        guard try maySearchTrees() else {
            throw VarveError(
                .unsupported,
                "cannot \(operation) \"\(path)\": only root may see all subvolumes of a file system",
                subject: path, remedy: .runAsRoot
            )
        }
    }
}
