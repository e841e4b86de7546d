import VarveFormats

extension ImageLayout {
    /// Manifests that are looked at, so that a layout with very many images costs no more than a moment. They have as many bytes together as
    /// one resolution may read; what is behind that is not looked at.
    private static let manifestLimit = 256

    /// How many of the lowest layers of `image` other images of the layout have as well: for each of them the number
    /// that both have, if it is neither none nor all of those of `image`. Layers are the same if their blobs are.
    ///
    /// Manifests that cannot be read are passed over.
    package func sharedPrefixes(with image: ResolvedImage) throws(OCIError) -> Set<Int> {
        var seen: Set<Digest> = [image.manifestDescriptor.digest]
        var result: Set<Int> = []
        let own = image.layers.map(\.digest)
        var allowance = ReadingAllowance(self)
        func look(at entries: [JSONValue]) throws(OCIError) {
            for entry in entries where seen.count <= Self.manifestLimit {
                try checkCancellation()
                guard let descriptor = try? Descriptor(entry, of: ""),
                    MediaType.isManifest(descriptor.mediaType), seen.insert(descriptor.digest).inserted,
                    (try? allowance.take(descriptor)) != nil, let document = try? readDocument(descriptor),
                    let manifest = try? ImageManifest(document, of: "")
                else { continue }
                let count = zip(own, manifest.layers).prefix { $0 == $1.digest }.count
                if count > 0, count < own.count { result.insert(count) }
            }
        }
        let top = try index()
        try look(at: top.entries)
        try visitNestedIndexes(below: top) { (_, index, _) throws(OCIError) in try look(at: index.entries) }
        return result
    }
}
