package import VarveFormats
import VarveSystem

/// What a tag of a layout stands for, for a listing.
package struct TaggedImage: Sendable {
    package let tag: String
    /// What the tag leads to: a manifest, or an index.
    package let descriptor: Descriptor
    /// The images there are, as far as the layout holds them; several below an index.
    private let images: [ResolvedImage]
    private let platforms: [Platform]
    /// Whether every blob is there.
    private let isWhole: Bool

    /// All tags, as `ImageLayout.listTags` gives them. A document that cannot be read leaves its image out of what is said of the tag.
    package static func all(in layout: ImageLayout) throws(OCIError) -> [TaggedImage] {
        var result: [TaggedImage] = []
        for tag in try layout.listTags() {
            let reference = ImageReference(found: tag, in: layout)
            guard let descriptor = try? layout.descriptor(of: reference) else { continue }
            result.append(TaggedImage(tag, descriptor, in: layout, reference))
        }
        return result
    }

    private init(
        _ tag: String, _ descriptor: Descriptor, in layout: ImageLayout, _ reference: ImageReference
    ) {
        self.tag = tag
        self.descriptor = descriptor
        var images: [ResolvedImage] = []
        try? layout.selection(of: reference).forEach { images.append($0) }
        self.images = images
        var platforms = images.compactMap(\.platform)
        if MediaType.isIndex(descriptor.mediaType), let document = try? layout.readDocument(descriptor),
            let index = try? ImageIndex(document, of: "")
        {
            // Also those that are not here.
            platforms = index.entries.compactMap { (try? Descriptor($0, of: ""))?.platform }.filter {
                $0.os != "unknown"
            }
        }
        self.platforms = platforms
        isWhole = (try? layout.missingBlobs(below: descriptor))?.isEmpty == true
    }

    /// `name`, `digest`, `mediaType`, `size` (bytes of manifests, configurations and layers, each blob once), `platforms`, `isWhole`.
    package var json: JSONObject {
        var sizes: [Digest: Int64] = [descriptor.digest: descriptor.size]
        for image in images {
            for blob in image.layers + [image.manifest.config, image.manifestDescriptor] {
                sizes[blob.digest] = blob.size
            }
        }
        let size = sizes.values.reduce(Int64(0)) { $0.addingReportingOverflow($1).partialValue }
        return [
            "name": .string(tag), "digest": .string(descriptor.digest.description),
            "mediaType": .string(descriptor.mediaType), "size": .number(JSONNumber(size)),
            "platforms": .array(platforms.map { .string($0.description) }), "isWhole": .bool(isWhole),
        ]
    }
}
