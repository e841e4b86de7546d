package import VarveArchive
package import VarveOCI
import VarveSystem

/// A layer's blob on its way to where blobs are kept: tar, hashed for the DiffID, compressed, hashed again.
package enum NewLayer {
    /// The annotation by which umoci since 0.6 says how many bytes a compressed layer inflates to (mutate/mutate.go,
    /// `UmociUncompressedBlobSizeAnnotation`). A hint: nothing here relies on it.
    static let sizeKey = "ci.umo.uncompressed_blob_size"

    /// Writes a layer to where blobs are kept.
    ///
    /// - Parameter archive: writes an uncompressed tar archive, and finishes what it writes to.
    /// - Returns: the descriptor of the blob, which is stored, and the DiffID.
    package static func write(
        into blobs: some BlobTarget, _ compression: LayerCompression, threads: Int = 2,
        archive: (any ByteSink) throws -> Void
    ) throws -> (Descriptor, DiffID) {
        let blob = try blobs.makeBlob()
        let (diffID, size) = try write(to: blob, compression, threads: threads, archive: archive)
        guard let stored = blob.stored else { throw VarveError(.failed, "the new layer was not stored") }
        let layer = Descriptor(mediaType: compression.mediaType, digest: stored.digest, size: stored.size)
        return (size != stored.size ? layer.annotated(sizeKey, "\(size)") : layer, diffID)
    }

    /// Writes a layer to any sink, which gets the compressed bytes in large pieces and is finished.
    ///
    /// - Returns: the DiffID, and the bytes of the uncompressed archive.
    package static func write(
        to blob: any ByteSink, _ compression: LayerCompression, threads: Int = 2,
        archive: (any ByteSink) throws -> Void
    ) throws -> (diffID: DiffID, size: Int64) {
        let encoder = try Compression(compression).encoder(into: GatheringSink(blob), threads: threads)
        let hashing = DiffIDSink(encoder)
        try archive(hashing)
        try hashing.finish()
        return (hashing.diffID, hashing.size)
    }
}
