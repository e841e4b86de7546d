import VarveFormats
import VarveSystem
import SystemPackage

/// The names in a store. They are fixed: see Docs/on-disk-format.md.
enum StoreLayout {
    static let description: BytePath = "store.json"
    static let chains: BytePath = "chains"
    static let snapshots: BytePath = "snapshots"
    static let work: BytePath = "work"
    static let locks: BytePath = "locks"
    /// Read-only snapshots of bundles as they were when `repack --refresh-bundle` packed them: the UUID of the bundle, a
    /// dash, and the hexadecimal digits of the manifest's digest.
    static let refreshed: BytePath = "refreshed"
    /// Where bundles are put by custom; the store does not ask for it.
    static let bundles: BytePath = "bundles"
    /// In a chain, a bundle and a snapshot: the root file system.
    static let rootfs: BytePath = "rootfs"

    /// The change times of the inodes of each chain as it was published (`PublishedTimes`); made when there are some.
    static let published: BytePath = "published"

    /// Why chains are kept from which nothing descends (`PinFolder`); made when there are some.
    static let pins: BytePath = "pins"

    /// An image layout of what was brought from registries and archives; made when it is needed.
    static let images: BytePath = "images"

    /// What daemons own, a directory for each ID (`DaemonTrees`); made when there are some.
    static let containerd: BytePath = "containerd"
    /// In the directory of an ID: its trees.
    static let trees: BytePath = "trees"
    /// In the directory of an ID: what varve-containerd knows of the trees.
    static let records: BytePath = "records"

    /// The name of a directory that belongs to one owner.
    ///
    /// - Throws: `VarveError`, `usage`, for what is not one component of a path.
    static func ownerName(_ owner: String) throws(VarveError) -> BytePath {
        guard !owner.isEmpty, owner.utf8.count <= 255, !owner.beginsWithByte("."), !owner.hasByte("/"),
            let name = BytePath(Array(owner.utf8))
        else {
            throw VarveError(
                .usage, "\"\(BytePath.escape(owner.utf8))\" cannot own anything of a store",
                subject: BytePath(owner),
                remedy: .follow("use 1 to 255 bytes with no slash and no dot at the start"))
        }
        return name
    }

    static let directories = [chains, snapshots, work, locks, refreshed]

    /// Raised when what older versions would do with a store were wrong.
    static let formatVersion: Int64 = 1

    /// On a bundle's directory: the chain that it came from (`ChainRecords`).
    static let chainAttribute: BytePath = "user.varve.chain"

    /// On a bundle's directory: the absolute path of the store that made it.
    static let storeAttribute: BytePath = "user.varve.store"

    /// On a snapshot's directory, and for a moment on that of the bundle that it is taken of: its labels (`SnapshotLabels`).
    static let labelsAttribute: BytePath = "user.varve.labels"

    /// On the directory of a bundle and of a snapshot: what it was made of (`BundleAncestors`).
    static let ancestorsAttribute: BytePath = "trusted.varve.ancestors"
    /// The same where the caller may not write that.
    static let ownAncestorsAttribute: BytePath = "user.varve.ancestors"

    /// What a bundle's directory bears and a chain's does not.
    static let bundleAttributes = [
        chainAttribute, storeAttribute, ancestorsAttribute, ownAncestorsAttribute,
    ]

    /// On a chain's directory: what it was published as (`PublicationRecord`).
    static let publicationAttribute: BytePath = "user.varve.published"

    /// On a chain's directory: the blob that its uppermost layer was read from (`ChainLayer`).
    static let layerAttribute: BytePath = "user.varve.layer"

    /// What a chain's directory bears, and what is made of the chain inherits.
    static let chainAttributes = [publicationAttribute, layerAttribute]
}

extension FileDescriptor {
    /// Opens a directory below this one, and makes it and those above it, for the owner alone and durably, where they are not there.
    func makeOwnDirectories(_ path: BytePath) throws(Errno) -> OwnedDescriptor {
        var current = try openDirectory(.current)
        for name in path.components {
            do throws(Errno) {
                try current.fd.makeDirectory(name, mode: 0o700)
                try current.fd.synchronize()
            } catch .fileExists {}
            current = try current.fd.openDirectory(name)
        }
        return current
    }
}
