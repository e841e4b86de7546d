package import VarveFormats
package import VarveSystem

/// A new image made of another: layers on top, another configuration. Nothing is written before `commit`.
///
/// The result is an OCI image even where the source is a Docker one: the media types of manifest,
/// configuration and layers are converted together. Members that are not known here stay.
package struct ImageMutation: Sendable {
    private let source: Descriptor?
    private let manifest: ImageManifest?
    /// The configuration document.
    package private(set) var config: JSONObject
    /// Lowest first.
    package private(set) var layers: [Descriptor]
    /// Of the manifest.
    package private(set) var annotations: JSONObject
    private var diffIDs: [DiffID]
    private var isPlatformChanged = false

    /// Starts from an image as it is.
    package init(_ image: ResolvedImage) throws(OCIError) {
        source = image.manifestDescriptor
        manifest = image.manifest
        config = image.config.json
        annotations = image.manifest.json["annotations"]?.object ?? JSONObject()
        diffIDs = image.diffIDs
        var layers = [Descriptor]()
        for layer in image.layers {
            layers.append(layer.retyped(try LayerMediaType(layer.mediaType).ociMediaType))
        }
        self.layers = layers
    }

    /// Starts from an image with no layers, as `umoci new` makes it.
    package init(emptyFor platform: Platform = .host, created: Timestamp) {
        source = nil
        manifest = nil
        config = ImageConfig.empty(platform: platform, created: created)
        layers = []
        annotations = JSONObject()
        diffIDs = []
    }

    /// Puts a layer on top. `history` nil adds no entry, which some tools are confused by.
    package mutating func append(layer: Descriptor, diffID: DiffID, history: HistoryEntry?) throws(OCIError) {
        layers.append(layer.retyped(try LayerMediaType(layer.mediaType).ociMediaType))
        diffIDs.append(diffID)
        var rootfs = config["rootfs"]?.object ?? ["type": "layers"]
        rootfs["diff_ids"] = .array(diffIDs.map { .string($0.description) })
        config["rootfs"] = .object(rootfs)
        if var history {
            history.isEmptyLayer = false
            append(history: history)
        }
    }

    /// Says what was done; for a change that adds no layer the entry is one of an empty layer.
    package mutating func append(history: HistoryEntry) {
        var entries = config["history"]?.array ?? []
        entries.append(.object(history.json))
        config["history"] = .array(entries)
    }

    /// Sets when the image was made. Whoever wants equal bytes from equal input gives `SOURCE_DATE_EPOCH`.
    package mutating func setCreated(_ time: Timestamp) { config["created"] = .string(RFC3339.format(time)) }

    /// Changes the configuration. `rootfs` and `history` belong to the layers and are put back as they were.
    package mutating func updateConfig<E: Error>(_ change: (inout JSONObject) throws(E) -> Void) throws(E) {
        let (rootfs, history) = (config["rootfs"], config["history"])
        try change(&config)
        config["rootfs"] = rootfs
        config["history"] = history
    }

    /// Sets what is not nil; a variant that is empty is taken away. The entry of the index says the same afterwards, where
    /// it says what the image is for.
    package mutating func updatePlatform(os: String?, architecture: String?, variant: String?) {
        if os == nil, architecture == nil, variant == nil { return }
        isPlatformChanged = true
        updateConfig { config in
            if let os { config["os"] = .string(os) }
            if let architecture { config["architecture"] = .string(architecture) }
            if let variant { config["variant"] = variant.isEmpty ? nil : .string(variant) }
        }
    }

    package mutating func updateAnnotations(_ change: (inout JSONObject) -> Void) { change(&annotations) }

    /// Writes the configuration and the manifest; returns the manifest's descriptor with the platform and the
    /// annotations of the one the image was found by. Its tag is given by `ImageLayout.tag`. Old blobs stay.
    package func commit(to layout: ImageLayout) throws(OCIError) -> Descriptor {
        _ = try ImageConfig(.object(config), of: "the new image configuration")
        let stored = try layout.putJSON(config, mediaType: MediaType.ociConfig)
        let configDescriptor =
            manifest?.config.replacing(
                mediaType: MediaType.ociConfig, digest: stored.digest, size: stored.size) ?? stored
        let result =
            (manifest?.replacing(config: configDescriptor, layers: layers)
            ?? ImageManifest(config: configDescriptor, layers: layers)).annotated(annotations)
        let written = try layout.putJSON(result.json, mediaType: MediaType.ociManifest)
        guard let source else { return written }
        let entry = source.replacing(
            mediaType: MediaType.ociManifest, digest: written.digest, size: written.size)
        return isPlatformChanged ? entry.replacingPlatform(by: config) : entry
    }
}

extension ResolvedImage {
    /// Writes this image with one more layer: the configuration gets the DiffID, the history entry and
    /// `created`; nil leaves when the image was made. Returns the new manifest's descriptor, which has no tag yet.
    package func appendingLayer(
        _ layer: Descriptor, diffID: DiffID, history: HistoryEntry?, created: Timestamp?
    ) throws(OCIError) -> Descriptor {
        var mutation = try ImageMutation(self)
        try mutation.append(layer: layer, diffID: diffID, history: history)
        if let created { mutation.setCreated(created) }
        return try mutation.commit(to: layout)
    }
}

extension ImageLayout {
    /// Makes an image with no layers and tags it, as `umoci new` does.
    @discardableResult
    package func newImage(
        tag name: String, platform: Platform = .host, created: Timestamp
    ) throws(OCIError) -> Descriptor {
        try ImageReference.checkTag(name)
        return try change { (own) throws(OCIError) in
            let descriptor = try ImageMutation(emptyFor: platform, created: created).commit(to: own)
            try own.tag(name, descriptor)
            return descriptor
        }
    }
}
