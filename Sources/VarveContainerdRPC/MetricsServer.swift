#if Containerd
    import NIOCore
    import NIOHTTP1
    import NIOPosix
    import Synchronization
    import VarveFormats

    /// Answers `GET /metrics` on a TCP address, for Prometheus.
    ///
    /// A connection has one request, a few seconds, and as few bytes as NIO's decoder takes for a head; what comes after the head is
    /// not kept. Of too many at a time the oldest is closed: whoever only holds them open keeps nobody away.
    package enum MetricsServer {
        /// The address of this host alone, where no other is given.
        package static let defaultHost = "127.0.0.1"
        private static let connectionLimit = 16
        private static let timeout = TimeAmount.seconds(10)

        /// `HOST:PORT`, `:PORT` or `PORT`; an IPv6 address is in brackets. Nil for what is no address.
        package static func address(_ text: String) -> (host: String, port: Int)? {
            var host = Substring(defaultHost)
            var port = text[...]
            if let colon = text.utf8.lastIndex(of: UInt8(ascii: ":")) {
                port = text[text.index(after: colon)...]
                let named = text[..<colon]
                if named.hasPrefix("["), named.hasSuffix("]") {
                    host = named.dropFirst().dropLast()
                } else if !named.isEmpty {
                    guard !named.utf8.contains(UInt8(ascii: ":")) else { return nil }
                    host = named
                }
            }
            guard !host.isEmpty, port.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
                let port = UInt16(port)
            else { return nil }
            return (String(host), Int(port))
        }

        /// Listens from when this returns to the end of the process.
        ///
        /// - Parameter text: called for each request, on a thread of the network: it must not wait for the disk.
        /// - Returns: the address that it listens at, with the port that it was given if that was 0.
        package static func start(
            at address: (host: String, port: Int), _ text: @escaping @Sendable () -> String
        ) throws -> String {
            let connections = OpenConnections(limit: connectionLimit)
            let channel = try ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .childChannelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        connections.opened(channel)?.close(promise: nil)
                        channel.closeFuture.whenComplete { _ in connections.closed(channel) }
                        let pipeline = channel.pipeline.syncOperations
                        try pipeline.configureHTTPServerPipeline()
                        try pipeline.addHandler(MetricsHandler(text))
                        channel.eventLoop.scheduleTask(in: timeout) { channel.close(promise: nil) }
                    }
                }
                .bind(host: address.host, port: address.port).wait()
            return channel.localAddress.map { address in
                "\(address.ipAddress ?? "?"):\(address.port ?? 0)"
            } ?? ""
        }
    }

    private final class OpenConnections: Sendable {
        private let limit: Int
        /// The oldest first.
        private let channels = Mutex<[any Channel]>([])

        init(limit: Int) { self.limit = limit }

        /// The one that has to go for it, if there are too many.
        func opened(_ channel: any Channel) -> (any Channel)? {
            channels.withLock { channels in
                channels.append(channel)
                return channels.count > limit ? channels.removeFirst() : nil
            }
        }

        func closed(_ channel: any Channel) {
            channels.withLock { channels in channels.removeAll { $0 === channel } }
        }
    }

    /// One request of one connection.
    private final class MetricsHandler: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        typealias OutboundOut = HTTPServerResponsePart

        private static let textType = "text/plain; version=0.0.4; charset=utf-8"
        private let text: @Sendable () -> String
        private var isAnswered = false

        init(_ text: @escaping @Sendable () -> String) { self.text = text }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            // What a request has beside its head is of no use here.
            guard case .head(let head) = unwrapInboundIn(data), !isAnswered else { return }
            isAnswered = true
            let path = head.uri.split(atByte: "?", maxSplits: 1).first ?? ""
            if head.method != .GET, head.method != .HEAD {
                answer(context, head, .methodNotAllowed, "only GET is answered here\n")
            } else if path == "/metrics" {
                answer(context, head, .ok, text())
            } else {
                answer(context, head, .notFound, "the figures are at /metrics\n")
            }
        }

        private func answer(
            _ context: ChannelHandlerContext, _ request: HTTPRequestHead, _ status: HTTPResponseStatus,
            _ text: String
        ) {
            var head = HTTPResponseHead(version: request.version, status: status)
            head.headers.add(name: "Content-Type", value: Self.textType)
            head.headers.add(name: "Content-Length", value: "\(text.utf8.count)")
            head.headers.add(name: "Connection", value: "close")
            context.write(wrapOutboundOut(.head(head)), promise: nil)
            if request.method != .HEAD {
                context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: text)))), promise: nil)
            }
            let channel = context.channel
            context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { _ in
                channel.close(promise: nil)
            }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            context.close(promise: nil)
        }
    }
#endif
