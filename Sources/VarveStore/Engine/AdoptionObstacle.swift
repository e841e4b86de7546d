import VarveBtrfs
import VarveLayers
import SystemPackage
import VarveSystem

/// Why the tree that a layer was written of, a bundle's or one of containerd's, cannot become the chain that the layer gives, so that
/// the layer is read back and applied to the chain below.
///
/// The tree may be the chain where the layer holds exactly what the tree differs in from the chain below it, and the tree holds
/// nothing that a layer cannot carry. Where that is not sure, there is an obstacle.
enum AdoptionObstacle: String, CustomStringConvertible, CaseIterable {
    // Of the layer.
    case masked = "paths of the bundle were not packed"
    case changedByPacking = "the layer leaves a socket out, or has another time than a file"
    // Kernels send wrong streams now and then: what comes of one is the layer, and nothing else may have its name.
    case fromSendStream = "the changes were found by a send stream"
    // Of the bundle.
    case options = "the layers are applied with options that make another tree"
    case noChainBelow = "the store does not hold the chain below"
    case otherBase = "the bundle is not known to descend from the chain below"
    case nestedSubvolumes = "a subvolume is nested in the bundle"
    case unsearchable = "only root may look for what a layer cannot carry"
    case uncarried = "a file that changed has flags (chattr, properties of btrfs), or is a socket"
    case otherEntries = "something lies beside rootfs/ that is no file of a bundle"

    var description: String { rawValue }

    /// What is wrong with the layer; nil if it holds the whole delta as it is.
    static func ofLayer(isPackedWhole: Bool, packed: Int, of delta: DeltaResult) -> AdoptionObstacle? {
        if packed != delta.changes.count { return .masked }
        if !isPackedWhole { return .changedByPacking }
        return delta.source == .stream ? .fromSendStream : nil
    }

    /// Flags of linux/btrfs_tree.h that the kernel sets by itself and that mean nothing to who reads the file: NOCOMPRESS
    /// (compressing it did not pay; of a directory somebody has said so, for all that will be in it) and PREALLOC (it has or had room reserved).
    private static func harmlessFlags(of type: VarveSystem.FileType?) -> UInt64 {
        type == .directory ? 1 << 4 : 1 << 3 | 1 << 4
    }

    /// What is wrong with a read-only tree that is another and what was changed in it from a transaction on; nil if it holds nothing
    /// that a layer cannot carry.
    static func ofTree(_ subvolume: FileDescriptor, since: UInt64) throws -> AdoptionObstacle? {
        var search = TreeSearch(subvolume)
        var isPlain = true
        var hasSubvolumes = false
        do throws(BtrfsError) {
            // Of the tree itself: what it is a snapshot of may have had a nested subvolume at that moment alone, and an empty
            // directory stands in the snapshot for it.
            try search.forEachInode(
                changedSince: since, onSubvolume: { hasSubvolumes = true },
                // The property `none` is the flag NOCOMPRESS too.
                onProperty: { inode in if inode.inode != TreeSearch.firstInode { isPlain = false } }
            ) { inode in
                // Sockets are in no delta and no layer.
                if inode.flags & ~harmlessFlags(of: inode.type) != 0 || inode.type == .socket {
                    isPlain = false
                }
            }
        } catch {
            if error.errno == .notPermitted || error.errno == .permissionDenied { return .unsearchable }
            throw error
        }
        if hasSubvolumes { return .nestedSubvolumes }
        return isPlain ? nil : .uncarried
    }
}
