package import VarveArchive
package import VarveOCI
import VarveSystem

/// A layer's blob on its way to where blobs are kept: tar, hashed for the DiffID, compressed, hashed again.
package enum NewLayer {
    /// The annotation by which umoci since 0.6 says how many bytes a compressed layer inflates to (mutate/mutate.go,
    /// `UmociUncompressedBlobSizeAnnotation`). A hint: nothing here relies on it.
    static let sizeKey = "ci.umo.uncompressed_blob_size"

    /// - Parameter archive: writes an uncompressed tar archive, and finishes what it writes to.
    package static func write(
        into blobs: some BlobTarget, _ compression: LayerCompression, threads: Int = 2,
        archive: (any ByteSink) throws -> Void
    ) throws -> (Descriptor, DiffID) {
        let blob = try blobs.makeBlob()
        let encoder = try Compression(compression).encoder(into: GatheringSink(blob), threads: threads)
        let hashing = DiffIDSink(encoder)
        try archive(hashing)
        try hashing.finish()
        guard let stored = blob.stored else { throw StoreError(.failed, "the new layer was not stored") }
        let layer = Descriptor(mediaType: compression.mediaType, digest: stored.digest, size: stored.size)
        let isSmaller = hashing.size != stored.size
        return (isSmaller ? layer.annotated(sizeKey, "\(hashing.size)") : layer, hashing.diffID)
    }
}
