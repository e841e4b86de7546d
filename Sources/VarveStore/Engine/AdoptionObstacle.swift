import VarveLayers

/// Why the frozen tree of a bundle cannot become the chain of the new image itself, so that the new layer is read back and
/// applied to the chain below.
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
}
