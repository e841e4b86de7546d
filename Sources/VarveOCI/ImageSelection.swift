/// What descriptors of one blob have in common. A size that is not the blob's is an error of that descriptor alone.
struct BlobIdentity: Hashable {
    private let digest: Digest
    private let size: Int64

    init(_ descriptor: Descriptor) { (digest, size) = (descriptor.digest, descriptor.size) }
}

/// Images of a layout, which are read one after another: whoever made the layout says how many there are, and how large their
/// configurations.
package struct ImageSelection: Sendable {
    private let layout: ImageLayout
    private let tag: String?
    /// The ways to the manifests, as in `ResolvedImage.path`, each manifest once.
    private let paths: [[Descriptor]]

    init(_ layout: ImageLayout, tag: String?, _ paths: [[Descriptor]]) {
        self.layout = layout
        self.tag = tag
        self.paths = paths
    }

    /// One image that was read already.
    package init(_ image: ResolvedImage) {
        self.init(image.layout, tag: image.tag, [image.path])
    }

    /// How many there are.
    package var count: Int { paths.count }

    /// Reads each image and calls `body` with it. One is in memory at a time. Each configuration is read once, however many manifests
    /// name it: the images that have it come one after another, in the place of the first.
    ///
    /// - Throws: `OCIError`, of kind `cancelled` where the cancellation of the layout was asked for; what `body` throws.
    package func forEach(_ body: (ResolvedImage) throws -> Void) throws {
        var groups: [[Int]] = []
        var places: [BlobIdentity: Int] = [:]
        for (index, path) in paths.enumerated() {
            guard let descriptor = path.last else { continue }
            try layout.checkCancellation()
            let config = BlobIdentity(try layout.imageManifest(descriptor).config)
            if let place = places[config] {
                groups[place].append(index)
            } else {
                places[config] = groups.count
                groups.append([index])
            }
        }
        for group in groups {
            var config: ImageConfig?
            for index in group {
                guard let descriptor = paths[index].last else { continue }
                try layout.checkCancellation()
                let manifest = try layout.imageManifest(descriptor)
                let known = try config ?? layout.imageConfig(of: manifest)
                config = known
                try body(
                    ResolvedImage(
                        layout: layout, tag: tag, path: paths[index], manifestDescriptor: descriptor,
                        manifest: manifest, config: known))
            }
        }
    }
}
