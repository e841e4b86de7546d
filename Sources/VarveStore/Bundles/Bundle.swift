import Glibc
import VarveBtrfs
import BtrfsSendStream
import VarveLayers
import Logging
import VarveOCI
package import VarveSystem
import SystemPackage

// A bundle of the btrfs driver is an active tree with `config.json` and `umoci.json` beside `rootfs/`.

extension SnapshotStore {
    /// Opens a bundle that this store made.
    package func openBundle(_ path: BytePath) throws -> ActiveTree {
        let noBundle = VarveError(
            .notFound, "\"\(path)\" is not a bundle of the btrfs driver (a subvolume with rootfs/ in it)",
            subject: path)
        let subvolume: SharedDescriptor
        do throws(PlaceError) {
            subvolume = SharedDescriptor(try Place.directory(path, .safeLinks))
        } catch {
            if error.errno == .noSuchFileOrDirectory { throw OpenBundle.isMissing(path) }
            if error.errno == .notDirectory { throw noBundle }
            throw VarveError(error, "open the bundle", path)
        }
        let rootfs = try attempt("open the bundle", path) { () throws(Errno) in
            try subvolume.fd.statusIfPresent(of: StoreLayout.rootfs)
        }
        guard rootfs?.isDirectory == true, try subvolume.fd.isSubvolume() else { throw noBundle }
        return try ActiveTree(subvolume, at: path)
    }

    /// What a bundle came from: the state that a refresh kept, else the chain that its attribute names for the image in
    /// its `umoci.json`, else, if it has no attribute, the chain that is its subvolume's parent.
    ///
    /// - Parameter metadata: what its `umoci.json` says; nil if it has none.
    func base(of bundle: ActiveTree, _ metadata: BundleMetadata?) throws -> StillTree {
        let manifest = metadata?.path.last?.digest
        if let manifest, let kept = try refreshedDirectory.open(keptName(bundle, manifest)) {
            let info = try kept.fd.settledSubvolumeInfo()
            guard let fault = try chains.times.changeFault(kept.fd, info, onlyRootfs: true) else {
                return StillTree(kept, state: .proven(info))
            }
            // The image of the refresh has a chain of its own, which the bundle's attribute names.
            logger.warning("the state kept of the bundle \"\(bundle.path)\" is not used: \(fault)")
        }
        let records = try chainRecords(of: bundle)
        switch manifest.flatMap({ records.base(for: $0) }) {
        case .empty: return try emptyBase(metadata?.apply.owners ?? OwnerMapping())
        case .chain(let name):
            if let chain = try chains.find(name) {
                if try !isKnown(bundle, toDescendFrom: chain) {
                    try requireTrusted(bundle.subvolume.fd, bundle.path)
                }
                return StillTree(chain)
            }
        case nil:
            // A snapshot of a chain says so. Another bundle may have been made on top of it.
            if records.isEmpty, let uuid = bundle.info.parentUUID,
                let parent = try chains.find(withUUID: uuid),
                try PublicationRecord.read(from: bundle.subvolume.fd, bundle.path)?.name == parent.name
            {
                return StillTree(parent)
            }
        }
        throw VarveError(
            .notFound,
            "the store \"\(path)\" does not hold the chain that the bundle \"\(bundle.path)\" came from",
            subject: bundle.path, remedy: .nameStoreOfBundle
        )
    }

    /// What a copy of a bundle came from: the chain that the attribute names which was copied with it.
    func base(ofCopy bundle: OpenBundle, of manifest: Digest) throws -> StillTree {
        let attribute = try attempt("read the attributes of", bundle.path) { () throws(Errno) in
            try bundle.directory.fd.extendedAttribute(StoreLayout.chainAttribute) ?? []
        }
        switch ChainRecords(attribute).base(for: manifest) {
        case .empty:
            let file = bundle.path.appending(BundleMetadata.fileName)
            let bytes = try attempt("read", file) { () throws(Errno) in
                try bundle.directory.fd.readFile(BundleMetadata.fileName, limit: BundleMetadata.limit)
            }
            return try emptyBase(BundleMetadata(parsing: bytes, of: file).apply.owners)
        case .chain(let name):
            if let chain = try chains.find(name) {
                try requireTrusted(bundle.directory.fd, bundle.path)
                return StillTree(chain)
            }
        case nil: break
        }
        throw VarveError(
            .notFound,
            "the store \"\(path)\" does not hold the chain that the bundle came from of which \"\(bundle.path)\" is a copy",
            subject: bundle.path, remedy: .nameStoreOfBundle)
    }

