import Logging
import VarveBtrfs
package import VarveOCI
import VarveSystem

/// Chains that are trees already: a layer that this daemon wrote of a tree, and that now comes back to be applied, is not read. A build writes
/// each layer of a tree that it keeps, and has it unpacked a moment later.
extension DaemonTrees {
    /// Remembers that a layer was written.
    ///
    /// - Parameters:
    ///   - layer: as `pack` has returned it.
    ///   - blob: where it was written to.
    package func remember(_ layer: PackedLayer, _ blob: Descriptor) {
        guard let origin = layer.origin else { return }
        written.add(
            WrittenLayers.Entry(
                base: origin.base, tree: origin.tree, since: origin.since,
                layer: ChainLayer(blob, diffID: layer.diffID, archiveSize: layer.size)))
    }

    /// Makes a chain of the tree that its uppermost layer was written of. False if none is known for it.
    package func adopt(_ chain: ChainID, on base: ChainID?) throws -> Bool {
        guard let match = written.find(chain, on: base) else { return false }
        var below: OpenChain?
        if let base {
            below = try store.chains.find(ChainName(base))
            if below == nil { return false }
        }
        return try adopt(match, on: below, in: store) != nil
    }

    /// The tree as a chain; nil if it is not as it was, or not there. It is copied (a snapshot), and stays what it is.
    func adopt(_ match: WrittenLayers.Match, on below: OpenChain?, in store: SnapshotStore) throws
        -> OpenChain?
    {
        let entry = match.entry
        guard let tree = try unchanged(entry.tree) else {
            written.forget(entry.tree)
            return nil
        }
        let chain = entry.layer.chainID(on: below?.name.chainID)
        var original = ChainBuilder.Original(tree)
        // A chain of the same layers that was built anew has other inodes.
        if let below, below.info.uuid == match.below {
            original = ChainBuilder.Original(tree, below: below, since: entry.since)
        }
        let builder = ChainBuilder(in: store, for: rootfs(of: entry.tree), copying: original)
        var isCopy = false
        let built = try builder.build(ChainName(chain), layer: entry.layer) {
            isCopy = try builder.leaveOnlyRootfs()
            return isCopy
        }
        guard let built else { return nil }
        written.isChain(entry.tree, chain, isCopy ? built.info.uuid : nil)
        store.logger.debug("the tree \(entry.tree) is what the chain \(chain) is")
        return built
    }

    /// A tree that is read-only, and as it was made; nil if it is not, or not there.
    private func unchanged(_ number: UInt64) throws -> SharedDescriptor? {
        guard let tree = try? open(number), try tree.fd.isReadOnlySubvolume(), try isUnchanged(tree) else {
            return nil
        }
        return tree
    }
}
