import VarveFormats

extension ImageLayout {
    /// Manifests that are looked at, so that a layout with very many images costs no more than a moment.
    private static let manifestLimit = 256

    /// How many of the lowest layers of `image` other images of the layout have as well: for each of them the number
    /// that both have, if it is neither none nor all of those of `image`. Layers are the same if their blobs are.
    ///
    /// Manifests that cannot be read are passed over.
    package func sharedPrefixes(with image: ResolvedImage) throws(OCIError) -> Set<Int> {
        var seen: Set<Digest> = [image.manifestDescriptor.digest]
        var result: Set<Int> = []
        let own = image.layers.map(\.digest)
        func look(at entries: [JSONValue]) {
            for entry in entries where seen.count <= Self.manifestLimit {
                guard let descriptor = try? Descriptor(entry, of: ""),
                    MediaType.isManifest(descriptor.mediaType), seen.insert(descriptor.digest).inserted,
                    let document = try? readDocument(descriptor),
                    let manifest = try? ImageManifest(document, of: "")
                else { continue }
                let count = zip(own, manifest.layers).prefix { $0 == $1.digest }.count
                if count > 0, count < own.count { result.insert(count) }
            }
        }
        let top = try index()
        look(at: top.entries)
        try visitNestedIndexes(below: top) { (_, index, _) in look(at: index.entries) }
        return result
    }
}