    /// Whether a bundle comes from a chain by snapshots, or by going on from where it was published, as btrfs and what root alone can write
    /// say: nobody can take a snapshot of what is not theirs.
    private func isKnown(_ bundle: ActiveTree, toDescendFrom chain: OpenChain) throws(VarveError) -> Bool {
        let known = try attempt("read the attributes of", bundle.path) { () throws(Errno) in
            try BundleAncestors(writtenByRootTo: bundle.subvolume.fd)
        }
        return known.lead(from: bundle.info.uuid, bundle.info.parentUUID, to: chain.info.uuid)
    }

    /// Throws if a user who may not read this store can have written a chain that a bundle, or a snapshot of one, names: what is made of
    /// it belongs to the caller, and would vouch for that chain from then on, and for one that is published later.
    ///
    /// - Parameter isSnapshot: it is one of a bundle, not a bundle.
    func requireTrustedChains(of tree: ActiveTree, isSnapshot: Bool = false) throws {
        let refusal: VarveError
        do throws(VarveError) {
            return try requireTrusted(tree.subvolume.fd, tree.path, isSnapshot: isSnapshot)
        } catch {
            refusal = error
        }
        for name in try chainRecords(of: tree).chains {
            guard let chain = try chains.find(name), try isKnown(tree, toDescendFrom: chain) else {
                throw refusal
            }
        }
    }

    /// Writes down the change times of a snapshot of a bundle, which differs from what the bundle came from in what was changed since.
    func recordTimes(ofSnapshot subvolume: FileDescriptor, of bundle: ActiveTree) {
        guard let uuid = try? subvolume.subvolumeInfo().uuid else { return }
        // One that a chain was published from is a snapshot of something older, or of nothing.
        let published = ((try? chainRecords(of: bundle))?.chains ?? []).compactMap { name in
            (try? chains.directory.subvolume(name.path))?.flatMap { try? $0.fd.subvolumeInfo() }
        }.filter { $0.parentUUID == bundle.info.uuid }
        let last = published.max { $0.originTransaction < $1.originTransaction }
        chains.times.record(
            subvolume, uuid, below: last?.uuid ?? bundle.info.parentUUID,
            since: last.map { $0.originTransaction + 1 } ?? bundle.info.originTransaction)
    }

    /// Throws if a user who may not read this store can have written what a bundle came from: its delta would say what is in the chain that they
    /// named.
    private func requireTrusted(
        _ bundle: FileDescriptor, _ path: BytePath, isSnapshot: Bool = false
    ) throws(VarveError) {
        let noun = isSnapshot ? "snapshot" : "bundle"
        let (status, keeper) = try attempt("look at", path) { () throws(Errno) in
            (try bundle.status(), try directory.fd.status().uid)
        }
        guard status.uid == 0 || status.uid == geteuid() || status.uid == keeper else {
            throw VarveError(
                .failed,
                "the \(noun) \"\(path)\" belongs to \(AnotherUser(status.uid)), and is no snapshot of the chain that it names",
                subject: path,
                remedy: isSnapshot ? nil : .changeOwner(path))
        }
        let isOpen = try attempt("look at", path) { () throws(Errno) in try bundle.isWritableByOthers(status)
        }
        if isOpen {
            throw VarveError(
                .failed,
                "others may write to the \(noun) \"\(path)\" (mode \(String(status.permissions, radix: 8))), and it is no snapshot of the chain that it names",
                subject: path,
                remedy: isSnapshot ? nil : .closeToOthers(path, orSticky: false))
        }
    }

