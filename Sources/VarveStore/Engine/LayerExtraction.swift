import VarveArchive
package import VarveLayers
package import VarveOCI
package import VarveSystem

/// Puts the blob of a layer onto a tree: reads it from its source, checks size and digest, inflates it, takes the DiffID and
/// applies the entries. An unpack, which inflates the next layers meanwhile, does the same by `LayersAhead`.
package struct LayerExtraction: Sendable {
    private let blobs: any BlobSource
    private let options: ApplyOptions
    private let allowance: UnpackAllowance?
    private let memory: Int
    private let cancellation: Cancellation

    /// - Parameters:
    ///   - blobs: where the layers are read.
    ///   - options: how they are applied.
    ///   - limits: how much all layers that this value extracts may unpack to, together; nil for layers that are known to be
    ///     no more than what there is.
    ///   - memory: bytes for what is inflated ahead of the tree.
    ///   - cancellation: asked before each entry.
    package init(
        from blobs: any BlobSource, options: ApplyOptions, limits: UnpackLimits? = nil,
        memory: Int = 4 << 20, cancellation: Cancellation = Cancellation()
    ) {
        self.blobs = blobs
        self.options = options
        allowance = limits.map { UnpackAllowance($0) }
        self.memory = memory
        self.cancellation = cancellation
    }

    /// What became of a layer.
    package struct Extracted: Sendable {
        /// Of the bytes that came out of the blob.
        package var diffID: DiffID
        /// Bytes of the archive that came out of the blob.
        package var size: Int64
        /// What was left out of the layer, a sentence each.
        package var omissions: [String]
    }

    /// Applies one layer to its end.
    ///
    /// - Parameters:
    ///   - layer: the media type says how the blob is compressed.
    ///   - diffID: what it must be; nil to take it as it is, where only the blob's own digest is known.
    ///   - target: the tree.
    ///   - onEntry: called before each entry with the bytes of the blob that were read so far; throws to stop.
    /// - Throws: `VarveError`: `invalidInput` for a blob that is not the one described, or no layer, or larger than the
    ///   limits. The tree then holds part of the layer.
    @discardableResult
    package func apply(
        _ layer: Descriptor, diffID: DiffID?, to target: ExtractionTarget,
        onEntry: (_ bytesRead: Int64) throws -> Void = { _ in }
    ) throws -> Extracted {
        let bytesRead = SharedCounter()
        let stream = try LayerStream(
            layer, diffID: diffID, from: blobs, budget: MemoryBudget(bytes: memory), bytesRead: bytesRead,
            cancellation: cancellation)
        let applier = LayerApplier(
            root: target.root.fd, isBottom: target.isBottom, options: options, digests: target.digests,
            cancellation: cancellation)
        try stream.apply(with: applier, allowance) {
            try cancellation.check()
            try onEntry(bytesRead.count)
        }
        guard let archive = stream.archive else {
            throw VarveError(.failed, "the layer \(layer.digest) ended before its DiffID was known")
        }
        return Extracted(diffID: archive.diffID, size: archive.size, omissions: applier.omissions)
    }
}
