import CCodecs

/// Writes one gzip member (RFC 1952), deflated in blocks by several threads.
///
/// Each block of 256 KiB is deflated for itself, ends at a byte boundary after an empty stored block, and is written in
/// order: together they are one deflate stream. The boundaries depend on the content alone, so the bytes are the same
/// for any number of threads and any lengths of writes; they change only with the level and with the version of
/// libdeflate. What is written has been inflated and compared with the content. The header has neither a time nor a
/// name and says "unknown" for the operating system.
///
/// The threads start with the first blocks. Downstream is written to, and finished, on the caller's thread.
/// After an error each further call throws it again.
@safe
package final class GzipEncoder: ByteSink {
    package static let defaultLevel = 6
    package static let levels = 0...9

    private let downstream: any ByteSink
    private let level: Int
    private let pool: DeflatePool
    private var isHeaderWritten = false
    /// The block that is being collected.
    private var block: DeflateBlock?
    /// CRC-32 and length of the blocks that were written out.
    private var checksum: UInt32 = 0
    private var length: UInt64 = 0
    private var result: Result<Void, any Error>?

    /// - Parameters:
    ///   - level: brought into `levels`; 0 stores.
    ///   - threads: that deflate, 1 to 64; the caller's thread is not one of them.
    package init(into downstream: any ByteSink, level: Int = defaultLevel, threads: Int = 1) {
        self.downstream = downstream
        self.level = max(Self.levels.lowerBound, min(level, Self.levels.upperBound))
        pool = DeflatePool(level: self.level, threads: max(1, min(threads, 64)))
    }

    deinit { pool.stop() }

    package func write(_ bytes: UnsafeRawBufferPointer) throws {
        if let result {
            try result.get()
            throw CodecError(.gzip, .encoderFailed("written to after the end"), offset: length)
        }
        do {
            var rest = unsafe bytes
            while unsafe !rest.isEmpty {
                let block = try collecting()
                let count = unsafe block.append(rest)
                unsafe rest = unsafe UnsafeRawBufferPointer(rebasing: rest[count...])
                if block.isFull { try dispatch(block, isLast: false) }
            }
        } catch {
            close(.failure(error))
            throw error
        }
    }

    package func finish() throws {
        if let result { return try result.get() }
        do {
            try dispatch(try collecting(), isLast: true)
            while let block = try pool.nextDone(wait: true) { try writeOut(block) }
            try writeTrailer()
            close(.success(()))
            try downstream.finish()
        } catch {
            close(.failure(error))
            throw error
        }
    }

    private func close(_ result: Result<Void, any Error>) {
        self.result = result
        block = nil
        pool.stop()
    }

    /// The block to put bytes into. If all are on their way, the oldest one is waited for and written out.
    private func collecting() throws -> DeflateBlock {
        if let block { return block }
        while true {
            if let free = pool.takeFree() {
                block = free
                return free
            }
            guard let done = try pool.nextDone(wait: true) else {
                // No block is free and none is on its way: they were lost.
                throw CodecError(.gzip, .encoderFailed("no block"), offset: length)
            }
            try writeOut(done)
        }
    }

    private func dispatch(_ block: DeflateBlock, isLast: Bool) throws {
        self.block = nil
        try pool.dispatch(block, isLast: isLast)
        while let done = try pool.nextDone(wait: false) { try writeOut(done) }
    }

    private func writeOut(_ block: DeflateBlock) throws {
        try writeHeader()
        checksum = varve_crc32_combine(checksum, block.checksum, UInt64(block.count))
        length &+= UInt64(block.count)
        try unsafe downstream.write(block.deflated)
        pool.recycle(block)
    }

    private func writeHeader() throws {
        if isHeaderWritten { return }
        isHeaderWritten = true
        // RFC 1952, 2.3.1: XFL is 2 for the slowest and 4 for the fastest level; OS 255 is "unknown".
        let extra: UInt8 = level == 9 ? 2 : level == 1 ? 4 : 0
        try put([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, extra, 255])
    }

    private func writeTrailer() throws {
        let length = UInt32(truncatingIfNeeded: self.length)
        try put(
            [checksum, length].flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) } }
        )
    }

    private func put(_ bytes: [UInt8]) throws {
        try unsafe bytes.withUnsafeBytes { try unsafe downstream.write($0) }
    }
}
