import Archive
import OCI

/// A layer's blob on its way into a layout: tar, hashed for the DiffID, compressed, hashed again.
enum NewLayer {
    /// - Parameter archive: writes an uncompressed tar archive, and finishes what it writes to.
    static func write(
        into layout: ImageLayout, _ compression: LayerCompression, threads: Int = 2,
        archive: (any ByteSink) throws -> Void
    ) throws -> (Descriptor, DiffID) {
        let blob = BlobSink(try BlobWriter(layout))
        let encoder = try Compression(compression).encoder(into: GatheringSink(blob), threads: threads)
        let hashing = DiffIDSink(encoder)
        try archive(hashing)
        try hashing.finish()
        guard let stored = blob.writer.blob else { throw StoreError(.failed, "the new layer was not stored") }
        return (
            Descriptor(mediaType: compression.mediaType, digest: stored.digest, size: stored.size),
            hashing.diffID
        )
    }
}
