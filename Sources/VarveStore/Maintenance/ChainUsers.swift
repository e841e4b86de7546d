import Glibc
import VarveBtrfs
import VarveSystem
import SystemPackage

/// Which chains something that exists descends from: every bundle, snapshot and work subvolume, wherever it lies on the
/// file system and whether or not it can be reached through a mount. For others than root, who may not search the trees: what lies
/// below the mount that holds the store, and may be read.
struct ChainUsers {
    /// What has a subvolume made from it that is no chain.
    private var parents: Set<SubvolumeUUID> = []
    /// What a bundle's attribute names: one that was restored from a snapshot is no longer a child of its chain. And what is
    /// pinned.
    private var names: Set<ChainName> = []
    /// What the store keeps of bundles that do not exist any more: it needs nothing.
    private(set) var orphans: [(name: BytePath, id: UInt64)] = []

    /// - Parameter chains: the subvolumes that are chains, which do not count as users of each other here.
    init(of store: SnapshotStore, besides chains: [OpenChain]) throws {
        names.formUnion(try store.pins.all().map(\.chain))
        let unasked = Set(chains.map(\.info.id))
        if try store.maySearchTrees() {
            try addAll(of: store, besides: chains)
        } else {
            // What is not seen may be a bundle all the same, so of no state of one can be said that nothing needs it: no orphans.
            try addVisible(of: store, besides: unasked)
        }
    }

    /// Anybody may make subvolumes, and name chains on them. What is another user's counts only as far as a delta of it would believe it
    /// (`SnapshotStore.base`): for the chains that it comes from by snapshots.
    private mutating func addAll(of store: SnapshotStore, besides chains: [OpenChain]) throws {
        let fileSystem = store.directory.fd
        let keeper = try attempt("look at", store.path) { () throws(Errno) in try fileSystem.status().uid }
        let uuids = Dictionary(chains.map { ($0.name, $0.info.uuid) }) { first, _ in first }
        // A subvolume that was deleted is so in the tree of roots only after the next commit.
        try fileSystem.commitTransaction()
        var search = TreeSearch(fileSystem)
        let alive = try search.subvolumes().filter { !$0.isDeleted }
        orphans = try Self.orphans(of: store, Set(alive.map(\.uuid)))
        let unasked = Set(chains.map(\.info.id) + orphans.map(\.id))
        for root in alive where !unasked.contains(root.id) {
            if let parent = root.parentUUID { parents.insert(parent) }
            guard let attribute = try search.rootAttribute(StoreLayout.chainAttribute, ofSubvolume: root.id),
                let owner = try search.rootOwner(ofSubvolume: root.id)
            else { continue }
            let named = ChainRecords(attribute).chains
            if [0, geteuid(), keeper].contains(owner) {
                names.formUnion(named)
                continue
            }
            let ancestors = BundleAncestors(
                try search.rootAttribute(StoreLayout.ancestorsAttribute, ofSubvolume: root.id) ?? [])
            names.formUnion(
                named.filter { name in
                    uuids[name].map { ancestors.lead(from: root.uuid, root.parentUUID, to: $0) } ?? false
                })
        }
    }

    private mutating func addVisible(of store: SnapshotStore, besides chains: Set<UInt64>) throws {
        var (parents, names) = (parents, names)
        let look = { (root: FileDescriptor, info: SubvolumeInfo) throws(BtrfsError) -> Void in
            if chains.contains(info.id) { return }
            if let parent = info.parentUUID { parents.insert(parent) }
            do throws(Errno) {
                let attribute = try root.extendedAttribute(StoreLayout.chainAttribute)
                names.formUnion(ChainRecords(attribute ?? []).chains)
            } catch {
                // What may not be read is not seen.
                guard error == .permissionDenied else {
                    throw BtrfsError(.readInfo, path: (try? root.path()) ?? .current, errno: error)
                }
            }
        }
        let above = try attempt("look above", store.path) { () throws(Errno) in
            try store.directory.fd.outermostSubvolume()
        }
        if let above {
            try above.fd.forEachVisibleSubvolume { (found, info) throws(BtrfsError) in
                try look(found.fd, info)
            }
        }
        // These are the store's, also where the mount begins in the middle of a subvolume.
        for name in [StoreLayout.snapshots, StoreLayout.refreshed, StoreLayout.work, StoreLayout.bundles] {
            let shown = store.path.appending(name)
            func open(_ name: BytePath, in directory: FileDescriptor) throws -> SharedDescriptor? {
                try attempt("open", shown) { () throws(Errno) -> SharedDescriptor? in
                    do throws(Errno) {
                        return SharedDescriptor(try directory.openDirectory(name))
                    } catch  where error.isAbsence {
                        return nil
                    } catch .permissionDenied {
                        return nil
                    }
                }
            }
            guard let opened = try open(name, in: store.directory.fd) else { continue }
            let entries = try attempt("list", shown) { () throws(Errno) in try opened.fd.entries() }
            for entry in entries {
                guard let found = try open(entry.name, in: opened.fd),
                    let info = try found.fd.subvolumeInfoIfPresent()
                else { continue }
                try look(found.fd, info)
            }
        }
        (self.parents, self.names) = (parents, names)
    }

    private static func orphans(of store: SnapshotStore, _ alive: Set<SubvolumeUUID>) throws -> [(
        name: BytePath, id: UInt64
    )] {
        var result: [(BytePath, UInt64)] = []
        for entry in try store.refreshedDirectory.entries() {
            // `UUID-HEX`; what is named otherwise is not the store's.
            guard let text = entry.name.string, let bundle = SubvolumeUUID(text.prefix(36)),
                !alive.contains(bundle), let opened = try store.refreshedDirectory.subvolume(entry.name),
                let info = try opened.fd.subvolumeInfoIfPresent()
            else { continue }
            result.append((entry.name, info.id))
        }
        return result
    }

    func contains(_ chain: OpenChain) -> Bool {
        parents.contains(chain.info.uuid) || names.contains(chain.name)
    }
}
