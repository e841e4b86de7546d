import Synchronization
package import VarveArchive
package import VarveContainerd
package import VarveOCI

/// A content store that keeps blobs in memory.
package final class MemoryContent: ContentStore {
    package init() {}

    private let blobs = Mutex<[Digest: (bytes: [UInt8], labels: [String: String])]>([:])
    private let counted = Mutex(0)
    /// How often a blob was read.
    package var reads: Int { counted.withLock { $0 } }

    package func add(_ bytes: [UInt8], _ mediaType: String = LayerCompression.none.mediaType) -> Descriptor {
        let digest = Digest(of: bytes)
        blobs.withLock { $0[digest] = (bytes, [:]) }
        return Descriptor(mediaType: mediaType, digest: digest, size: Int64(bytes.count))
    }

    /// A blob by its digest, as an uncompressed layer; nil if there is none.
    package func descriptor(ofDigest text: String) -> Descriptor? {
        guard let digest = Digest(text), let blob = blobs.withLock({ $0[digest] }) else { return nil }
        return Descriptor(
            mediaType: LayerCompression.none.mediaType, digest: digest, size: Int64(blob.bytes.count))
    }

    package func labels(_ blob: Descriptor) -> [String: String]? {
        blobs.withLock { $0[blob.digest]?.labels }
    }

    /// A blob's bytes, which does not count as reading it.
    package func copy(_ blob: Descriptor) throws -> [UInt8] {
        guard let found = blobs.withLock({ $0[blob.digest] }) else {
            throw ServiceError(.notFound, "there is no blob \(blob.digest)")
        }
        return found.bytes
    }

    private let announced = Mutex<[Digest]>([])
    /// The blobs that were said to be read soon.
    package var prefetched: [Digest] { announced.withLock { $0 } }
    package func prefetch(_ blobs: [Digest]) { announced.withLock { $0 += blobs } }

    package func bytes(of blob: Descriptor) throws -> sending any ByteSource {
        counted.withLock { $0 += 1 }
        guard let found = blobs.withLock({ $0[blob.digest] }) else {
            throw ServiceError(.notFound, "there is no blob \(blob.digest)")
        }
        return BytesSource(found.bytes)
    }

    package func write(reference: String) throws -> any ContentWriter { Writer(self) }

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
