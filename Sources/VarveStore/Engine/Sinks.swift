import VarveArchive
import VarveOCI

/// The end of the line: the blob in the layout.
final class BlobSink: NewBlob {
    private let writer: BlobWriter
    init(_ writer: BlobWriter) { self.writer = writer }
    var stored: (digest: Digest, size: Int64)? { writer.blob }
    func write(_ bytes: UnsafeRawBufferPointer) throws { try unsafe writer.write(bytes) }
    func finish() throws { try writer.finish() }
}

/// Gathers small writes into large ones: a blob costs a system call for each write.
@safe
final class GatheringSink: ByteSink {
    private let downstream: any ByteSink
    private let slab: UnsafeMutableRawBufferPointer
    private var count = 0

    init(_ downstream: any ByteSink) {
        self.downstream = downstream
        unsafe slab = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 64)
    }

    deinit { unsafe slab.deallocate() }

    func write(_ bytes: UnsafeRawBufferPointer) throws {
        if unsafe count + bytes.count > slab.count { try flush() }
        if unsafe bytes.count > slab.count { return try unsafe downstream.write(bytes) }
        unsafe UnsafeMutableRawBufferPointer(rebasing: slab[count...]).copyMemory(from: bytes)
        count += bytes.count
    }

    func finish() throws {
        try flush()
        try downstream.finish()
    }

    private func flush() throws {
        if count > 0 { try unsafe downstream.write(UnsafeRawBufferPointer(rebasing: slab[..<count])) }
        count = 0
    }
}

/// Hashes the archive for its DiffID on the way to the encoder.
final class DiffIDSink: ByteSink {
    private let downstream: any ByteSink
    private var hasher = DigestHasher()
    private var result: DiffID?
    /// Bytes of the archive so far.
    private(set) var size: Int64 = 0

    init(_ downstream: any ByteSink) { self.downstream = downstream }

    /// Of everything that was written so far.
    var diffID: DiffID { result ?? DiffID(hasher.finish()) }

    func write(_ bytes: UnsafeRawBufferPointer) throws {
        unsafe hasher.update(bytes)
        size += Int64(bytes.count)
        try unsafe downstream.write(bytes)
    }

    func finish() throws {
        if result == nil { result = DiffID(hasher.finish()) }
        try downstream.finish()
    }
}
