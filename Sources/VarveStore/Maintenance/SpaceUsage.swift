import VarveBtrfs
package import VarveSystem
import SystemPackage

/// What subvolumes take on disk.
///
/// Where quota groups are on and right, theirs are the figures: data and metadata, as the kernel counts them. Elsewhere the
/// extents of files are counted: each once, by its length on disk; metadata, and with it files of up to 2 KiB that lie in
/// it, is left out. All subvolumes of the file system are looked at, for who shares what; about 50 bytes of memory go to each
/// extent of the subvolumes asked for.
struct SpaceUsage {
    struct Figures: Hashable {
        /// Bytes of all that it refers to.
        var referenced: UInt64 = 0
        /// Bytes of what nothing else refers to.
        var exclusive: UInt64 = 0
    }

    private let fileSystem: FileDescriptor
    private let cancellation: Cancellation

    /// - Parameter cancellation: asked at each extent: other users of the file system decide how many there are.
    init(_ fileSystem: FileDescriptor, _ cancellation: Cancellation) {
        self.fileSystem = fileSystem
        self.cancellation = cancellation
    }

    /// Figures for each of these subvolumes, and whether they are those of quota groups.
    func figures(of ids: [UInt64]) throws -> (figures: [Figures], areQuotas: Bool) {
        // Quota groups and trees are searched as they were written last.
        try fileSystem.commitTransaction()
        var search = TreeSearch(fileSystem)
        if let quotas = try search.quotaUsage() {
            return (
                ids.map { id in
                    Figures(
                        referenced: quotas[id]?.referenced ?? 0, exclusive: quotas[id]?.exclusive ?? 0)
                }, true
            )
        }
        return (try figures(of: ids, &search), false)
    }

    /// The bytes of extents that nothing but these subvolumes refers to.
    func exclusive(together ids: [UInt64]) throws -> UInt64 {
        try freed(inOrder: [ids])[0]
    }

    /// Bytes of extents that are freed when groups of subvolumes are deleted one after another: by each of them, after those before it.
    func freed(inOrder groups: [[UInt64]]) throws -> [UInt64] {
        if groups.allSatisfy(\.isEmpty) { return groups.map { _ in 0 } }
        try fileSystem.commitTransaction()
        var search = TreeSearch(fileSystem)
        // The length of each, and the last group that refers to it: with that it goes.
        var extents: [UInt64: (length: UInt64, last: Int)] = [:]
        for (index, ids) in groups.enumerated() {
            for id in ids { try forEachExtent(of: id, &search) { extents[$0] = ($1, index) } }
        }
        for id in try subvolumes(besides: Array(groups.joined()), &search) {
            try forEachExtent(of: id, &search) { start, _ in extents[start] = nil }
        }
        var freed = [UInt64](repeating: 0, count: groups.count)
        for extent in extents.values { freed[extent.last] += extent.length }
        return freed
    }

    private struct Extent {
        var length: UInt64
        /// The subvolume that refers to it, by its place among those asked for; -1 for several, or one and another.
        var owner: Int32
        /// The last one that was found to refer to it.
        var seen: Int32
    }

    private func figures(of ids: [UInt64], _ search: inout TreeSearch) throws -> [Figures] {
        var extents: [UInt64: Extent] = [:]
        var figures = [Figures](repeating: Figures(), count: ids.count)
        for (index, id) in ids.enumerated() {
            let own = Int32(index)
            try forEachExtent(of: id, &search) { start, length in
                guard var extent = extents[start] else {
                    extents[start] = Extent(length: length, owner: own, seen: own)
                    figures[index].referenced += length
                    return
                }
                if extent.seen == own { return }
                figures[index].referenced += length
                extent.seen = own
                extent.owner = -1
                extents[start] = extent
            }
        }
        for id in try subvolumes(besides: ids, &search) {
            try forEachExtent(of: id, &search) { start, _ in extents[start]?.owner = -1 }
        }
        for extent in extents.values where extent.owner >= 0 {
            figures[Int(extent.owner)].exclusive += extent.length
        }
        return figures
    }

