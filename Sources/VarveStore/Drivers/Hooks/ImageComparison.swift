import VarveLayers
import VarveOCI
import VarveSystem
import SystemPackage

/// Compares a tree with what an image's layers give, by extracting them once more.
struct ImageComparison {
    private let image: ResolvedImage
    private let options: ApplyOptions
    private let parent: BytePath

    /// - Parameter path: beside it, the tree of the image is made for a while.
    init(_ image: ResolvedImage, options: ApplyOptions, near path: BytePath) {
        self.image = image
        self.options = options
        parent = path.parent
    }

    func delta(
        of root: FileDescriptor, cancellation: Cancellation, onEntry: @escaping @Sendable () throws -> Void
    ) throws -> DeltaResult {
        let place = try HookedBundlePlace(parent.appending(".varve-compare-\(randomName())"))
        try place.complete(makesRootfs: true, owners: options.owners)
        let reference = try place.rootfs()
        for (index, layer) in image.layers.enumerated() {
            try LayerStream(layer, diffID: image.diffIDs[index], in: image.layout).apply(
                with: LayerApplier(root: reference.fd, isBottom: index == 0, options: options)
            ) { try cancellation.check() }
        }
        // Not kept: it goes when this returns.
        defer {
            extendLifetime(reference)
            extendLifetime(place)
        }
        return try Delta.compareWhole(old: reference.fd, new: root, onEntry: onEntry)
    }
}
