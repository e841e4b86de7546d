#if Containerd
    import ContainerdInterface
    import GRPCCore
    import SwiftProtobuf
    import VarveContainerd
    import VarveStore
    import VarveSystem

    /// `containerd.services.snapshots.v1.Snapshots`: what comes over the wire as calls of a `Snapshotter`.
    ///
    /// The name of the snapshotter in each request is the one that containerd's configuration gives this plugin; there is one here,
    /// so it is not asked for.
    struct SnapshotsService: Containerd_Services_Snapshots_V1_Snapshots.SimpleServiceProtocol {
        private typealias Message = Containerd_Services_Snapshots_V1_Info
        /// Snapshots in one message of List, as containerd itself sends them.
        private static let listBlock = 100

        let snapshotter: Snapshotter
        let work: ServiceWork

        func prepare(
            request: Containerd_Services_Snapshots_V1_PrepareSnapshotRequest, context: ServerContext
        ) async throws -> Containerd_Services_Snapshots_V1_PrepareSnapshotResponse {
            let mounts = try await work.run { [snapshotter] _ in
                try snapshotter.make(
                    .active, SnapshotKey(request.key), parent: SnapshotKey(request.parent),
                    labels: request.labels)
            }
            return .with { $0.mounts = mounts.map(\.message) }
        }

        func view(
            request: Containerd_Services_Snapshots_V1_ViewSnapshotRequest, context: ServerContext
        ) async throws -> Containerd_Services_Snapshots_V1_ViewSnapshotResponse {
            let mounts = try await work.run { [snapshotter] _ in
                try snapshotter.make(
                    .view, SnapshotKey(request.key), parent: SnapshotKey(request.parent),
                    labels: request.labels)
            }
            return .with { $0.mounts = mounts.map(\.message) }
        }

        func mounts(
            request: Containerd_Services_Snapshots_V1_MountsRequest, context: ServerContext
        ) async throws -> Containerd_Services_Snapshots_V1_MountsResponse {
            let mounts = try status { () throws(ServiceError) in
                try snapshotter.mounts(SnapshotKey(request.key))
            }
            return .with { $0.mounts = mounts.map(\.message) }
        }

        func commit(
            request: Containerd_Services_Snapshots_V1_CommitSnapshotRequest, context: ServerContext
        ) async throws -> Google_Protobuf_Empty {
            try await work.run { [snapshotter] _ in
                try snapshotter.commit(
                    SnapshotKey(request.name), from: SnapshotKey(request.key), labels: request.labels,
                    parent: SnapshotKey(request.parent))
            }
            return Google_Protobuf_Empty()
        }

        func remove(
            request: Containerd_Services_Snapshots_V1_RemoveSnapshotRequest, context: ServerContext
        ) async throws -> Google_Protobuf_Empty {
            try await work.run { [snapshotter] _ in try snapshotter.remove(SnapshotKey(request.key)) }
            return Google_Protobuf_Empty()
        }

        func stat(
            request: Containerd_Services_Snapshots_V1_StatSnapshotRequest, context: ServerContext
        ) async throws -> Containerd_Services_Snapshots_V1_StatSnapshotResponse {
            let record = try status { () throws(ServiceError) in
                try snapshotter.record(SnapshotKey(request.key))
            }
            return .with { $0.info = Message(record) }
        }

        func update(
            request: Containerd_Services_Snapshots_V1_UpdateSnapshotRequest, context: ServerContext
        ) async throws -> Containerd_Services_Snapshots_V1_UpdateSnapshotResponse {
            let record = try await work.run { [snapshotter] _ in
                try snapshotter.update(
                    SnapshotKey(request.info.name), labels: request.info.labels,
                    paths: request.updateMask.paths)
            }
            return .with { $0.info = Message(record) }
        }

        func list(
            request: Containerd_Services_Snapshots_V1_ListSnapshotsRequest,
            response: RPCWriter<Containerd_Services_Snapshots_V1_ListSnapshotsResponse>,
            context: ServerContext
        ) async throws {
            let filters = try request.filters.map { text in
                try status { () throws(ServiceError) in try SnapshotFilter(text) }
            }
            var rest = snapshotter.list(filters)[...]
            while !rest.isEmpty {
                let block = rest.prefix(Self.listBlock)
                rest = rest.dropFirst(Self.listBlock)
                try await response.write(.with { $0.info = block.map { Message($0) } })
            }
        }

        func usage(
            request: Containerd_Services_Snapshots_V1_UsageRequest, context: ServerContext
        ) async throws -> Containerd_Services_Snapshots_V1_UsageResponse {
            let usage = try await work.run { [snapshotter] _ in
                try snapshotter.usage(SnapshotKey(request.key))
            }
            return .with {
                $0.size = usage.size
                $0.inodes = usage.inodes
            }
        }

        func cleanup(
            request: Containerd_Services_Snapshots_V1_CleanupRequest, context: ServerContext
        ) async throws -> Google_Protobuf_Empty {
            try await work.run { [snapshotter] _ in snapshotter.cleanUp() }
            return Google_Protobuf_Empty()
        }

        /// For what is answered from memory.
        private func status<R>(_ body: () throws(ServiceError) -> R) throws(RPCError) -> R {
            do throws(ServiceError) { return try body() } catch { throw RPCError(error) }
        }
    }

    extension SnapshotMount {
        var message: Containerd_Types_Mount {
            .with {
                $0.type = type
                $0.source = source
                $0.target = target
                $0.options = options
            }
        }

        init(_ message: Containerd_Types_Mount) {
            self.init(
                type: message.type, source: message.source, target: message.target, options: message.options)
        }
    }

    extension Google_Protobuf_Timestamp {
        init(_ time: Timestamp) { self.init(seconds: time.seconds, nanos: Int32(time.nanoseconds)) }
    }

    extension Containerd_Services_Snapshots_V1_Info {
        init(_ record: SnapshotRecord) {
            self.init()
            name = record.key.text
            parent = record.parent.text
            kind =
                switch record.kind {
                case .view: .view
                case .active: .active
                case .committed: .committed
                }
            createdAt = Google_Protobuf_Timestamp(record.created)
            updatedAt = Google_Protobuf_Timestamp(record.updated)
            labels = record.labels
        }
    }
#endif
