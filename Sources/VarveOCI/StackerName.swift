/// The name that stacker's btrfs store gives the tree of a layer prefix: the SHA-256, in hexadecimal digits, of the
/// digests of its layers written one behind the other. Unlike a ChainID it changes when the same content is compressed
/// in another way.
package enum StackerName {
    /// That of each prefix, the shortest first. Stacker counts up to where a layer stands first, so a layer that is there
    /// twice has the same name both times.
    package static func prefixes(of layers: [Descriptor]) -> [String] {
        var hasher = DigestHasher(.sha256)
        var names: [Digest: String] = [:]
        return layers.map { layer in
            hasher.update(Array(layer.digest.description.utf8))
            if let name = names[layer.digest] { return name }
            let name = hasher.finish().hex
            names[layer.digest] = name
            return name
        }
    }
}
