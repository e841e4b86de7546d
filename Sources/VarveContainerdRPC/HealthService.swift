#if Containerd
    import ContainerdInterface
    import GRPCCore
    import SwiftProtobuf

    /// `grpc.health.v1.Health`: whoever gets an answer has a daemon that serves.
    struct HealthService: Grpc_Health_V1_Health.SimpleServiceProtocol {
        private static let services = [
            "", "containerd.services.snapshots.v1.Snapshots", "containerd.services.diff.v1.Diff",
        ]

        func check(
            request: Grpc_Health_V1_HealthCheckRequest, context: ServerContext
        ) async throws -> Grpc_Health_V1_HealthCheckResponse {
            guard Self.services.contains(request.service) else {
                throw RPCError(code: .notFound, message: "there is no such service here")
            }
            return .with { $0.status = .serving }
        }

        func watch(
            request: Grpc_Health_V1_HealthCheckRequest,
            response: RPCWriter<Grpc_Health_V1_HealthCheckResponse>,
            context: ServerContext
        ) async throws {
            let isKnown = Self.services.contains(request.service)
            try await response.write(.with { $0.status = isKnown ? .serving : .serviceUnknown })
            // Nothing changes until the end of the daemon, which ends the call.
            try await context.cancellation.cancelled
        }
    }
#endif
