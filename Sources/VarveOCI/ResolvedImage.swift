/// An image found in a layout, with everything that was read on the way checked.
public struct ResolvedImage: Sendable {
    package private(set) var layout: ImageLayout
    /// The tag by which it was found; nil where it was taken as the only image of a layout without tags.
    public let tag: String?
    /// From the entry of `index.json` through nested indexes to the manifest.
    public let path: [Descriptor]
    /// The descriptor of the manifest.
    public let manifestDescriptor: Descriptor
    package let manifest: ImageManifest
    package let config: ImageConfig

    /// This image, with another value for its layout.
    package func within(_ layout: ImageLayout) -> ResolvedImage {
        var image = self
        image.layout = layout
        return image
    }

    /// Lowest first, as many as `config.diffIDs`.
    public var layers: [Descriptor] { manifest.layers }
    /// The DiffID of each layer, the bottom one first.
    public var diffIDs: [DiffID] { config.diffIDs }
    /// The ChainIDs of all prefixes, lowest first.
    public var chainIDs: [ChainID] { config.chainIDs }
    /// From the configuration, which goes with the content; nil if it does not say.
    public var platform: Platform? { config.platform ?? manifestDescriptor.platform }

    /// How a layer on top of the others is compressed if nobody says how: as the topmost one that is, and with gzip if
    /// none is. A layer is not left uncompressed for the sake of another.
    package var usualCompression: LayerCompression {
        for layer in layers.reversed() {
            if let type = try? LayerMediaType(layer.mediaType), type.compression != .none {
                return type.compression
            }
        }
        return .gzip
    }

    /// Reads the manifest at the end of `path` and its configuration, and checks that they fit each other.
    init(layout: ImageLayout, tag: String?, path: [Descriptor], manifestDescriptor: Descriptor)
        throws(OCIError)
    {
        let manifest = try layout.imageManifest(manifestDescriptor)
        try self.init(
            layout: layout, tag: tag, path: path, manifestDescriptor: manifestDescriptor, manifest: manifest,
            config: try layout.imageConfig(of: manifest))
    }

    /// Checks that a manifest and its configuration, both read, fit each other.
    init(
        layout: ImageLayout, tag: String?, path: [Descriptor], manifestDescriptor: Descriptor,
        manifest: ImageManifest, config: ImageConfig
    ) throws(OCIError) {
        try layout.checkLayers(of: manifest, manifestDescriptor, diffIDs: config.diffIDs.count)
        self.layout = layout
        self.tag = tag
        self.path = path
        self.manifestDescriptor = manifestDescriptor
        self.manifest = manifest
        self.config = config
    }
}

extension ImageLayout {
    /// Reads the manifest of an image.
    func imageManifest(_ descriptor: Descriptor) throws(OCIError) -> ImageManifest {
        let what = "the manifest \(descriptor.digest) in \(path)"
        let manifest = try ImageManifest(try readDocument(descriptor), of: what)
        guard MediaType.isConfig(manifest.config.mediaType) else {
            throw .invalid(
                "\(what) is that of an artifact (its configuration has the type "
                    + "\"\(shown(manifest.config.mediaType))\"), not of a container image")
        }
        return manifest
    }

    /// Reads the configuration that a manifest names.
    func imageConfig(of manifest: ImageManifest) throws(OCIError) -> ImageConfig {
        try ImageConfig(
            try readDocument(manifest.config),
            of: "the image configuration \(manifest.config.digest) in \(path)")
    }

    /// Throws unless the layers of a manifest can be read and are as many as its configuration says.
    func checkLayers(of manifest: ImageManifest, _ descriptor: Descriptor, diffIDs: Int) throws(OCIError) {
        guard diffIDs == manifest.layers.count else {
            throw .invalid(
                "the manifest \(descriptor.digest) in \(path) has \(manifest.layers.count) layers, but its configuration has "
                    + "\(diffIDs) \"diff_ids\"; the two must be equal")
        }
        // A layer that cannot be read is said now, not when the layers below it are unpacked.
        for layer in manifest.layers { _ = try LayerMediaType(layer.mediaType) }
    }
}

extension ImageLayout {
    /// Whether the layout holds a blob under that digest, whatever its content is.
    package func holdsBlob(_ digest: Digest) -> Bool { (try? blobPlace(digest)) != nil }

    /// The image at the end of a path of descriptors, as `ResolvedImage.path` gives it and bundles record it. Nothing is
    /// looked up: the tag may mean another image by now. Throws `notFound` if the layout does not hold it.
    package func image(at path: [Descriptor]) throws(OCIError) -> ResolvedImage {
        guard let manifest = path.last else {
            throw .invalid("a path of descriptors to an image in \(self.path) is empty")
        }
        return try ResolvedImage(
            layout: self, tag: path.first?.referenceName, path: path, manifestDescriptor: manifest)
    }
}
