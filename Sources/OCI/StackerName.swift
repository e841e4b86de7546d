/// The name that stacker's btrfs store gives the tree of a layer prefix: the SHA-256, in hexadecimal digits, of the
/// digests of its layers written one behind the other. Unlike a ChainID it changes when the same content is compressed
/// in another way.
public enum StackerName {
    /// That of each prefix, the shortest first. Stacker counts up to where a layer stands first, so a layer that is there
    /// twice has the same name both times.
    public static func prefixes(of layers: [Descriptor]) -> [String] {
        layers.map { layer in
            let end = layers.firstIndex { $0.digest == layer.digest } ?? 0
            return Digest(of: layers[...end].flatMap { Array($0.digest.description.utf8) }).hex
        }
    }
}
