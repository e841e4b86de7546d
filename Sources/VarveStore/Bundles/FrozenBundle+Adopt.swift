import BtrfsSendStream
import VarveBtrfs
import Logging
import VarveLayers
import VarveOCI
import VarveSystem
import SystemPackage

/// A repack's new chain as a snapshot of the bundle itself, which neither reads the new layer nor writes a byte of it a
/// second time.
///
/// The layer holds exactly what the frozen tree differs in from the chain below it (Docs/delta.md), so that chain with
/// the layer applied is the frozen tree, as far as an image can say what a tree is. This here looks after what an image
/// cannot say, and what must not get into a chain: flags of inodes (chattr(1), properties of btrfs), sockets, nested
/// subvolumes, files beside `rootfs/`. Wherever it is not sure, there is an `AdoptionObstacle`, and the layer is applied as in an unpack.
extension BtrfsFrozenBundle {
    /// Flags of linux/btrfs_tree.h that the kernel sets by itself and that mean nothing to who reads the file: NOCOMPRESS
    /// (compressing it did not pay) and PREALLOC (it has or had room reserved).
    private static let harmlessFlags: UInt64 = 1 << 3 | 1 << 4

    func adopt(chainIDs: [ChainID], options: ApplyOptions) throws -> Bool {
        var obstacle: AdoptionObstacle?
        switch try below(chainIDs, options) {
        case .none(let reason): obstacle = reason
        case .chain(let chain, let since):
            obstacle = try self.obstacle(since: since)
            guard obstacle == nil, let name = chainIDs.last.map({ ChainName($0) }) else { break }
            let builder = ChainBuilder(
                in: store, for: bundle.path,
                copying: ChainBuilder.Original(frozen.subvolume, below: chain, since: since))
            published = try builder.build(name, whileWaiting: { try cancellation.check() }) {
                if try !leaveOnlyRootfs(try builder.subvolume()) { obstacle = .otherEntries }
                return obstacle == nil
            }
        }
        guard let obstacle else { return true }
        store.logger.debug("the bundle's own tree does not become the chain: \(obstacle)")
        return false
    }

    private enum Below {
        /// The bundle descends from the chain, and differs from it only in what was changed since that transaction.
        case chain(SubvolumeUUID, since: UInt64)
        case none(AdoptionObstacle)
    }

    private func below(_ chainIDs: [ChainID], _ options: ApplyOptions) throws -> Below {
        if options != ApplyOptions() { return .none(.options) }
        guard let below = chainIDs.dropLast().last, let chain = try store.chains.find(ChainName(below)) else {
            return .none(.noChainBelow)
        }
        // A refreshed bundle's base is the tree that it had then, masked paths included.
        guard try chain.info.uuid == base.subvolume.fd.subvolumeInfo().uuid else { return .none(.otherBase) }
        var info = chain.info
        info.changeTransaction = chain.changeTransaction
        let lineage = Lineage.of(old: info, new: bundle.info) { uuid in
            frozen.origins.first { $0.uuid == uuid } ?? (try? frozen.subvolume.fd.subvolume(withUUID: uuid))
        }
        guard case .descends(let since) = lineage else { return .none(.otherBase) }
        return .chain(info.uuid, since: since)
    }

    /// Why the frozen tree is not the chain below it and its delta; nil if it is, and holds nothing that a layer cannot carry.
    private func obstacle(since: UInt64) throws -> AdoptionObstacle? {
        var search = TreeSearch(frozen.subvolume.fd)
        var isPlain = true
        var hasSubvolumes = false
        do throws(BtrfsError) {
            // Of the frozen tree itself: the bundle may have had a nested subvolume at that moment alone, and an empty directory
            // stands in the snapshot for it.
            try search.forEachInode(changedSince: since, onSubvolume: { hasSubvolumes = true }) { inode in
                // Sockets are in no delta and no layer.
                if inode.flags & ~Self.harmlessFlags != 0 || inode.type == .socket { isPlain = false }
            }
        } catch {
            if error.errno == .notPermitted || error.errno == .permissionDenied { return .unsearchable }
            throw error
        }
        if hasSubvolumes { return .nestedSubvolumes }
        return isPlain ? nil : .uncarried
    }

    /// Takes away what a chain does not have: the files that make it a bundle. False if there is something else.
    private func leaveOnlyRootfs(_ root: SharedDescriptor) throws -> Bool {
        try attempt("empty a snapshot of", bundle.path) { () throws(Errno) in
            for entry in try root.fd.entries() where entry.name != StoreLayout.rootfs {
                guard try root.fd.status(of: entry.name).isRegular else { return false }
                try root.fd.unlink(entry.name)
            }
            // Chains are alike, whatever the permissions of bundles are.
            try root.fd.changeMode(to: 0o755)
            // Those of the chain below say what the new one was made on top of.
            for attribute in try root.fd.extendedAttributeNames()
            where !StoreLayout.chainAttributes.contains(attribute) {
                guard StoreLayout.bundleAttributes.contains(attribute) else { return false }
                try root.fd.removeExtendedAttribute(attribute)
            }
            return true
        }
    }
}
