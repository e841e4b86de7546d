extension CollectionReport: CustomStringConvertible {
    public var description: String { "removed \(removed.count) blobs of \(freed) bytes, kept \(kept)" }
}

extension Descriptor: CustomStringConvertible {
    public var description: String { "\(digest) of \(size) bytes (\(mediaType))" }
}

extension ImageStat: CustomStringConvertible {
    public var description: String {
        let layers = history.count { $0.layer != nil }
        return "manifest \(manifest.descriptor.digest), \(layers) \(layers == 1 ? "layer" : "layers")"
    }
}
