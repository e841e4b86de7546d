package import VarveArchive

/// An archive in memory: written first, read afterwards.
package final class MemoryArchive: ByteSink {
    package private(set) var bytes: [UInt8] = []
    package init() {}
    package func write(_ piece: UnsafeRawBufferPointer) { unsafe bytes.append(contentsOf: piece) }
    package func finish() {}

    package func reader() -> TarReader { TarReader(MemorySource(bytes)) }
}

/// Bytes of memory as a source, given out in pieces.
@safe
package final class MemorySource: ByteSource {
    private let memory: UnsafeMutableRawBufferPointer
    private var offset = 0
    private let piece: Int

    package init(_ bytes: [UInt8], piece: Int = 64 << 10) {
        unsafe memory = .allocate(byteCount: max(bytes.count, 1), alignment: 16)
        unsafe memory.copyBytes(from: bytes)
        size = bytes.count
        self.piece = piece
    }

    private let size: Int
    deinit { unsafe memory.deallocate() }

    package func next() -> UnsafeRawBufferPointer {
        let end = min(offset + piece, size)
        defer { offset = end }
        return unsafe UnsafeRawBufferPointer(rebasing: memory[offset..<end])
    }
}
