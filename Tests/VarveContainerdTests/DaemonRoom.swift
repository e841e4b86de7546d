import Glibc
import Logging
import Synchronization
import TestSupport
import VarveArchive
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage

@testable import VarveContainerd

/// A store on a btrfs of its own with the snapshots of one containerd, and a content store in memory.
struct DaemonRoom: ~Copyable {
    let volume: LoopVolume
    let content = MemoryContent()
    var path: BytePath { volume.path.appending("store") }

    init() throws {
        let volume = try LoopVolume()
        _ = try SnapshotStore.initialize(at: volume.path.appending("store"), logger: Self.quiet)
        self.volume = volume
    }

    static let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    var store: SnapshotStore { get throws { try SnapshotStore.open(at: path, logger: Self.quiet) } }

    /// The snapshots as a daemon that starts finds them. The one before must be let go: what it still deletes is waited for.
    func snapshotter(_ id: String = "test", waits: Bool = true) throws -> Snapshotter {
        while true {
            do {
                return try Snapshotter(DaemonTrees(store, id: id), logger: Self.quiet)
            } catch let error as VarveError
                where waits && error.description.contains("another process serves")
            {
                usleep(5_000)
            }
        }
    }

    /// Runs `script` in the root of a snapshot's mount.
    func run(_ script: String, in mounts: [SnapshotMount]) throws {
        guard let source = mounts.first?.source else { throw TestSupportError("there is no mount") }
        try runSuccessfully(["sh", "-euc", "cd '\(source)'; \(script)"])
    }

    /// What is in `containerd/ID/trees/`.
    func trees(_ id: String = "test") throws -> [String] {
        let directory = try FileDescriptor.workingDirectory.openDirectory(
            path.appending("containerd").appending(id).appending("trees"))
        return try directory.fd.entries().map { $0.name.description }.sorted()
    }
}

/// A content store that keeps blobs in memory.
final class MemoryContent: ContentStore {
    private let blobs = Mutex<[Digest: (bytes: [UInt8], labels: [String: String])]>([:])
    private let counted = Mutex(0)
    /// How often a blob was read.
    var reads: Int { counted.withLock { $0 } }

    func add(_ bytes: [UInt8], _ mediaType: String = LayerCompression.none.mediaType) -> Descriptor {
        let digest = Digest(of: bytes)
        blobs.withLock { $0[digest] = (bytes, [:]) }
        return Descriptor(mediaType: mediaType, digest: digest, size: Int64(bytes.count))
    }

    func labels(_ blob: Descriptor) -> [String: String]? { blobs.withLock { $0[blob.digest]?.labels } }

    func bytes(of blob: Descriptor) throws -> sending any ByteSource {
        counted.withLock { $0 += 1 }
        guard let found = blobs.withLock({ $0[blob.digest] }) else {
            throw ServiceError(.notFound, "there is no blob \(blob.digest)")
        }
        return BytesSource(found.bytes)
    }

    func write(reference: String) throws -> any ContentWriter { Writer(self) }

    private final class Writer: ContentWriter {
        private let content: MemoryContent
        private var bytes: [UInt8] = []
        init(_ content: MemoryContent) { self.content = content }
        func write(_ bytes: UnsafeRawBufferPointer) { unsafe self.bytes.append(contentsOf: bytes) }
        func finish() {}

        func commit(digest: Digest, size: Int64, labels: [String: String]) throws {
            guard Digest(of: bytes) == digest, Int64(bytes.count) == size else {
                throw ServiceError(.failedPrecondition, "the blob is not what it was said to be")
            }
            content.blobs.withLock { $0[digest] = (bytes, labels) }
        }
    }

    @safe private final class BytesSource: ByteSource {
        private let buffer: UnsafeMutableRawBufferPointer
        private var isDone = false

        init(_ bytes: [UInt8]) {
            unsafe buffer = UnsafeMutableRawBufferPointer.allocate(
                byteCount: max(1, bytes.count), alignment: 16)
            unsafe buffer.copyBytes(from: bytes)
            isDone = bytes.isEmpty
        }

        deinit { unsafe buffer.deallocate() }

        func next() -> UnsafeRawBufferPointer {
            defer { isDone = true }
            return unsafe isDone
                ? UnsafeRawBufferPointer(start: nil, count: 0) : UnsafeRawBufferPointer(buffer)
        }
    }
}

/// The code of the error that `body` throws; nil if it throws none.
func code(_ body: () throws -> Void) -> ServiceError.Code? {
    do {
        try body()
        return nil
    } catch {
        return (error as? ServiceError)?.code ?? .internalError
    }
}
