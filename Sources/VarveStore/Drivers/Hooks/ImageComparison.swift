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
        let opened: SharedDescriptor
        do throws(PlaceError) {
            opened = SharedDescriptor(try Place.directory(parent.isEmpty ? .current : parent, .own))
        } catch {
            throw VarveError(error, "work beside", parent)
        }
        // What a process leaves that is killed goes with the next one.
        let work = try WorkDirectory(in: opened, path: parent, cancellation: cancellation)
        defer { extendLifetime(work) }
        let place = try HookedBundlePlace(work.path().appending("bundle"))
        try place.complete(makesRootfs: true, owners: options.owners)
        let reference = try place.rootfs()
        let extraction = LayerExtraction(from: image.layout, options: options, cancellation: cancellation)
        for (index, layer) in image.layers.enumerated() {
            try extraction.apply(
                layer, diffID: image.diffIDs[index],
                to: ExtractionTarget(root: reference, isBottom: index == 0))
        }
        // Not kept: it goes when this returns.
        defer {
            extendLifetime(reference)
            extendLifetime(place)
        }
        return try Delta.compareWhole(old: reference.fd, new: root, onEntry: onEntry)
    }
}
