import VarveBtrfs
public import VarveOCI
public import VarveSystem
import Glibc
import SystemPackage

/// A bundle of the btrfs driver, as it is found on the file system of a store.
public struct StoredBundle: Sendable, Hashable, CustomStringConvertible {
    /// Where it lies; nil where the mount of the store does not lead to it.
    public var path: BytePath?
    /// The number of its subvolume.
    package var subvolumeID: UInt64
    /// The tag of its image when it was unpacked or repacked last.
    package var tag: String?
    /// The chain that it came from; nil for an image with no layers.
    public var chain: ChainName?
    /// The manifest of its image; nil where its `umoci.json` cannot be read.
    public var manifest: Digest?
    /// When its subvolume was made; nil where it cannot be opened.
    public var created: Timestamp?

    package init(
        path: BytePath?, subvolumeID: UInt64, chain: ChainName?, manifest: Digest? = nil,
        created: Timestamp? = nil
    ) {
        self.path = path
        self.subvolumeID = subvolumeID
        self.chain = chain
        self.manifest = manifest
        self.created = created
    }

    public var description: String {
        (path.map(\.description) ?? "subvolume \(subvolumeID), not below the mount of the store")
            + (chain.map { " of \($0)" } ?? "")
    }
}

extension SnapshotStore {
    /// The bundles of the btrfs driver that lie on the file system of the store, by path: every subvolume that bears the name
    /// of the chain that it came from, wherever it lies, but for what the store keeps itself. Bundles of other stores on the
    /// same file system are among them.
    ///
    /// - Throws: `VarveError`, kind `unsupported`, for others than root; `interrupted`.
    package func bundles() throws -> [StoredBundle] {
        try requireTreeSearch("list the bundles of")
        // Who was deleted, and who was made, is in the tree of roots only after the next commit.
        try directory.fd.commitTransaction()
        var search = TreeSearch(directory.fd)
        let inode = try attempt("look at", path) { () throws(Errno) in try directory.fd.status().inode }
        let here = try search.names(toSubvolume: directory.fd.subvolumeInfo().id, directory: inode) ?? []
        var result: [StoredBundle] = []
        var ways = SubvolumeWays()
        for root in try search.subvolumes() where !root.isDeleted {
            try locks.cancellation.check()
            guard let attribute = try search.rootAttribute(StoreLayout.chainAttribute, ofSubvolume: root.id)
            else { continue }
            let records = ChainRecords(attribute)
            guard !records.isEmpty,
                let found = try search.names(toSubvolume: root.id, &ways, limit: Int(PATH_MAX))
            else { continue }
            guard let names = found else {
                // No path leads that far.
                result.append(StoredBundle(path: nil, subvolumeID: root.id, chain: records.current))
                continue
            }
            let isOwn =
                names.starts(with: here) && names.count > here.count
                && StoreLayout.directories.contains(names[here.count])
            if !isOwn { result.append(bundle(root.id, records, names, from: here)) }
        }
        return result.sorted { ($0.path ?? .empty) < ($1.path ?? .empty) }
    }

    /// What would be freed if one of these bundles alone were deleted, in bytes on disk.
    package func exclusiveBytes(of bundles: [StoredBundle]) throws -> [UInt64] {
        try SpaceUsage(directory.fd, locks.cancellation).figures(of: bundles.map(\.subvolumeID)).figures.map(
            \.exclusive)
    }

    private func bundle(
        _ id: UInt64, _ records: ChainRecords, _ names: [BytePath], from here: [BytePath]
    ) -> StoredBundle {
        let found = StoredBundle(path: nil, subvolumeID: id, chain: records.current)
        let common = zip(names, here).prefix { $0 == $1 }.count
        let way =
            Array(repeating: BytePath(".."), count: here.count - common) + names[common...]
        // Above the root of the mount `..` leads to another file system, where this is something else or nothing.
        guard let opened = try? directory.fd.open(BytePath(joining: way), [.directory, .noFollow]),
            let info = try? opened.fd.subvolumeInfo(), info.id == id,
            (try? opened.fd.fileSystemUUID()) == (try? directory.fd.fileSystemUUID()),
            let path = try? opened.fd.path()
        else { return found }
        let bytes = try? opened.fd.readFile(BundleMetadata.fileName, limit: BundleMetadata.limit)
        let metadata = bytes.flatMap { try? BundleMetadata(parsing: $0, of: path) }
        let manifest = metadata?.path.last?.digest
        var chain = records.current
        if case .chain(let name) = manifest.flatMap({ records.base(for: $0) }) { chain = name }
        var bundle = StoredBundle(
            path: path, subvolumeID: id, chain: chain, manifest: manifest, created: info.originTime)
        bundle.tag = metadata?.path.first?.referenceName
        return bundle
    }
}
