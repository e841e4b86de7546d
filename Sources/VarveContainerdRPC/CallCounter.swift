#if Containerd
    import GRPCCore
    import VarveContainerd
    import VarveSystem

    /// Counts all calls of all services, and how long they took.
    struct CallCounter: ServerInterceptor {
        let metrics: Metrics

        func intercept<Input: Sendable, Output: Sendable>(
            request: StreamingServerRequest<Input>, context: ServerContext,
            next:
                @Sendable (StreamingServerRequest<Input>, ServerContext) async throws ->
                StreamingServerResponse<Output>
        ) async throws -> StreamingServerResponse<Output> {
            let call = Metrics.Call(
                service: context.descriptor.service.fullyQualifiedService, method: context.descriptor.method)
            let start = monotonicSeconds()
            let count = { @Sendable [metrics] (code: String) in
                metrics.count(call, code: code, seconds: monotonicSeconds() - start)
            }
            var response: StreamingServerResponse<Output>
            do {
                response = try await next(request, context)
            } catch {
                count(Self.name(of: error))
                throw error
            }
            switch response.accepted {
            case .failure(let error): count(Self.name(of: error))
            case .success(var contents):
                let produce = contents.producer
                contents.producer = { writer in
                    do {
                        let metadata = try await produce(writer)
                        count("OK")
                        return metadata
                    } catch {
                        count(Self.name(of: error))
                        throw error
                    }
                }
                response.accepted = .success(contents)
            }
            return response
        }

        /// The code as gRPC calls it in Go and in metrics: `NotFound`.
        private static func name(of error: any Error) -> String {
            if error is CancellationError { return "Canceled" }
            let code = ((error as? RPCError)?.code ?? .unknown).description
            // One L in gRPC's own names.
            return code == "cancelled" ? "Canceled" : code.prefix(1).uppercased() + code.dropFirst()
        }
    }
#endif
