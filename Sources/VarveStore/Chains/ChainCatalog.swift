package import VarveBtrfs
import Logging
import VarveLayers
import VarveOCI
import Synchronization
package import VarveSystem
import SystemPackage

/// A published chain, open.
package struct OpenChain: Sendable {
    package let name: ChainName
    /// The read-only subvolume; `rootfs/` is in it.
    package let subvolume: SharedDescriptor
    /// Settled (`settledSubvolumeInfo`), but for those of `ChainCatalog.all`.
    package let info: SubvolumeInfo

    /// The transaction that last changed what a chain holds which is used: later ones have changed nothing (`ChainFault`).
    var changeTransaction: UInt64 { min(info.changeTransaction, info.originTransaction) }
}

/// The chains of a store, `chains/`: which there are, and whether each is what was published under its name.
///
/// It makes none: that is `ChainBuilder`.
package final class ChainCatalog: Sendable {
    let directory: SubvolumeDirectory
    /// What the inodes of each chain were when it was published.
    let times: PublishedTimesFolder
    private let locks: StoreLocks
    private let pins: PinFolder
    private let logger: Logger
    /// Chains of which was said already that they are not used.
    private let warned = Mutex<[ChainName]>([])
    /// What chains said of their uppermost layers when they were looked at.
    let seen: SeenLayers

    /// By the names of the chains in `chains/`; nil for those that say nothing.
    final class SeenLayers: Sendable {
        fileprivate let layers = Mutex<[BytePath: ChainLayer?]>([:])
    }

    init(
        _ directory: SubvolumeDirectory, times: PublishedTimesFolder, locks: StoreLocks, pins: PinFolder,
        logger: Logger, seen: SeenLayers
    ) {
        self.directory = directory
        self.seen = seen
        self.times = times
        self.locks = locks
        self.pins = pins
        self.logger = logger
    }

    // MARK: Finding chains

    /// The chain of that name, leased: nobody collects it while the value lives. Nil if it is not published, or is not
    /// what was published any more; a warning says so.
    package func find(_ name: ChainName) throws -> OpenChain? {
        guard let subvolume = try leased(name) else { return nil }
        let chain = OpenChain(
            name: name, subvolume: subvolume, info: try subvolume.fd.settledSubvolumeInfo())
        guard let fault = try fault(of: chain) else { return chain }
        let isNew = warned.withLock { names in
            guard !names.contains(name) else { return false }
            names.append(name)
            return true
        }
        if isNew {
            logger.warning("the chain \(name) is not used, and built anew where it is needed: \(fault)")
        }
        return nil
    }

    /// The chain of the longest prefix that is published, and how many layers it has.
    ///
    /// - Parameter names: those of all prefixes, the shortest first.
    package func findLongest(of names: [ChainName]) throws -> (chain: OpenChain, layers: Int)? {
        for (index, name) in names.enumerated().reversed() {
            if let chain = try find(name) { return (chain, index + 1) }
        }
        return nil
    }

    /// The chain that a layer's blob makes of another, known without reading the blob, as that one was published by who had read this
    /// very blob; leased. Nil if there is none.
    ///
    /// It looks at each chain once in the life of the store that was opened, and after that at the names of all. A chain that another process has
    /// built anew in between, of another blob, may be passed over.
    ///
    /// - Parameter below: nil for nothing at all.
    func find(_ blob: Descriptor, on below: ChainID?) throws -> (chain: OpenChain, layer: ChainLayer)? {
        let entries = try directory.entries().map(\.name)
        let known = seen.layers.withLock { $0 }
        var layers: [BytePath: ChainLayer?] = [:]
        layers.reserveCapacity(entries.count)
        var candidate: (name: ChainName, layer: ChainLayer)?
        for entry in entries {
            let layer =
                try known[entry]
                ?? directory.subvolume(entry).flatMap { try ChainLayer.read(from: $0.fd, entry) }
            layers[entry] = .some(layer)
            guard let layer, layer.digest == blob.digest, layer.size == blob.size,
                let name = entry.string.flatMap({ ChainName($0) }), name.variant.isEmpty,
                name.chainID == layer.chainID(on: below)
            else { continue }
            candidate = (name, layer)
        }
        seen.layers.withLock { $0 = layers }
        guard let candidate, let chain = try find(candidate.name),
            try ChainLayer.read(from: chain.subvolume.fd, chain.name.path) == candidate.layer
        else { return nil }
        return (chain, candidate.layer)
    }

    /// The published chain whose subvolume has that UUID.
    package func find(withUUID uuid: SubvolumeUUID) throws -> OpenChain? {
        guard let found = try all().first(where: { $0.info.uuid == uuid }) else { return nil }
        return try find(found.name)
    }

    /// All published chains, by name, those not to be trusted as well; none is leased. What is in `chains/` under another
    /// name than a chain's, or is no subvolume, is passed over.
    package func all() throws -> [OpenChain] {
        try names().compactMap { name in
            guard let subvolume = try directory.subvolume(name.path),
                let info = try subvolume.fd.subvolumeInfoIfPresent()
            else { return nil }
            return OpenChain(name: name, subvolume: subvolume, info: info)
        }
    }

    /// The names of chains in `chains/`, whatever bears them.
    private func names() throws -> [ChainName] {
        try directory.entries().map(\.name).sorted().compactMap { $0.string.flatMap { ChainName($0) } }
    }

    /// What bears the name of a chain.
    package struct Listed: Sendable {
        package let name: ChainName
        /// Nil for what is no subvolume.
        package let info: SubvolumeInfo?
        /// Why no command uses it, a sentence; nil if it is used.
        package let reasonNotToUse: String?
    }

    /// All that bears the name of a chain, by name.
    package func list() throws -> [Listed] {
        try names().compactMap { name in
            guard let occupant = try directory.occupant(of: name.path) else { return nil }
            guard case .subvolume(let subvolume) = occupant else {
                return Listed(name: name, info: nil, reasonNotToUse: occupant.fault?.description)
            }
            let chain = OpenChain(
                name: name, subvolume: subvolume, info: try subvolume.fd.settledSubvolumeInfo())
            return Listed(name: name, info: chain.info, reasonNotToUse: try fault(of: chain)?.description)
        }
    }

    // MARK: Snapshots of chains

    /// Makes a snapshot of a chain, a writable one unless it is told otherwise: what it holds is what was published, or this fails.
    ///
    /// Root can make a chain writable, open a file and go on writing to it whatever becomes of the flag. The snapshot has
    /// its source's `ctransid` of the moment at which it was taken (`create_pending_snapshot`, fs/btrfs/transaction.c), and by
    /// then all data of the source was written out. So if that is the one that the chain was found unchanged with, the snapshot is.
    func snapshot(
        of chain: OpenChain, to directory: FileDescriptor, _ name: BytePath, readOnly: Bool = false
    ) throws {
        try chain.subvolume.fd.snapshot(to: directory, name, readOnly: readOnly)
        let made = try attempt("open the snapshot of the chain", chain.name.path) { () throws(Errno) in
            try directory.openDirectory(name)
        }
        guard try made.fd.subvolumeInfo().changeTransaction != chain.info.changeTransaction else { return }
        // Deduplication changes it too.
        let now = OpenChain(
            name: chain.name, subvolume: chain.subvolume,
            info: try chain.subvolume.fd.settledSubvolumeInfo())
        guard let fault = try fault(of: now) else { return }
        try SubvolumeDirectory.delete(name, in: directory)
        throw VarveError(
            .failed, "the chain \(chain.name) was written to while it was used: \(fault)",
            subject: chain.name.path,
            remedy: .tryAgain)
    }

    // MARK: Removal

    /// Deletes a chain. Bundles and chains made from it stay: they are snapshots, not references.
    ///
    /// - Throws: `VarveError`: `notFound` if there is none of that name; `failed` while somebody uses it, has it or something of it
    ///   mounted, or has pinned it.
    package func remove(_ name: ChainName) throws {
        try remove(name, evenIfPinned: false)
    }

    /// - Parameter evenIfPinned: for a chain that is not to be trusted, which helps nobody.
    func remove(_ name: ChainName, evenIfPinned: Bool) throws {
        try locks.withRemovalLock(on: name) {
            guard let chain = try directory.open(name.path) else {
                throw VarveError(
                    .notFound, "the store in \"\(directory.store)\" has no chain \(name)", subject: name.path,
                    remedy: .listChains)
            }
            guard
                try attempt(
                    "lock the chain", name.path, { () throws(Errno) in try chain.fd.tryLock(.exclusive) })
            else {
                throw VarveError(
                    .failed, "the chain \(name) is in use by another command", subject: name.path,
                    remedy: .tryAgainLater)
            }
            if !evenIfPinned, let pin = try pins.all().first(where: { $0.chain == name }) {
                throw VarveError(
                    .failed, "the chain \(name) is kept for \"\(pin.owner)\"", subject: name.path,
                    remedy: .follow("remove there what is made of it"))
            }
            try directory.deleteUnused(name.path, "the chain \(name)", locks.cancellation)
            extendLifetime(chain)
        }
    }

    // MARK: Leases

    // A chain that somebody works with is not collected under them. A lease is a shared flock(2) on the chain's own
    // directory, held for as long as it is open; who deletes it takes an exclusive one. The kernel ends a lease with its
    // process.

    /// The chain's subvolume, leased; nil if there is none. Waits while somebody is about to delete it.
    func leased(_ name: ChainName) throws -> SharedDescriptor? {
        while true {
            guard let subvolume = try directory.open(name.path) else { return nil }
            let isThere = try attempt("lock the chain", name.path) { () throws(Errno) in
                try subvolume.fd.lock(.shared, locks.cancellation)
                return try isNamed(subvolume, name)
            }
            if isThere { return subvolume }
        }
    }

    /// The chain's subvolume, which nobody else can get hold of while the value lives; nil if there is none, or somebody
    /// has it now.
    func unleased(_ name: ChainName) throws -> SharedDescriptor? {
        guard let subvolume = try directory.open(name.path) else { return nil }
        let isOurs = try attempt("lock the chain", name.path) { () throws(Errno) in
            guard try subvolume.fd.tryLock(.exclusive) else { return false }
            return try isNamed(subvolume, name)
        }
        return isOurs ? subvolume : nil
    }

    /// Whether it was not deleted, and perhaps built anew, since it was opened.
    private func isNamed(_ subvolume: SharedDescriptor, _ name: ChainName) throws(Errno) -> Bool {
        let status = try subvolume.fd.status()
        let current = try directory.fd.statusIfPresent(of: name.path)
        return current?.device == status.device && current?.inode == status.inode
    }
}
