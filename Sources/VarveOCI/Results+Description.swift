import VarveFormats

extension CollectionReport: CustomStringConvertible {
    public var description: String { "removed \(removed.count) blobs of \(freed) bytes, kept \(kept)" }
}

extension Descriptor: CustomStringConvertible {
    public var description: String { "\(digest) of \(size) bytes (\(mediaType))" }
}

extension ImageStat: CustomStringConvertible {
    public var description: String {
        let layers = manifest.json["layers"]?.array?.count ?? 0
        return "manifest \(manifest.descriptor.digest), \(layers) \(layers == 1 ? "layer" : "layers")"
    }
}
