#if Containerd
    import NIOCore

    /// Answers the PING frames of HTTP/2 (RFC 9113, 6.7) that come from the other side, in front of all else on a connection.
    ///
    /// Go's gRPC, as a client and as a server, pings when it gets data, to find out how much may be under way. NIO's HTTP/2 takes more than 200
    /// control frames in 30 seconds for an attack and closes the connection. A containerd that imports a few images makes more calls than that;
    /// and its client makes those anew that were under way, which then are made twice. One that gets a layer of 100 MB sends as many. So pings
    /// do not come as far as there.
    ///
    /// A client is not answered at once: Go's has one such ping under way, and sends the next with the first data after the answer. Answered at
    /// once, each short call costs both processes a second exchange.
    final class PingAnswers: ChannelDuplexHandler {
        typealias InboundIn = ByteBuffer
        typealias InboundOut = ByteBuffer
        typealias OutboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer

        /// Who is on the other side.
        enum Peer {
            case client
            /// A containerd, which this process has sought out.
            case server
        }

        private let peer: Peer
        /// The client's preface, before its first frame.
        private static let prefaceLength = 24
        private static let headerLength = 9
        private static let pingType: UInt8 = 6
        private static let pingLength = 8
        private static let acknowledgement: UInt8 = 1
        /// How long an answer to a client waits for others.
        private static let delay = TimeAmount.milliseconds(10)
        /// Answers that wait.
        private static let heldLimit = 16

        /// Bytes to come that go on as they are.
        private var passing: Int
        /// The beginning of a frame of which it cannot be told yet what it is.
        private var pending = ByteBuffer()
        /// The first frame of each side must be its settings, which are NIO's to send.
        private var hasWritten = false
        private var hasAnswered = false
        /// Answers that wait for `sending`.
        private var held = ByteBuffer()
        private var sending: Scheduled<Void>?

        init(to peer: Peer) {
            self.peer = peer
            passing = peer == .client ? Self.prefaceLength : 0
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            var bytes = unwrapInboundIn(data)
            if pending.readableBytes > 0 {
                pending.writeBuffer(&bytes)
                swap(&bytes, &pending)
                pending.clear()
            }
            var onward = context.channel.allocator.buffer(capacity: bytes.readableBytes)
            while bytes.readableBytes > 0 {
                if passing > 0 {
                    let count = min(passing, bytes.readableBytes)
                    passing -= count
                    if var part = bytes.readSlice(length: count) { onward.writeBuffer(&part) }
                    continue
                }
                guard let frame = Self.header(of: bytes) else {
                    pending = bytes
                    break
                }
                // A client that does not read its answers is NIO's to stop. To a server there may be much on the way.
                guard frame.type == Self.pingType, frame.flags & Self.acknowledgement == 0,
                    frame.length == Self.pingLength, hasWritten,
                    peer == .server || context.channel.isWritable
                else {
                    passing = Self.headerLength + frame.length
                    continue
                }
                guard bytes.readableBytes >= Self.headerLength + Self.pingLength else {
                    pending = bytes
                    break
                }
                guard var answer = bytes.readSlice(length: Self.headerLength + Self.pingLength) else { break }
                // The same frame, with the flag ACK.
                answer.setInteger(Self.acknowledgement, at: answer.readerIndex + 4)
                switch peer {
                case .client: hold(&answer, context)
                case .server:
                    context.write(wrapOutboundOut(answer), promise: nil)
                    hasAnswered = true
                }
            }
            if onward.readableBytes > 0 { context.fireChannelRead(wrapInboundOut(onward)) }
        }

        private func hold(_ answer: inout ByteBuffer, _ context: ChannelHandlerContext) {
            held.writeBuffer(&answer)
            if held.readableBytes >= Self.heldLimit * (Self.headerLength + Self.pingLength) {
                context.write(wrapOutboundOut(held), promise: nil)
                held = ByteBuffer()
                hasAnswered = true
            } else if sending == nil {
                sending = context.eventLoop.assumeIsolated().scheduleTask(in: Self.delay) { [self] in
                    sending = nil
                    guard held.readableBytes > 0 else { return }
                    context.writeAndFlush(wrapOutboundOut(held), promise: nil)
                    held = ByteBuffer()
                }
            }
        }

        func handlerRemoved(context: ChannelHandlerContext) {
            sending?.cancel()
            sending = nil
        }

        /// Nil if there are too few bytes for one.
        private static func header(of bytes: ByteBuffer) -> (length: Int, type: UInt8, flags: UInt8)? {
            let start = bytes.readerIndex
            guard bytes.readableBytes >= headerLength,
                let word = bytes.getInteger(at: start, as: UInt32.self),
                let flags = bytes.getInteger(at: start + 4, as: UInt8.self)
            else { return nil }
            return (Int(word >> 8), UInt8(truncatingIfNeeded: word), flags)
        }

        func channelReadComplete(context: ChannelHandlerContext) {
            // First NIO's own answers to what was read. A flush before that may make the connection writable again, and then NIO sends data
            // while control frames wait that nobody has flushed, which it takes for a fault of its own.
            context.fireChannelReadComplete()
            if hasAnswered {
                hasAnswered = false
                context.flush()
            }
        }

        func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
            hasWritten = true
            context.write(data, promise: promise)
        }
    }
#endif
