import CCodecs

/// Writes one Zstandard frame (RFC 8878) with a content checksum.
///
/// The bytes depend on the content, the level and the version of libzstd, and neither on the number of
/// threads nor on the lengths of what is written: libzstd always works in jobs here, also with one thread,
/// because without workers it would cut the content in other places.
///
/// Downstream is written to, and finished, on the caller's thread. After an error each further call throws it
/// again.
@safe
package final class ZstdEncoder: ByteSink {
    package static let defaultLevel = 3
    /// Levels above 19 ask the reader for more memory than it should be expected to give.
    package static let levels = 1...19

    private let downstream: any ByteSink
    private let output = AlignedBuffer(count: MemoryBudget.defaultSlabSize)
    /// Nil after the end, and after an error.
    private var encoder: OpaquePointer?
    private var taken: UInt64 = 0
    private var result: Result<Void, any Error>?

    /// - Parameters:
    ///   - level: brought into `levels`.
    ///   - threads: of libzstd, 1 to 64.
    /// - Throws: `CodecError` with the reason `outOfMemory` or `encoderFailed`.
    package init(into downstream: any ByteSink, level: Int = defaultLevel, threads: Int = 1) throws {
        let level = max(Self.levels.lowerBound, min(level, Self.levels.upperBound))
        self.downstream = downstream
        unsafe encoder = unsafe varve_zstd_encoder_new(
            Int32(level), Int32(max(1, min(threads, 64))), Self.jobSize(level: level))
        if unsafe encoder == nil { throw CodecError(.zstd, .outOfMemory, offset: 0) }
    }

    deinit { unsafe varve_zstd_encoder_free(encoder) }

    /// Bytes that one thread compresses at a time: about the window of the level, or twice that at the highest
    /// levels, where the start of a job is dear. Left to itself libzstd takes four windows, which costs 150 MiB
    /// at level 9 and keeps a layer of a few megabytes on one thread.
    private static func jobSize(level: Int) -> Int32 {
        switch level {
        case ...8: 2 << 20
        case ...16: 4 << 20
        default: 16 << 20
        }
    }

    package func write(_ bytes: UnsafeRawBufferPointer) throws {
        if let result {
            try result.get()
            throw CodecError(.zstd, .encoderFailed("written to after the end"), offset: taken)
        }
        do {
            var rest = unsafe bytes
            while unsafe !rest.isEmpty {
                let (consumed, _) = try unsafe encode(rest, end: false)
                unsafe rest = unsafe UnsafeRawBufferPointer(rebasing: rest[consumed...])
            }
        } catch {
            close(.failure(error))
            throw error
        }
    }

    package func finish() throws {
        if let result { return try result.get() }
        do {
            while try unsafe encode(UnsafeRawBufferPointer(start: nil, count: 0), end: true).left != 0 {}
            close(.success(()))
            try downstream.finish()
        } catch {
            close(.failure(error))
            throw error
        }
    }

    private func close(_ result: Result<Void, any Error>) {
        self.result = result
        unsafe varve_zstd_encoder_free(encoder)
        unsafe encoder = nil
    }

    private func encode(_ bytes: UnsafeRawBufferPointer, end: Bool) throws -> (consumed: Int, left: Int32) {
        var consumed = bytes.count
        var written = unsafe output.bytes.count
        let left = unsafe varve_zstd_encode(
            encoder, bytes.baseAddress, &consumed, output.bytes.baseAddress, &written, end ? 1 : 0)
        guard left >= 0 else {
            if -left == varve_zstd_memory_allocation { throw CodecError(.zstd, .outOfMemory, offset: taken) }
            throw unsafe CodecError(
                .zstd, .encoderFailed(String(cString: varve_zstd_error(-left))), offset: taken)
        }
        taken &+= UInt64(consumed)
        if written > 0 {
            try unsafe downstream.write(UnsafeRawBufferPointer(rebasing: output.bytes[..<written]))
        }
        return (consumed, left)
    }
}
