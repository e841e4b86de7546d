#if Containerd
    import ContainerdInterface
    import GRPCCore
    import SwiftProtobuf
    import VarveContainerd
    import VarveOCI
    import VarveStore
    import VarveSystem

    /// `containerd.services.diff.v1.Diff`: what comes over the wire as calls of a `Differ`. Blobs come from and go to the content
    /// store of the containerd at `containerd`, in the name space of the call.
    struct DiffService: Containerd_Services_Diff_V1_Diff.ServiceProtocol {
        /// Bytes for a layer while it is inflated, where they are free.
        private static let memory = 64 << 20
        /// Threads that compress a new layer, where they are free.
        private static let threads = 8

        let differ: Differ
        let containerd: ContainerdClient
        let work: ServiceWork

        func apply(
            request: ServerRequest<Containerd_Services_Diff_V1_ApplyRequest>, context: ServerContext
        ) async throws -> ServerResponse<Containerd_Services_Diff_V1_ApplyResponse> {
            let message = request.message
            guard let digest = Digest(message.diff.digest), message.diff.size >= 0 else {
                throw RPCError(
                    code: .invalidArgument, message: "the layer to apply has no valid digest and size")
            }
            let layer = Descriptor(mediaType: message.diff.mediaType, digest: digest, size: message.diff.size)
            let mounts = message.mounts.map { SnapshotMount($0) }
            try Self.status { try differ.check(layer, to: mounts) }
            let synchronizes = message.syncFs
            let applied = try await containerd.withSession(
                for: request.metadata, namespace: differ.namespace(of: mounts), leases: false
            ) { session in
                try await work.run { [differ] place in
                    try differ.apply(
                        layer, to: mounts, synchronizes: synchronizes, from: session,
                        memory: place.memory(upTo: Self.memory), place.cancellation)
                }
            }
            return ServerResponse(message: .with { $0.applied = Containerd_Types_Descriptor(applied) })
        }

        func diff(
            request: ServerRequest<Containerd_Services_Diff_V1_DiffRequest>, context: ServerContext
        ) async throws -> ServerResponse<Containerd_Services_Diff_V1_DiffResponse> {
            let message = request.message
            let left = message.left.map { SnapshotMount($0) }
            let right = message.right.map { SnapshotMount($0) }
            let latestTime = try message.hasSourceDateEpoch ? Self.time(message.sourceDateEpoch) : nil
            let (mediaType, reference, labels) = (message.mediaType, message.ref, message.labels)
            try Self.status { try differ.check(left, right, mediaType: mediaType) }
            let written = try await containerd.withSession(
                for: request.metadata, namespace: differ.namespace(of: right), leases: true
            ) { session in
                try await work.run { [differ] place in
                    try differ.diff(
                        from: left, to: right, mediaType: mediaType, reference: reference, labels: labels,
                        latestTime: latestTime, into: session,
                        threads: 2 + place.helpers(upTo: Self.threads - 2),
                        place.cancellation)
                }
            }
            return ServerResponse(message: .with { $0.diff = Containerd_Types_Descriptor(written) })
        }

        /// What is not for this differ is said before containerd is asked for anything.
        private static func status(_ body: () throws -> Void) throws {
            do { try body() } catch { throw RPCError(converting: error) }
        }

        private static func time(_ message: Google_Protobuf_Timestamp) throws(RPCError) -> Timestamp {
            guard (0..<1_000_000_000).contains(message.nanos) else {
                throw RPCError(code: .invalidArgument, message: "source_date_epoch is not a time")
            }
            return Timestamp(seconds: message.seconds, nanoseconds: UInt32(message.nanos))
        }
    }

    extension Containerd_Types_Descriptor {
        init(_ descriptor: Descriptor) {
            self.init()
            mediaType = descriptor.mediaType
            digest = descriptor.digest.description
            size = descriptor.size
        }
    }
#endif
