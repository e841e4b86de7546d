import VarveBtrfs
package import VarveOCI
import VarveSystem

extension DaemonTrees {
    /// Whether a tree was made as a snapshot of a chain that the store holds; it may have been written to since.
    package func isSnapshot(_ number: UInt64, of chain: ChainID) throws -> Bool {
        guard let found = try store.chains.find(ChainName(chain)) else { return false }
        let tree = try open(number)
        return try tree.fd.subvolumeInfo().parentUUID == found.info.uuid
    }

    /// Whether a chain that the store holds can be what one layer makes of `below` (nil for nothing); also where the store does not say.
    package func canLie(_ chain: ChainID, on below: ChainID?) throws -> Bool {
        guard let found = try store.chains.find(ChainName(chain)),
            let layer = try ChainLayer.read(from: found.subvolume.fd, path)
        else { return true }
        return layer.chainID(on: below) == chain
    }

    /// The chain that a tree was made as a snapshot of; nil if the store holds none. It looks at all chains.
    package func chain(of number: UInt64) throws -> ChainID? {
        let tree = try open(number)
        guard let parent = try tree.fd.subvolumeInfo().parentUUID else { return nil }
        return try store.chains.find(withUUID: parent)?.name.chainID
    }
}
