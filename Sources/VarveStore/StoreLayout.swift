import VarveSystem

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

    static let directories = [chains, snapshots, work, locks, refreshed]

    /// Raised when what older versions would do with a store were wrong.
    static let formatVersion: Int64 = 1

    /// On a bundle's directory: the chain that it came from (`ChainRecords`).
    static let chainAttribute: BytePath = "user.varve.chain"

    /// On a bundle's directory: the absolute path of the store that made it.
    static let storeAttribute: BytePath = "user.varve.store"

    /// What a bundle's directory bears and a chain's does not.
    static let bundleAttributes = [chainAttribute, storeAttribute]

    /// On a chain's directory: what it was published as (`PublicationRecord`).
    static let publicationAttribute: BytePath = "user.varve.published"
}
