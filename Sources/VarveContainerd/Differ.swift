import VarveFormats
package import Logging
import VarveArchive
package import VarveOCI
import VarveLayers
package import VarveStore
package import VarveSystem

/// What the calls of `diff.v1` do: a blob becomes a tree, and the difference of two trees a blob.
///
/// Requests name mounts, not snapshots. Those that are not of this daemon's own snapshots, and all that it cannot do, are answered
/// with `unimplemented`: containerd then asks the next differ.
package struct Differ: Sendable {
    private let snapshotter: Snapshotter
    private let logger: Logger
    private var trees: DaemonTrees { snapshotter.trees }

    /// The label of a compressed layer's blob that names its DiffID.
    package static let uncompressedLabel = "containerd.io/uncompressed"
    /// The label of a snapshot that names the blobs of its layer and of those above it, with commas between them
    /// (pkg/snapshotters/annotations.go of containerd).
    package static let layersLabel = "containerd.io/snapshot/cri.image-layers"
    /// Layers that are brought into memory while another is applied.
    private static let prefetchLimit = 3

    package init(_ snapshotter: Snapshotter, logger: Logger) {
        self.snapshotter = snapshotter
        self.logger = logger
    }

    // MARK: Apply

    /// Applies a layer to an active snapshot.
    ///
    /// Where the snapshot is a chain to which nobody has written, the chain that the layer makes of it is built as an unpack builds
    /// it, and the snapshot becomes one of that: then every byte in it is the layer's. Otherwise the layer goes onto the tree as it is.
    ///
    /// - Parameters:
    ///   - synchronizes: everything is to be on disk when this returns.
    ///   - memory: bytes for the layer while it is inflated.
    /// - Returns: the uncompressed layer. Its digest is the DiffID.
    package func apply(
        _ layer: Descriptor, to mounts: [SnapshotMount], synchronizes: Bool,
        from content: any ContentStore, memory: Int, _ cancellation: Cancellation
    ) throws -> Descriptor {
        let record = try check(layer, to: mounts)
        let next = Self.layers(after: layer.digest, in: record.labels)
        if !next.isEmpty { content.prefetch(next) }
        var applied: DaemonTrees.AppliedLayer?
        do {
            try snapshotter.changing(record.key) { record in
                if let (result, replaced) = try replace(record, with: layer, content, memory, cancellation) {
                    snapshotter.discard(replaced)
                    applied = result
                    var changed = record
                    changed.chain = result.chain
                    return changed
                }
                applied = try trees.apply(
                    layer, to: record.tree, from: content, memory: memory, cancellation)
                if synchronizes { try trees.synchronize() }
                // From now on it is no snapshot of a chain, which Commit would find out too.
                var changed = record
                changed.chain = nil
                return changed
            }
        } catch {
            throw ServiceError(error)
        }
        guard let applied else {
            throw ServiceError(.internalError, "the layer \(layer.digest) was not applied")
        }
        snapshotter.metrics.count(applied, blobSize: layer.size)
        logger.debug(
            Self.sentence(of: applied.source, layer.digest),
            metadata: ["chain": "\(applied.chain.map { "\($0)" } ?? "none")"])
        return Descriptor(
            mediaType: LayerCompression.none.mediaType, digest: applied.diffID.digest, size: applied.size)
    }

    /// The blobs of the layers above this one, the next first, as the client has named them to Prepare.
    private static func layers(after layer: Digest, in labels: [String: String]) -> [Digest] {
        let names = labels[layersLabel]?.split(atByte: ",") ?? []
        guard let index = names.firstIndex(of: layer.description) else { return [] }
        return names[(index + 1)...].prefix(prefetchLimit).compactMap { Digest($0) }
    }

    private static func sentence(of source: DaemonTrees.AppliedLayer.Source, _ layer: Digest)
        -> Logger.Message
    {
        switch source {
        case .built, .private: "applied the layer \(layer)"
        case .found: "the store holds what the layer \(layer) gives"
        case .adopted: "the layer \(layer) was written of a tree that is there"
        }
    }

    /// The snapshot that the layer is to be applied to; throws if this is not for this differ.
    ///
    /// The media type alone tells whether the layer has to go through a stream processor, such as one that decrypts. Payloads for
    /// processors say nothing: CRI sends those for decryption with each layer, encrypted or not.
    @discardableResult
    package func check(_ layer: Descriptor, to mounts: [SnapshotMount]) throws(ServiceError)
        -> SnapshotRecord
    {
        guard (try? LayerMediaType(layer.mediaType)) != nil else {
            throw ServiceError(
                .unimplemented, "blobs of the type \(layer.mediaType.shown) are not applied here")
        }
        let record = try own(mounts, for: "apply a layer to")
        guard record.kind == .active, mounts.allSatisfy({ !$0.options.contains("ro") }) else {
            throw ServiceError(
                .failedPrecondition, "the snapshot \(record.key.text.shown) is not one that can be written to"
            )
        }
        return record
    }

    /// The name space of containerd's to which a snapshot belongs, as far as its key tells: containerd 1.7 gives its plugins none. A wrong answer finds no blob, or no use: blobs go by their digests.
    package func namespace(of mounts: [SnapshotMount]) -> String? {
        guard let record = try? own(mounts, for: "look at") else { return nil }
        return record.key.namespace
    }

    /// Nil if the snapshot is not a chain to which nobody has written.
    private func replace(
        _ record: SnapshotRecord, with layer: Descriptor, _ content: any ContentStore, _ memory: Int,
        _ cancellation: Cancellation
    ) throws -> (DaemonTrees.AppliedLayer, replaced: BytePath)? {
        // Whoever has it mounted would go on seeing the tree that is there now.
        guard record.chain != nil || record.parent.isEmpty, try !trees.isMounted(record.tree) else {
            return nil
        }
        return try trees.replace(
            record.tree, with: layer, on: record.chain, from: content, memory: memory, cancellation)
    }

    // MARK: Diff

    /// Writes what `right` has and `left` has not as a blob.
    ///
    /// - Parameters:
    ///   - left: empty for nothing at all.
    ///   - mediaType: empty for tar+gzip.
    ///   - latestTime: times later than this become this.
    package func diff(
        from left: [SnapshotMount], to right: [SnapshotMount], mediaType: String, reference: String,
        labels: [String: String], latestTime: Timestamp?, into content: any ContentStore, threads: Int,
        _ cancellation: Cancellation
    ) throws -> Descriptor {
        let (mediaType, compression) = try check(left, right, mediaType: mediaType)
        do {
            let old = left.isEmpty ? .frozen(DaemonTrees.emptyTree) : try side(left)
            let new = try side(right)
            let writer = try content.write(reference: reference)
            let sink = HashingSink(writer)
            let packed = try trees.pack(
                from: old, to: new, compression, threads: threads, latestTime: latestTime, into: sink,
                cancellation)
            try cancellation.throwIfCancelled()
            var labels = labels
            if compression != .none { labels[Self.uncompressedLabel] = packed.diffID.description }
            try writer.commit(digest: sink.digest, size: sink.size, labels: labels)
            snapshotter.metrics.count(packed, blobSize: sink.size)
            let blob = Descriptor(mediaType: mediaType, digest: sink.digest, size: sink.size)
            trees.remember(packed, blob)
            logger.debug(
                "wrote the layer \(sink.digest)",
                metadata: ["changes": "\(packed.changes)", "source": "\(packed.source.rawValue)"])
            return blob
        } catch {
            throw ServiceError(error)
        }
    }

    /// What is to be written; throws if this is not for this differ.
    @discardableResult
    package func check(_ left: [SnapshotMount], _ right: [SnapshotMount], mediaType: String)
        throws(ServiceError)
        -> (mediaType: String, compression: LayerCompression)
    {
        let mediaType = mediaType.isEmpty ? LayerCompression.gzip.mediaType : mediaType
        guard let type = try? LayerMediaType(mediaType), !type.isNondistributable else {
            throw ServiceError(.unimplemented, "blobs of the type \(mediaType.shown) are not written here")
        }
        if !left.isEmpty { _ = try own(left, for: "compare") }
        _ = try own(right, for: "compare")
        return (mediaType, type.compression)
    }

    private func side(_ mounts: [SnapshotMount]) throws -> DaemonTrees.Side {
        let record = try own(mounts, for: "compare")
        switch record.kind {
        case .active: return .active(record.tree)
        case .committed: return side(ofCommitted: record)
        case .view:
            // It is its parent. The trees of those are what descends from each other.
            guard (try? trees.isUnchanged(record.tree)) == true else { return .frozen(record.tree) }
            if let parent = snapshotter.parent(of: record) { return side(ofCommitted: parent) }
            return .frozen(record.parent.isEmpty ? DaemonTrees.emptyTree : record.tree)
        }
    }

    private func side(ofCommitted record: SnapshotRecord) -> DaemonTrees.Side {
        record.chain.map { .chain($0, fallback: record.tree) } ?? .frozen(record.tree, origin: record.origin)
    }

    private func own(_ mounts: [SnapshotMount], for purpose: String) throws(ServiceError) -> SnapshotRecord {
        guard mounts.count == 1, let mount = mounts.first, let record = snapshotter.snapshot(at: mount) else {
            throw ServiceError(
                .unimplemented, "cannot \(purpose) what is no mount of a snapshot of this daemon's")
        }
        return record
    }
}

/// Takes digest and size of what is written.
private final class HashingSink: ByteSink {
    private let downstream: any ByteSink
    private var hasher = DigestHasher()
    private var result: Digest?
    private(set) var size: Int64 = 0

    init(_ downstream: any ByteSink) { self.downstream = downstream }

    var digest: Digest { result ?? hasher.finish() }

    func write(_ bytes: UnsafeRawBufferPointer) throws {
        unsafe hasher.update(bytes)
        size += Int64(bytes.count)
        try unsafe downstream.write(bytes)
    }

    func finish() throws {
        if result == nil { result = hasher.finish() }
        try downstream.finish()
    }
}
