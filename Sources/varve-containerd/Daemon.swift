#if Containerd
    import Glibc
    import Logging
    import VarveContainerd
    import VarveContainerdRPC
    import VarveStore
    import VarveSystem

    /// The daemon from its start to its end.
    struct Daemon {
        private let options: DaemonOptions.Resolved
        private let logger: Logger
        /// How long calls that run may take once the daemon is to end. A crash may come at any moment, so nothing is lost by an end.
        private static let secondsToEnd: UInt32 = 10

        init(_ options: DaemonOptions.Resolved) {
            self.options = options
            let (level, format) = (options.logLevel, options.logFormat)
            logger = Logger(label: "varve-containerd") { _ in DaemonLog(level: level, format) }
        }

        static func exit(_ status: Int32) -> Never { Glibc.exit(status) }

        /// Serves until a signal asks for the end. It is called on the first thread of the process, which then waits for the signals:
        /// all others are started later and have them blocked.
        func run() throws -> Never {
            let signals = EndSignals()
            signal(SIGPIPE, SIG_IGN)
            signal(SIGXFSZ, SIG_IGN)
            umask(0o077)
            let store = try SnapshotStore.open(at: BytePath(options.root), logger: logger)
            try waitUntilFree(store)
            let trees = try DaemonTrees(store, id: options.id)
            // What a daemon that was killed had half built.
            try? WorkerThread.detached(name: "varve-sweep") { store.sweeper.sweep() }
            let snapshotter = try Snapshotter(trees, logger: logger)
            let socket = try ListeningSocket.activated() ?? ListeningSocket.make(at: options.address)
            let server = DaemonServer(
                socket: socket, snapshotter: snapshotter, containerd: options.containerd,
                memory: options.memory,
                logger: logger)
            Task {
                do {
                    try await server.serve()
                    snapshotter.end()
                    Self.exit(0)
                } catch {
                    logger.error("\(DaemonError.sentence(error))")
                    Self.exit(1)
                }
            }
            if let address = options.metrics { try serveMetrics(of: server, at: address) }
            ServiceManager.notify("READY=1")
            logger.info(
                "serves containerd",
                metadata: ["address": "\(options.address)", "root": "\(options.root)", "id": "\(options.id)"])
            let received = signals.wait()
            logger.info("ends after the calls that run now, because of the signal \(received)")
            ServiceManager.notify("STOPPING=1")
            server.stop()
            sleep(Self.secondsToEnd)
            logger.warning("ends without waiting any longer for the calls that still run")
            Self.exit(0)
        }

        private func serveMetrics(of server: DaemonServer, at address: (host: String, port: Int)) throws {
            do {
                let bound = try MetricsServer.start(at: address) { server.metrics() }
                logger.info("serves metrics", metadata: ["address": "http://\(bound)/metrics"])
            } catch {
                throw DaemonError(
                    "cannot serve the metrics at \(address.host), port \(address.port): \(error); name another address, or none"
                )
            }
        }

        /// `varve store check` keeps daemons out for a moment.
        private func waitUntilFree(_ store: SnapshotStore) throws {
            for _ in 0..<30 {
                let place = try ContainerdFolder(of: store).places().first { $0.id == options.id }
                guard try place?.isServed == true else { return }
                usleep(100_000)
            }
        }
    }

    /// SIGTERM and SIGINT, which are waited for and end nothing by themselves.
    struct EndSignals: Sendable {
        private let set: sigset_t

        init() {
            var set = sigset_t()
            unsafe sigemptyset(&set)
            unsafe sigaddset(&set, SIGTERM)
            unsafe sigaddset(&set, SIGINT)
            unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
            self.set = set
        }

        /// The one that came.
        func wait() -> Int32 {
            var set = set
            var signal: Int32 = 0
            while unsafe sigwait(&set, &signal) != 0 {}
            return signal
        }
    }
#endif