    private func forEachExtent(
        of id: UInt64, _ search: inout TreeSearch, _ body: (_ start: UInt64, _ length: UInt64) -> Void
    ) throws {
        try search.forEachDataExtent(ofSubvolume: id) { start, length throws(BtrfsError) in
            if cancellation.isCancelled { throw BtrfsError(.search, path: .empty, errno: .canceled) }
            body(start, length)
        }
    }

    /// All others of the file system.
    private func subvolumes(besides own: [UInt64], _ search: inout TreeSearch) throws -> [UInt64] {
        let own = Set(own)
        // The top level is no entry of the tree of roots like the others.
        let all = [5] + (try search.subvolumes()).filter { !$0.isDeleted }.map(\.id)
        return all.filter { !own.contains($0) }
    }
}

/// What one chain takes on disk.
public struct ChainUsage: Sendable {
    /// The chain.
    public var name: ChainName
    /// Bytes of all that it holds.
    public var referenced: UInt64
    /// Bytes that would be freed if it alone were deleted.
    public var exclusive: UInt64

    package init(name: ChainName, referenced: UInt64, exclusive: UInt64) {
        self.name = name
        self.referenced = referenced
        self.exclusive = exclusive
    }
}

/// What a tree of a containerd's takes on disk.
package struct ContainerdTreeUsage: Sendable {
    /// Below the store's directory.
    package var path: BytePath
    package var containerd: String
    /// The snapshot whose tree it is; nil if no record names it.
    package var record: SnapshotRecord?
    /// Bytes of all that it holds.
    package var referenced: UInt64
    /// Bytes that would be freed if it alone were deleted.
    package var exclusive: UInt64
}

extension SnapshotStore {
    /// What the store's trees take on disk.
    package struct Usage: Sendable {
        /// By name.
        package var chains: [ChainUsage]
        /// Those that are more than a chain: what somebody writes to, and what was committed and is none.
        package var trees: [ContainerdTreeUsage]
        /// Whether the figures are those of quota groups.
        package var areQuotas: Bool
    }

    /// What the chains, and the trees of containerds, take on disk: see Docs/commands.md.
    package func usage() throws -> Usage {
        try requireTreeSearch("measure the chains of")
        let chains = try chains.all()
        var trees: [(ContainerdPlace, UInt64, SnapshotRecord?, id: UInt64)] = []
        for place in try ContainerdFolder(of: self).places() {
            let state = try place.state()
            let owners = state.records.lazy.filter { !$0.sharesTree }
            let records = Dictionary(owners.map { ($0.tree, $0) }) { first, _ in first }
            for number in state.trees {
                let record = records[number]
                let isChain = record.map { $0.kind != .active && $0.chain != nil } ?? false
                // It may be deleted just now.
                guard !isChain, let tree = try place.open(number),
                    let info = try tree.fd.subvolumeInfoIfPresent()
                else { continue }
                trees.append((place, number, record, info.id))
            }
        }
        let (figures, areQuotas) = try SpaceUsage(directory.fd, locks.cancellation).figures(
            of: chains.map(\.info.id) + trees.map(\.id))
        let usages = zip(chains, figures).map { chain, figures in
            ChainUsage(
                name: chain.name, referenced: figures.referenced, exclusive: figures.exclusive)
        }
        let others = zip(trees, figures.dropFirst(chains.count)).map { tree, figures in
            let (place, number, record, _) = tree
            return ContainerdTreeUsage(
                path: (place.trees?.name ?? .empty).appending(DaemonTrees.name(number)),
                containerd: place.id, record: record, referenced: figures.referenced,
                exclusive: figures.exclusive)
        }
        return Usage(chains: usages, trees: others, areQuotas: areQuotas)
    }
}
