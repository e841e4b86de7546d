import VarveBtrfs
import VarveSystem
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

    init(_ fileSystem: FileDescriptor) { self.fileSystem = fileSystem }

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
        return (try figures(ofGroups: ids.map { [$0] }, &search), false)
    }

    /// The bytes of extents that nothing but these subvolumes refers to.
    func exclusive(together ids: [UInt64]) throws -> UInt64 {
        if ids.isEmpty { return 0 }
        try fileSystem.commitTransaction()
        var search = TreeSearch(fileSystem)
        return try figures(ofGroups: [ids], &search)[0].exclusive
    }

    private struct Extent {
        var length: UInt64
        /// The group that refers to it; -1 for several, or one and another subvolume.
        var owner: Int32
        /// The last group that was found to refer to it.
        var seen: Int32
    }

    private func figures(ofGroups groups: [[UInt64]], _ search: inout TreeSearch) throws -> [Figures] {
        var extents: [UInt64: Extent] = [:]
        var figures = [Figures](repeating: Figures(), count: groups.count)
        for (index, ids) in groups.enumerated() {
            let group = Int32(index)
            for id in ids {
                try search.forEachDataExtent(ofSubvolume: id) { start, length in
                    guard var extent = extents[start] else {
                        extents[start] = Extent(length: length, owner: group, seen: group)
                        figures[index].referenced += length
                        return
                    }
                    if extent.seen == group { return }
                    figures[index].referenced += length
                    extent.seen = group
                    extent.owner = -1
                    extents[start] = extent
                }
            }
        }
        let own = Set(groups.joined())
        // The top level is no entry of the tree of roots like the others.
        let others = [5] + (try search.subvolumes()).filter { !$0.isDeleted }.map(\.id)
        for id in others where !own.contains(id) {
            try search.forEachDataExtent(ofSubvolume: id) { start, _ in extents[start]?.owner = -1 }
        }
        for extent in extents.values where extent.owner >= 0 {
            figures[Int(extent.owner)].exclusive += extent.length
        }
        return figures
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

extension SnapshotStore {
    /// What the chains take on disk, by name, and whether the figures are those of quota groups: see Docs/commands.md.
    package func usage() throws -> (chains: [ChainUsage], areQuotas: Bool) {
        try requireTreeSearch("measure the chains of")
        let chains = try chains.all()
        let (figures, areQuotas) = try SpaceUsage(directory.fd).figures(of: chains.map(\.info.id))
        let usages = zip(chains, figures).map { chain, figures in
            ChainUsage(
                name: chain.name, referenced: figures.referenced, exclusive: figures.exclusive)
        }
        return (usages, areQuotas)
    }
}
