import VarveBtrfs
package import VarveOCI
public import VarveSystem
import SystemPackage

/// Deletes the chains that nothing needs.
///
/// A chain is kept if a bundle or a snapshot descends from it, if it is a prefix of an image that is to be kept, if it is
/// younger than asked for, if somebody works with it just now, and if a chain that is kept was made on top of it.
public struct GarbageCollection: Sendable {
    package struct Options: Sendable {
        /// Every chain of these images is kept, with any options.
        package var keptChains: Set<ChainID> = []
        /// Chains that were made later are kept. Nil: age does not count.
        package var madeBefore: Timestamp?
        package var isDryRun = false
        /// Wait until the file system has given the space back.
        package var waitsForSpace = false
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
        /// What a dry run would free, in bytes on disk; nil where it was not asked.
        public var exclusiveBytes: UInt64?
        /// What images came from that are no longer kept in the store's own layout, and the blobs that went with them.
        package var images: [String] = []
        package var blobs = CollectionReport()
        /// False if the space was waited for and has not all come back.
        public var isSpaceBack = true
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
        try store.requireTreeSearch("collect garbage in")
        if !options.isDryRun {
            // What a comparison of images left that was killed.
            WorkDirectory.clean(in: store.path.appending(StoreLayout.bundles), store.locks.cancellation)
        }
        var deleted: [UInt64] = []
        var report = try collect(&deleted)
        // Not before all that was open of the chains is closed: the cleaner leaves alone what somebody holds.
        if options.waitsForSpace { report.isSpaceBack = try waitForCleaner(deleted) }
        return report
    }

    private func collect(_ deleted: inout [UInt64]) throws -> Report {
        let images = try PulledImages(of: store)
        let all = try store.chains.all().map { chain in
            Candidate(
                chain: chain,
                below: try PublicationRecord.read(from: chain.subvolume.fd, chain.name.path)?.below)
        }
        let users = try ChainUsers(of: store, besides: all.map(\.chain))
        var kept = Set(
            all.filter {
                isKept($0.chain) || users.contains($0.chain)
                    || images.keptChains.contains($0.chain.name.chainID)
            }.map(\.chain.name))
        close(&kept, all)
        let unneeded = all.filter { !kept.contains($0.chain.name) }
        var report = Report()
        report.kept = kept.count
        let orphans = users.orphans

        if options.isDryRun {
            report.chains = inOrder(unneeded, all).map(\.chain.name)
            report.refreshed = orphans.map(\.name)
            let ids = unneeded.map(\.chain.info.id) + orphans.map(\.id)
            report.exclusiveBytes = try SpaceUsage(store.directory.fd, store.locks.cancellation).exclusive(
                together: ids)
            try images.collect(options, into: &report)
            return report
        }
        deleted = try collect(unneeded, all, &report)
        for orphan in orphans {
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

    /// Children before parents: a run that is cut short leaves prefixes, which are of use, and no gaps.
    private func inOrder(_ some: [Candidate], _ all: [Candidate]) -> [Candidate] {
        let below = Dictionary(all.map { ($0.chain.name, $0.below) }) { first, _ in first }
        // Of each chain once: many may lie on each other.
        var depths: [ChainName: Int] = [:]
        func depth(_ candidate: Candidate) -> Int {
            var way = [candidate.chain.name]
            var seen = Set(way)
            var next = candidate.below
            // What is damaged may go round in circles.
            while let current = next, depths[current] == nil, seen.insert(current).inserted {
                way.append(current)
                next = below[current] ?? nil
            }
            var depth = next.flatMap { depths[$0] }.map { $0 + 1 } ?? 0
            for name in way.reversed() {
                if depths[name] == nil { depths[name] = depth }
                depth += 1
            }
            return depths[candidate.chain.name] ?? 0
        }
        return some.map { ($0, depth($0)) }.sorted {
            ($1.1, $0.0.chain.name.description) < ($0.1, $1.0.chain.name.description)
        }.map(\.0)
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
        var kept = Set(unneeded.map(\.chain.name).filter { held[$0] == nil })
        report.inUse = kept.sorted { $0.description < $1.description }
        let users = try ChainUsers(of: store, besides: try store.chains.all())
        kept.formUnion(unneeded.filter { users.contains($0.chain) }.map(\.chain.name))
        close(&kept, all)
        report.kept += kept.count
        for name in kept { held[name] = nil }
        var deleted: [UInt64] = []
        for candidate in inOrder(unneeded, all) where held[candidate.chain.name] != nil {
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

extension SnapshotStore {
    /// Throws unless the trees of btrfs may be searched.
    func requireTreeSearch(_ operation: String) throws {
        var search = TreeSearch(directory.fd, bufferSize: 0)
        do throws(BtrfsError) {
            _ = try search.inodeItem(TreeSearch.firstInode)
        } catch {
            guard error.errno == .notPermitted else { throw error }
            throw VarveError(
                .unsupported,
                "cannot \(operation) \"\(path)\": only root may see all subvolumes of a file system",
                subject: path, remedy: .runAsRoot
            )
        }
    }
}
