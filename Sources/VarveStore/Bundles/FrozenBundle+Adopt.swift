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
    func adopt(chainIDs: [ChainID], options: ApplyOptions) throws -> Bool {
        var obstacle: AdoptionObstacle?
        switch try below(chainIDs, options) {
        case .none(let reason): obstacle = reason
        case .chain(let chain, let since):
            obstacle = try AdoptionObstacle.ofTree(frozen.subvolume.fd, since: since)
            guard obstacle == nil, let name = chainIDs.last.map({ ChainName($0) }) else { break }
            let builder = ChainBuilder(
                in: store, for: bundle.path,
                copying: ChainBuilder.Original(frozen.subvolume, below: chain, since: since))
            published = try builder.build(name, whileWaiting: { try cancellation.check() }) {
                if try !builder.leaveOnlyRootfs() { obstacle = .otherEntries }
                return obstacle == nil
            }
        }
        guard let obstacle else { return true }
        store.logger.debug("the bundle's own tree does not become the chain: \(obstacle)")
        return false
    }

    private enum Below {
        /// The bundle descends from the chain, and differs from it only in what was changed since that transaction.
        case chain(OpenChain, since: UInt64)
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
        let lineage = Lineage.of(old: info, new: bundle.info, isUndisturbed: true) { uuid in
            frozen.origins.first { $0.uuid == uuid } ?? (try? frozen.subvolume.fd.subvolume(withUUID: uuid))
        }
        guard case .descends(let since) = lineage else { return .none(.otherBase) }
        return .chain(chain, since: since)
    }
}
