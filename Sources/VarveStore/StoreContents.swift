import VarveOCI
package import VarveSystem
import SystemPackage

/// What a store holds, for a listing: each chain with what it lies on, the images that are known to have it, and its bundles.
package struct StoreContents {
    package struct Chain {
        package let listed: ChainCatalog.Listed
        /// The chain that it was made on top of.
        package let below: ChainName?
        /// What is known of it on disk; nil for others than root.
        package var usage: ChainUsage?
        /// The images in the store's own layout that have it, by their tags or by where they came from.
        package var images: [String] = []
        /// The bundles that came from it, by their paths.
        package var bundles: [BytePath] = []
        package var name: ChainName { listed.name }
    }

    /// By name.
    package private(set) var chains: [Chain]

    /// - Parameter isBrief: without sizes, images and bundles.
    package init(of store: SnapshotStore, isBrief: Bool = false) throws {
        chains = try store.chains.list().map { listed in
            let subvolume = listed.info == nil ? nil : try store.chains.directory.subvolume(listed.name.path)
            let record = try subvolume.flatMap {
                try PublicationRecord.read(from: $0.fd, listed.name.path)
            }
            return Chain(listed: listed, below: record?.below)
        }
        if isBrief { return }
        let places = Dictionary(chains.enumerated().map { ($1.name, $0) }) { first, _ in first }
        // Only root may see all subvolumes; a listing is of use without.
        if let usage = try? store.usage() {
            for chain in usage.chains { if let place = places[chain.name] { chains[place].usage = chain } }
        }
        let bundles = try? store.bundles()
        try store.locks.cancellation.check()
        for bundle in bundles ?? [] {
            if let path = bundle.path, let place = bundle.chain.flatMap({ places[$0] }) {
                chains[place].bundles.append(path)
            }
        }
        for (name, chainID) in try Self.images(of: store) {
            for place in chains.indices where chains[place].name.chainID == chainID {
                if !chains[place].images.contains(name) { chains[place].images.append(name) }
            }
        }
    }

    /// The images in the store's own layout, and the chain of each.
    private static func images(of store: SnapshotStore) throws -> [(name: String, chain: ChainID)] {
        guard let layout = try store.imagesIfPresent() else { return [] }
        var result: [(String, ChainID)] = []
        // A document that cannot be read says nothing of a chain.
        try? layout.selection(of: nil).forEach { image in
            guard let chain = image.chainIDs.last, let entry = image.path.first else { return }
            if let name = entry.referenceName ?? entry.annotation("varve.source") {
                result.append((name, chain))
            }
        }
        return result
    }

    /// The chains as they lie on each other, each behind the one below it, with its depth.
    package var tree: [(chain: Chain, depth: Int)] {
        var above: [ChainName?: [Chain]] = [:]
        let names = Set(chains.map(\.name))
        for chain in chains {
            let below = chain.below.flatMap { names.contains($0) ? $0 : nil }
            above[below, default: []].append(chain)
        }
        var result: [(Chain, Int)] = []
        var pending = (above[nil] ?? []).reversed().map { ($0, 0) }
        var seen: Set<ChainName> = []
        while let (chain, depth) = pending.popLast() {
            guard seen.insert(chain.name).inserted else { continue }
            result.append((chain, depth))
            pending += (above[chain.name] ?? []).reversed().map { ($0, depth + 1) }
        }
        // What is damaged may go round in circles, and is below nothing.
        for chain in chains where !seen.contains(chain.name) { result.append((chain, 0)) }
        return result
    }
}
