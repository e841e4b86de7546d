import BtrfsSendStream
import VarveOCI
import Synchronization

/// Layers that were written of trees that are still there.
///
/// What such a layer makes of the tree that the other was compared with is known without reading it: the tree that it was written of. It is
/// among these only where a layer carries all that the two differ in, as for a repack's chain (`AdoptionObstacle`).
///
/// All is in memory: after a start of the daemon, a layer is read and applied like any other.
final class WrittenLayers: Sendable {
    /// What a tree was compared with.
    enum Base: Hashable, Sendable {
        case nothing
        /// A chain, and the subvolume that it was.
        case chain(ChainID, SubvolumeUUID)
        /// Another tree, which may have become a chain since (`isChain`).
        case tree(UInt64)
    }

    struct Entry: Sendable {
        var base: Base
        var tree: UInt64
        /// The transaction from which on the tree differs from its base.
        var since: UInt64
        var layer: ChainLayer
    }

    /// A layer that was written of a tree, and what is known of the chain that it is asked for on.
    struct Match: Sendable {
        var entry: Entry
        /// The chain whose inodes the tree carries on; nil where it is not known to be there.
        var below: SubvolumeUUID?
    }

    private struct State {
        /// The oldest first.
        var entries: [Entry] = []
        /// Trees that are what a chain is; the subvolume of that, if it has the inodes of the tree.
        var chains: [UInt64: (chain: ChainID, subvolume: SubvolumeUUID?)] = [:]

        /// What a base is as a chain; nil if it is not known to be one.
        func chain(_ base: Base) -> (chain: ChainID?, subvolume: SubvolumeUUID?)? {
            switch base {
            case .nothing: (nil, nil)
            case .chain(let chain, let subvolume): (chain, subvolume)
            case .tree(let number): chains[number].map { ($0.chain, $0.subvolume) }
            }
        }
    }

    /// A build has some tens of layers.
    static let limit = 1024

    private let state = Mutex(State())

    func add(_ entry: Entry) {
        state.withLock { state in
            state.entries.removeAll { $0.tree == entry.tree && $0.layer.digest == entry.layer.digest }
            if state.entries.count == Self.limit { state.entries.removeFirst() }
            state.entries.append(entry)
        }
    }

    /// What a blob that is to be put onto a chain, nil for nothing, was written of.
    func find(_ blob: Descriptor, on base: ChainID?) -> Match? {
        find(on: base) { $0.layer.digest == blob.digest && $0.layer.size == blob.size }
    }

    /// What makes a chain of the one below it.
    func find(_ chain: ChainID, on base: ChainID?) -> Match? {
        find(on: base) { $0.layer.chainID(on: base) == chain }
    }

    private func find(on base: ChainID?, _ matches: (Entry) -> Bool) -> Match? {
        state.withLock { state in
            for entry in state.entries.reversed() where matches(entry) {
                if let below = state.chain(entry.base), below.chain == base {
                    return Match(entry: entry, below: below.subvolume)
                }
            }
            return nil
        }
    }

    /// The tree is what that chain is.
    ///
    /// - Parameter subvolume: of the chain, if that is a copy of the tree; nil if it was built of the layers.
    func isChain(_ tree: UInt64, _ chain: ChainID, _ subvolume: SubvolumeUUID?) {
        state.withLock { $0.chains[tree] = (chain, subvolume) }
    }

    /// The tree is no more, or is another one.
    func forget(_ tree: UInt64) {
        state.withLock { state in
            state.entries.removeAll { $0.tree == tree }
            state.chains[tree] = nil
        }
    }
}
