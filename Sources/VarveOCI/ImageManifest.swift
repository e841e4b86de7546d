package import VarveFormats

/// An image manifest (image-spec manifest.md) or a Docker manifest of version 2, schema 2.
package struct ImageManifest: Hashable, Sendable {
    package private(set) var json: JSONObject
    package let config: Descriptor
    /// Lowest first. Their sizes add up to no more than `Int64.max`.
    package let layers: [Descriptor]

    package init(_ value: JSONValue, of what: String) throws(OCIError) {
        json = try documentObject(value, what)
        try checkMediaType(json, MediaType.isManifest, "an image manifest", what)
        for key in ["manifests", "fsLayers"] where json[key] != nil {
            throw .invalid("\(what) is ambiguous: it is an image manifest and yet has \"\(key)\"")
        }
        guard let config = json["config"] else { throw .invalid("\(what) is invalid: it has no \"config\"") }
        self.config = try Descriptor(config, of: what)
        var layers = [Descriptor]()
        var size: Int64 = 0
        for layer in try json.array("layers", of: what) ?? [] {
            let descriptor = try Descriptor(layer, of: what)
            let (sum, overflow) = size.addingReportingOverflow(descriptor.size)
            // So that whoever adds some of them up need not look.
            guard !overflow else {
                throw .invalid("\(what) is invalid: the sizes of its layers add up to more than 2^63 bytes")
            }
            size = sum
            layers.append(descriptor)
        }
        self.layers = layers
    }

    /// The annotations of the manifest itself.
    package var annotations: [(key: String, value: String)] { json["annotations"]?.object?.strings ?? [] }

    /// A manifest of an OCI image.
    package init(config: Descriptor, layers: [Descriptor]) {
        self.init(json: ["schemaVersion": 2], config: config, layers: layers)
    }

    /// An OCI manifest of another configuration and other layers; the other members stay.
    func replacing(config: Descriptor, layers: [Descriptor]) -> ImageManifest {
        ImageManifest(json: json, config: config, layers: layers)
    }

    /// This manifest with other annotations; none at all if `annotations` is empty.
    func annotated(_ annotations: JSONObject) -> ImageManifest {
        var json = json
        json["annotations"] = annotations.isEmpty ? nil : .object(annotations)
        return ImageManifest(json: json, config: config, layers: layers)
    }

    private init(json: JSONObject, config: Descriptor, layers: [Descriptor]) {
        var json = json
        json["mediaType"] = .string(MediaType.ociManifest)
        json["config"] = .object(config.json)
        json["layers"] = .array(layers.map { .object($0.json) })
        self.json = json
        self.config = config
        self.layers = layers
    }
}
