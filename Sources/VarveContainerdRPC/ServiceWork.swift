#if Containerd
    import GRPCCore
    import VarveContainerd
    import VarveStore

    extension RPCError {
        init(_ error: ServiceError) {
            let code: Code =
                switch error.code {
                case .invalidArgument: .invalidArgument
                case .notFound: .notFound
                case .alreadyExists: .alreadyExists
                case .failedPrecondition: .failedPrecondition
                case .unimplemented: .unimplemented
                case .resourceExhausted: .resourceExhausted
                case .cancelled: .cancelled
                case .unavailable: .unavailable
                case .internalError: .internalError
                }
            self.init(code: code, message: error.message)
        }

        /// What any error of a service is to its client.
        init(converting error: any Error) {
            if let error = error as? RPCError { self = error } else { self.init(ServiceError(error)) }
        }
    }

    /// Runs what waits for the disk on threads of a workshop, so that the threads of gRPC never do: as many at a time as it allows;
    /// the others wait in line.
    struct ServiceWork: Sendable {
        private let workshop: Workshop
        /// Calls that may wait in line.
        private let lineLimit: Int

        init(_ workshop: Workshop, lineLimit: Int) {
            self.workshop = workshop
            self.lineLimit = lineLimit
        }

        /// A call whose client has gone, or whose deadline has passed, is asked to stop.
        ///
        /// - Throws: `RPCError`.
        func run<R: Sendable>(_ body: @escaping @Sendable (WorkPlace) throws -> R) async throws -> R {
            guard workshop.load.waiting < lineLimit else {
                throw RPCError(
                    code: .resourceExhausted, message: "\(lineLimit) calls wait already; try again later")
            }
            let ticket = workshop.ticket()
            return try await withTaskCancellationHandler {
                try await withRPCCancellationHandler {
                    try await withCheckedThrowingContinuation {
                        (continuation: CheckedContinuation<R, any Error>) in
                        workshop.enter(ticket) { place in
                            let result = place.mapError { $0 as any Error }.flatMap { place in
                                Result { try body(place) }
                            }
                            return { continuation.resume(with: result.mapError { RPCError(converting: $0) }) }
                        }
                    }
                } onCancelRPC: {
                    workshop.cancel(ticket)
                }
            } onCancel: {
                workshop.cancel(ticket)
            }
        }
    }
#endif
