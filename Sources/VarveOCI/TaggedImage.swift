package import VarveFormats
import VarveSystem

/// What a tag of a layout stands for, for a listing.
package struct TaggedImage: Sendable {
    package let tag: String
    /// What the tag leads to: a manifest, or an index.
    package let descriptor: Descriptor
    /// Bytes of manifests, configurations and layers, each blob once.
    private var size: Int64 = 0
    private var platforms: [Platform] = []
    /// Whether every blob is there.
    private let isWhole: Bool

    /// All tags, in the order of `ImageLayout.listTags`. A document that cannot be read leaves its image out of what is said of the tag.
    ///
    /// - Throws: `OCIError`, also where the cancellation of the layout was asked for.
    package static func all(in layout: ImageLayout) throws(OCIError) -> [TaggedImage] {
        var result: [TaggedImage] = []
        for (tag, ways) in try layout.taggedWays() {
            try layout.checkCancellation()
            if let descriptor = try? layout.descriptor(tagged: tag, by: ways) {
                result.append(TaggedImage(tag, descriptor, ways, in: layout))
            }
            // What was interrupted above reads as what could not be read.
            try layout.checkCancellation()
        }
        return result
    }

    private init(_ tag: String, _ descriptor: Descriptor, _ ways: [[Descriptor]], in layout: ImageLayout) {
        self.tag = tag
        self.descriptor = descriptor
        isWhole = (try? layout.missingBlobs(below: descriptor))?.isEmpty == true
        var sizes: [Digest: Int64] = [descriptor.digest: descriptor.size]
        try? layout.selection(by: ways, tag: tag).forEach { image in
            if let platform = image.platform { platforms.append(platform) }
            for blob in image.layers + [image.manifest.config, image.manifestDescriptor] {
                sizes[blob.digest] = blob.size
            }
        }
        size = sizes.values.saturatingSum()
        if MediaType.isIndex(descriptor.mediaType), let document = try? layout.readDocument(descriptor),
            let index = try? ImageIndex(document, of: "")
        {
            // Also those that are not here.
            platforms = index.entries.compactMap { (try? Descriptor($0, of: ""))?.platform }.filter {
                $0.os != "unknown"
            }
        }
    }

    /// `name`, `digest`, `mediaType`, `size` (bytes), `platforms`, `isWhole`.
    package var json: JSONObject {
        [
            "name": .string(tag), "digest": .string(descriptor.digest.description),
            "mediaType": .string(descriptor.mediaType), "size": .number(JSONNumber(size)),
            "platforms": .array(platforms.map { .string($0.description) }), "isWhole": .bool(isWhole),
        ]
    }
}
