#if Containerd
    import VarveFormats

    import ContainerdInterface
    import FoundationEssentials
    import Glibc
    import GRPCCore
    import GRPCNIOTransportHTTP2Posix
    import Logging
    import NIOCore
    import SwiftProtobuf
    import Synchronization
    import SystemPackage
    import VarveArchive
    import VarveContainerd
    import VarveOCI
    import VarveStore
    import VarveSystem

    /// The containerd whose plugin this daemon is: its content store and its leases. Each call of the differ has a connection of its
    /// own, so it does not matter how often containerd was started meanwhile.
    struct ContainerdClient: Sendable {
        /// The path of its socket.
        let address: String
        let logger: Logger

        private static let namespaceHeader = "containerd-namespace"
        private static let leaseHeader = "containerd-lease"
        /// How long a lease holds what was written: until whoever asked for it has named it.
        private static let leaseSeconds: Int64 = 3600

        /// Runs `body` with a connection, which is made when the first call needs it.
        ///
        /// - Parameters:
        ///   - metadata: of the call that this is for. It names the name space, if it comes from containerd 2.
        ///   - namespace: the name space if the call names none, as those of containerd 1.7 to its plugins.
        ///   - leases: what is written is held by a lease. That of the client does not get to a plugin, and what nothing holds
        ///     is collected while the client is still at work.
        func withSession<R: Sendable>(
            for metadata: Metadata, namespace: String?, leases: Bool,
            _ body: @Sendable (ContentSession) async throws -> R
        ) async throws -> R {
            let named = metadata[stringValues: Self.namespaceHeader].first { !$0.isEmpty }
            guard let namespace = named ?? namespace else {
                throw RPCError(
                    code: .failedPrecondition, message: "the call names no name space of containerd")
            }
            var own = Metadata()
            own.addString(namespace, forKey: Self.namespaceHeader)
            let transport = try HTTP2ClientTransport.Posix(
                target: .unixDomainSocket(path: address), transportSecurity: .plaintext,
                config: .defaults {
                    $0.channelDebuggingCallbacks.onCreateTCPConnection = { channel in
                        channel.eventLoop.makeCompletedFuture {
                            try channel.pipeline.syncOperations.addHandler(
                                PingAnswers(to: .server), position: .first)
                        }
                    }
                })
            let connection = ContainerdConnection(transport)
            let result: Result<R, any Error>
            do {
                result = .success(try await withLease(on: connection, own, takes: leases, body))
            } catch {
                result = .failure(error)
            }
            await connection.end()
            return try result.get()
        }

        private func withLease<R: Sendable>(
            on connection: ContainerdConnection, _ metadata: Metadata, takes leases: Bool,
            _ body: @Sendable (ContentSession) async throws -> R
        ) async throws -> R {
            var own = metadata
            if leases {
                let lease = try await Containerd_Services_Leases_V1_Leases.Client(wrapping: connection.client)
                    .create(
                        .with {
                            $0.labels = [
                                "containerd.io/gc.expire": RFC3339.format(
                                    Timestamp(seconds: Timestamp.now().seconds + Self.leaseSeconds))
                            ]
                        }, metadata: own)
                own.addString(lease.lease.id, forKey: Self.leaseHeader)
            }
            let session = ContentSession(connection, own, logger)
            // Whoever waits for containerd looks at nothing else.
            return try await withRPCCancellationHandler {
                try await body(session)
            } onCancelRPC: {
                session.cancel()
            }
        }
    }

    /// A connection that is made when it is used first: a layer that the store holds needs none.
    private final class ContainerdConnection: Sendable {
        typealias Client = GRPCClient<ContentSession.Transport>
        private let unused: Client
        private let running = Mutex<Task<Void, Never>?>(nil)

        init(_ transport: ContentSession.Transport) { unused = GRPCClient(transport: transport) }

        var client: Client {
            running.withLock { running in
                if running == nil { running = Task { [unused] in try? await unused.runConnections() } }
            }
            return unused
        }

        /// Returns when all calls have ended.
        func end() async {
            guard let task = running.withLock({ $0 }) else { return }
            unused.beginGracefulShutdown()
            await task.value
        }
    }

    /// containerd's content store, for one call.
    final class ContentSession: ContentStore {
        typealias Transport = HTTP2ClientTransport.Posix
        private let connection: ContainerdConnection
        private let metadata: Metadata
        private let logger: Logger
        private var content: Containerd_Services_Content_V1_Content.Client<Transport> {
            .init(wrapping: connection.client)
        }
        private var introspection: Containerd_Services_Introspection_V1_Introspection.Client<Transport> {
            .init(wrapping: connection.client)
        }
        /// Ends what is under way.
        private let endings = Mutex<(isCancelled: Bool, endings: [@Sendable () -> Void])>((false, []))
        /// The type of containerd's content store among its plugins.
        private static let contentPlugin = "io.containerd.content.v1"
        /// Bytes of the layers to come that are brought into memory at a time.
        private static let prefetchSize: Int64 = 256 << 20
        /// Messages of a blob that wait to be read. containerd's have 1 MiB at most.
        private static let readAhead = 8

        fileprivate init(_ connection: ContainerdConnection, _ metadata: Metadata, _ logger: Logger) {
            self.connection = connection
            self.logger = logger
            self.metadata = metadata
        }

        /// From the file in which containerd keeps the blob, where this process finds it; else through the socket, by which each
        /// byte is copied several times in two processes.
        func bytes(of blob: Descriptor) throws -> sending any ByteSource {
            if let file = try file(of: blob) {
                logger.debug("reads the blob \(blob.digest) from containerd's file")
                return FileSource(file, limit: blob.size)
            }
            let pipe = InwardPipe<Data>(limit: Self.readAhead)
            let task = Task { [content, metadata] in
                do {
                    try await content.read(.with { $0.digest = blob.digest.description }, metadata: metadata)
                    { response in
                        for try await message in response.messages {
                            guard await pipe.send(message.data) else { throw CancellationError() }
                        }
                    }
                    pipe.finish(.success(()))
                } catch {
                    pipe.finish(.failure(Self.error(error, "read the blob \(blob.digest) from containerd")))
                }
            }
            onCancel { task.cancel() }
            return PipeSource(pipe, task)
        }

        /// The file of a blob that the name space has. Nil where it cannot be found or is another one, as in another mount name
        /// space than containerd's. What is read from it is checked against the digest, like all that is read.
        private func file(of blob: Descriptor) throws -> SharedDescriptor? {
            let found = Outcome<(size: Int64, root: String?)>()
            let task = Task { [self] in
                do { found.set(.success(try await place(of: blob.digest))) } catch {
                    found.set(.failure(Self.error(error, "find the blob \(blob.digest) in containerd")))
                }
            }
            onCancel { task.cancel() }
            let (size, root) = try found.wait()
            // A blob of another size than it should have is for the reader to refuse.
            guard size == blob.size else { return nil }
            return Self.file(of: blob.digest, root, size: size)
        }

        /// The size of a blob that the name space has, and the directory of containerd's content store.
        private func place(of digest: Digest) async throws -> (size: Int64, root: String?) {
            let info = try await content.info(.with { $0.digest = digest.description }, metadata: metadata)
            let plugins = try? await introspection.plugins(
                .with { $0.filters = ["type==\(Self.contentPlugin)"] })
            return (info.info.size, plugins?.plugins.first { $0.type == Self.contentPlugin }?.exports["root"])
        }

        private static func file(of digest: Digest, _ root: String?, size: Int64) -> SharedDescriptor? {
            guard let root, root.hasPrefix("/") else { return nil }
            let path = BytePath("\(root)/blobs/\(digest.algorithm.rawValue)/\(digest.hex)")
            guard let file = try? SharedDescriptor(FileDescriptor.workingDirectory.openRegularFile(path)),
                let status = try? file.fd.status(), status.size == size
            else { return nil }
            return file
        }

        /// Has the kernel read the files of blobs that the name space has, on a thread that nobody waits for.
        func prefetch(_ blobs: [Digest]) {
            let task = Task { [self] in
                var room = Self.prefetchSize
                for digest in blobs {
                    guard room > 0, let (size, root) = try? await place(of: digest),
                        let file = Self.file(of: digest, root, size: size)
                    else { return }
                    let count = min(size, room)
                    room -= count
                    _ = try? WorkerThread.detached(name: "varve-prefetch") {
                        posix_fadvise(file.fd.rawValue, 0, off_t(count), POSIX_FADV_WILLNEED)
                    }
                    logger.debug("prefetches the blob \(digest)")
                }
            }
            onCancel { task.cancel() }
        }

        func write(reference: String) throws -> any ContentWriter {
            let upload = BlobUpload(
                content, metadata, reference: reference.isEmpty ? "varve-diff-" + randomName() : reference)
            onCancel { [end = upload.end] in end() }
            return upload
        }

        func cancel() {
            let endings = self.endings.withLock { state in
                state.isCancelled = true
                defer { state.endings = [] }
                return state.endings
            }
            for end in endings { end() }
        }

        private func onCancel(_ end: @escaping @Sendable () -> Void) {
            let isCancelled = endings.withLock { state in
                if !state.isCancelled { state.endings.append(end) }
                return state.isCancelled
            }
            if isCancelled { end() }
        }

        /// What an error of containerd's is to the client of this daemon.
        static func error(_ error: any Error, _ what: String) -> any Error {
            guard let error = error as? RPCError else { return error }
            return ServiceError(
                ServiceError.Code(error.code) ?? .unavailable, "cannot \(what): \(error.message)")
        }
    }

    extension ServiceError.Code {
        init?(_ code: RPCError.Code) {
            switch code {
            case .notFound: self = .notFound
            case .invalidArgument, .outOfRange: self = .invalidArgument
            case .failedPrecondition: self = .failedPrecondition
            case .cancelled, .deadlineExceeded: self = .cancelled
            case .resourceExhausted: self = .resourceExhausted
            case .unavailable: self = .unavailable
            default: return nil
            }
        }
    }

    /// A blob as it comes from containerd, read by a thread.
    @safe
    private final class PipeSource: ByteSource {
        private let pipe: InwardPipe<Data>
        private let task: Task<Void, Never>
        private var buffer = unsafe UnsafeMutableRawBufferPointer(start: nil, count: 0)

        init(_ pipe: InwardPipe<Data>, _ task: Task<Void, Never>) {
            self.pipe = pipe
            self.task = task
        }

        deinit {
            pipe.abandon()
            task.cancel()
            unsafe buffer.deallocate()
        }

        func next() throws -> UnsafeRawBufferPointer {
            while let data = try pipe.next() {
                if data.isEmpty { continue }
                if unsafe buffer.count < data.count {
                    unsafe buffer.deallocate()
                    unsafe buffer = UnsafeMutableRawBufferPointer.allocate(
                        byteCount: data.count, alignment: 64)
                }
                unsafe data.withUnsafeBytes { bytes in unsafe buffer.copyMemory(from: bytes) }
                return unsafe UnsafeRawBufferPointer(rebasing: buffer[..<data.count])
            }
            return unsafe UnsafeRawBufferPointer(start: nil, count: 0)
        }
    }

    /// A blob on its way into containerd's content store, written by a thread.
    private final class BlobUpload: ContentWriter {
        private typealias Request = Containerd_Services_Content_V1_WriteContentRequest

        private let content: Containerd_Services_Content_V1_Content.Client<ContentSession.Transport>
        private let metadata: Metadata
        private let reference: String
        private let pipe = OutwardPipe<Request>(limit: 4)
        /// Whether the blob was there already.
        private let outcome = Outcome<Bool>()
        private let task: Task<Void, Never>
        private var offset: Int64 = 0
        private var isCommitted = false
        /// Bytes of a message; containerd takes 16 MiB.
        private static let pieceSize = 1 << 20

        init(
            _ content: Containerd_Services_Content_V1_Content.Client<ContentSession.Transport>,
            _ metadata: Metadata,
            reference: String
        ) {
            self.content = content
            self.metadata = metadata
            self.reference = reference
            task = Task { [pipe, outcome] in
                do {
                    let isStored = try await content.write(metadata: metadata) { writer in
                        while let message = await pipe.next() { try await writer.write(message) }
                    } onResponse: { response in
                        var isStored = false
                        for try await message in response.messages where message.action == .commit {
                            isStored = true
                        }
                        return isStored
                    }
                    outcome.set(
                        isStored
                            ? .success(false)
                            : .failure(ServiceError(.unavailable, "containerd did not store the new layer")))
                } catch let error as RPCError where error.code == .alreadyExists {
                    outcome.set(.success(true))
                } catch {
                    outcome.set(.failure(ContentSession.error(error, "write the new layer to containerd")))
                }
                pipe.abandon()
            }
        }

        /// Gives it up from outside.
        var end: @Sendable () -> Void {
            { [task, pipe] in
                pipe.abandon()
                task.cancel()
            }
        }

        deinit {
            guard !isCommitted else { return }
            pipe.abandon()
            task.cancel()
            Task { [content, metadata, reference, task] in
                await task.value
                _ = try? await content.abort(.with { $0.ref = reference }, metadata: metadata)
            }
        }

        func write(_ bytes: UnsafeRawBufferPointer) throws {
            var start = 0
            while start < bytes.count {
                let end = min(start + Self.pieceSize, bytes.count)
                let piece = unsafe Data(bytes[start..<end])
                try send(
                    .with {
                        $0.action = .write
                        $0.ref = reference
                        $0.offset = offset
                        $0.data = piece
                    })
                offset += Int64(end - start)
                start = end
            }
        }

        private func send(_ message: Request) throws {
            if pipe.send(message) { return }
            // It ended early, and the outcome says why.
            _ = try outcome.wait()
            throw ServiceError(.unavailable, "containerd ended the upload of the new layer early")
        }

        func finish() {}

        func commit(digest: Digest, size: Int64, labels: [String: String]) throws {
            if pipe.send(
                .with {
                    $0.action = .commit
                    $0.ref = reference
                    $0.total = size
                    $0.offset = offset
                    $0.expected = digest.description
                    $0.labels = labels
                })
            {
                pipe.finish()
            }
            let wasThere = try outcome.wait()
            isCommitted = true
            if wasThere { try label(digest, labels) }
        }

        /// What was there already may not have the labels.
        private func label(_ digest: Digest, _ labels: [String: String]) throws {
            guard !labels.isEmpty else { return }
            let labelled = Outcome<Void>()
            Task { [content, metadata] in
                do {
                    _ = try await content.update(
                        .with {
                            $0.info.digest = digest.description
                            $0.info.labels = labels
                            $0.updateMask.paths = labels.keys.sorted().map { "labels." + $0 }
                        }, metadata: metadata)
                    labelled.set(.success(()))
                } catch {
                    labelled.set(
                        .failure(ContentSession.error(error, "label the layer \(digest) in containerd")))
                }
            }
            try labelled.wait()
        }
    }
#endif
