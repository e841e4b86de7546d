#if Containerd
    import GRPCCore
    import GRPCNIOTransportHTTP2Posix
    import NIOCore
    import NIOPosix
    package import Logging
    package import VarveContainerd
    import VarveStore

    /// Serves snapshots, differ and health on one listening socket.
    package struct DaemonServer: Sendable {
        /// Bytes of a request. A Commit has as many labels as an image has.
        private static let requestLimit = 16 << 20
        /// Calls that may wait for a place, of each kind.
        private static let lineLimit = 4096

        private let server: GRPCServer<HTTP2ServerTransport.Posix>
        /// One thread for all connections: what takes long is on the threads of the workshops.
        private let loops: MultiThreadedEventLoopGroup
        private let snapshotter: Snapshotter
        private let workshops: [(kind: String, workshop: Workshop)]

        /// - Parameters:
        ///   - socket: the descriptor of a listening socket, which is the server's from now on.
        ///   - containerd: the path of containerd's own socket.
        ///   - memory: bytes for all layers that are inflated at the same time.
        package init(
            socket: Int32, snapshotter: Snapshotter, containerd: String, memory: Int, logger: Logger
        ) {
            // Short calls never wait behind long ones: containerd makes them under its locks.
            let short = Workshop(Workshop.Limits(calls: 8, helpers: 0))
            let long = Workshop(Workshop.Limits(calls: 4, memory: memory))
            self.snapshotter = snapshotter
            workshops = [("short", short), ("long", long)]
            loops = MultiThreadedEventLoopGroup(numberOfThreads: 1)
            let transport = HTTP2ServerTransport.Posix(
                listeningSocketDescriptor: Int(socket), transportSecurity: .plaintext,
                config: .defaults {
                    $0.rpc.maxRequestPayloadSize = Self.requestLimit
                    // Else each answer waits for 100 µs for others to come.
                    $0.connection.flushCoalescing = nil
                    $0.channelDebuggingCallbacks.onAcceptTCPConnection = { channel in
                        channel.eventLoop.makeCompletedFuture {
                            try channel.pipeline.syncOperations.addHandler(
                                PingAnswers(to: .client), position: .first)
                        }
                    }
                },
                eventLoopGroup: loops)
            server = GRPCServer(
                transport: transport,
                services: [
                    SnapshotsService(
                        snapshotter: snapshotter, work: ServiceWork(short, lineLimit: Self.lineLimit)),
                    DiffService(
                        differ: Differ(snapshotter, logger: logger),
                        containerd: ContainerdClient(address: containerd, logger: logger),
                        work: ServiceWork(long, lineLimit: Self.lineLimit)),
                    HealthService(),
                ],
                interceptors: [CallCounter(metrics: snapshotter.metrics)])
        }

        /// Serves until `stop` is called and all calls have ended.
        package func serve() async throws {
            let served: Result<Void, any Error>
            do {
                try await withTaskExecutorPreference(EventLoopTaskExecutor(loops.next())) {
                    try await server.serve()
                }
                served = .success(())
            } catch {
                served = .failure(error)
            }
            try? await loops.shutdownGracefully()
            try served.get()
        }

        /// What the daemon has counted, and what there is now, as Prometheus reads it.
        package func metrics() -> String {
            var present = snapshotter.present()
            present.work = workshops.map { kind, workshop in
                let load = workshop.load
                return (kind, load.running, load.waiting)
            }
            return snapshotter.metrics.text(present)
        }

        /// Takes no more calls. Those that run go on.
        package func stop() { server.beginGracefulShutdown() }
    }
#endif