    /// The tree of an image with no layers.
    private func emptyBase(_ owners: OwnerMapping) throws -> StillTree {
        try StillTree(emptyIn: work, owners: owners, for: path)
    }

    /// Which image a bundle came from and how; nil if it has no `umoci.json`.
    func metadata(of bundle: ActiveTree) throws -> BundleMetadata? {
        let file = bundle.path.appending(BundleMetadata.fileName)
        let bytes = try attempt("read", file) { () throws(Errno) -> [UInt8]? in
            do throws(Errno) {
                return try bundle.subvolume.fd.readFile(BundleMetadata.fileName, limit: BundleMetadata.limit)
            } catch .noSuchFileOrDirectory {
                return nil
            }
        }
        guard let bytes else { return nil }
        return try BundleMetadata(parsing: bytes, of: file)
    }

    func chainRecords(of bundle: ActiveTree) throws(VarveError) -> ChainRecords {
        ChainRecords(
            try attempt("read the attributes of", bundle.path) { () throws(Errno) in
                try bundle.subvolume.fd.extendedAttribute(StoreLayout.chainAttribute) ?? []
            })
    }

    /// In `refreshed/`.
    func keptName(_ bundle: ActiveTree, _ manifest: Digest) -> BytePath {
        BytePath("\(bundle.info.uuid)-\(manifest.hex)")
    }

    /// Deletes what the store keeps for a bundle, but for one name. What somebody has in use stays for a collection.
    func removeKept(_ bundle: ActiveTree, except name: BytePath? = nil) throws {
        let kept = try refreshedDirectory.entries().map(\.name).filter {
            $0.hasPrefix(Array("\(bundle.info.uuid)-".utf8)) && $0 != name
        }
        if kept.isEmpty { return }
        let used = try refreshedDirectory.namesInUse(locks.cancellation)
        for entry in kept where !used.contains(entry) { try refreshedDirectory.delete(entry) }
    }

    /// Deletes a bundle, subvolumes nested in it included, and what the store keeps for it.
    ///
    /// A wish to stop (`locks.cancellation`) ends it with the bundle as it was, or, once subvolumes nested in it are being deleted, with
    /// the bundle out of sight: the next command that opens the store goes on with it.
    ///
    /// - Parameter isLocked: by the caller, for itself alone.
    package func removeBundle(_ path: BytePath, isLocked: Bool = false) throws {
        let bundle = try openBundle(path)
        try BundleRemoval.requireBundle(bundle.subvolume.fd, path)
        // Whoever compares it has a snapshot, unless no snapshot of it can be taken here, or it is to be compared as another kind.
        let isFrozen =
            (try? OpenBundle(path).kind) == .btrfs && (try? holds(bundle.subvolume.fd, path)) == true
        let lock =
            isLocked
            ? nil : try BundleLock(isFrozen ? .shared : .exclusive, in: bundle.subvolume.fd, path)
        defer { extendLifetime(lock) }
        let (parent, name) = try BundleRemoval.place(of: bundle.subvolume.fd, path)
        let obstacle = RemovalObstacle(bundle.subvolume.fd, path, locks.cancellation)
        try obstacle.check(parent: parent.fd, path.directory)
        try obstacle.check(walks: false)
        let nested = try obstacle.checkNested()
        do {
            // A read-only directory cannot change its parent, nor can one with the flags that root is free to take away.
            if bundle.info.isReadOnly { try bundle.subvolume.fd.setSubvolumeReadOnly(false) }
            _ = try? bundle.subvolume.fd.clearProtection()
            try work.discard(name, in: parent.fd, is: bundle.subvolume.fd)
        } catch let error as BtrfsError where error.errno == .interrupted {
            throw VarveError.cancelled
        } catch {
            obstacle.makeReadOnly(nested)
            if bundle.info.isReadOnly { try? bundle.subvolume.fd.setSubvolumeReadOnly(true) }
            if (error as? BtrfsError)?.errno == .canceled { throw VarveError.cancelled }
            throw obstacle.explanation() ?? error
        }
        try removeKept(bundle)
    }
}
