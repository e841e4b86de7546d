import CCodecs

/// Reads Zstandard, RFC 8878: any number of frames, skippable ones included; the content checksum of each
/// frame that has one is verified.
///
/// Frames of the formats before version 0.8 are refused, even where libzstd still reads them, and so are
/// frames with a window above `windowLimit` and bytes that belong to no frame. No bytes at all are an error
/// too.
///
/// Memory: one slab, and in libzstd the window of the frame and 256 KiB, all made when they are needed.
@safe
package final class ZstdDecoder: FillableSource {
    /// Bytes of the largest window that is accepted: what libzstd and zstd(1) accept if nothing else is said.
    package static let windowLimit = 1 << windowLog
    private static let windowLog = 27

    private enum Phase {
        case magic
        case frame
        /// So many bytes to skip.
        case skippable(UInt32)
        case end
    }

    private var input: CompressedInput
    private let slabSize: Int
    private var slab: AlignedBuffer?
    private var decoder: OpaquePointer?
    private var phase = Phase.magic
    private var frames = 0
    /// Output may be held back in libzstd because the last buffer was full.
    private var hasMore = false
    private var failure: (any Error)?

    /// - Parameter slabSize: the length of the runs that `next` gives, the last one excepted; a multiple of
    /// 512.
    package init(_ upstream: any ByteSource, slabSize: Int = MemoryBudget.defaultSlabSize) {
        input = CompressedInput(upstream)
        self.slabSize = max(512, slabSize)
    }

    deinit { unsafe varve_zstd_decoder_free(decoder) }

    package func next() throws -> UnsafeRawBufferPointer {
        let slab = self.slab ?? AlignedBuffer(count: slabSize)
        self.slab = slab
        let count = try unsafe fill(slab.bytes)
        return unsafe UnsafeRawBufferPointer(rebasing: slab.bytes[..<count])
    }

    package func fill(_ buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        if let failure { throw failure }
        do {
            return try unsafe decode(into: buffer)
        } catch {
            failure = error
            throw error
        }
    }

    private func error(_ reason: CodecError.Reason) -> CodecError {
        CodecError(.zstd, reason, offset: input.offset)
    }

    private func decode(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        var filled = 0
        while filled < buffer.count {
            switch phase {
            case .magic:
                phase = try readMagic()
            case .frame:
                unsafe filled += try decodeSome(
                    into: UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]))
            case .skippable(let left):
                phase = try skipSome(left)
            case .end:
                return filled
            }
        }
        return filled
    }

    /// Reads the magic number of the next frame, and the length of a skippable one.
    private func readMagic() throws -> Phase {
        let start = input.offset
        var magic: [UInt8] = []
        while magic.count < 4, let byte = try input.readByte() { magic.append(byte) }
        if magic.isEmpty, frames > 0 { return .end }
        guard magic.count == 4 else {
            // Too few bytes to say what they should have been.
            throw error(frames > 0 && !magic.isEmpty ? .trailingGarbage : .truncated)
        }
        guard Compression.detect(magic: magic) == .zstd else {
            throw CodecError(.zstd, frames > 0 ? .trailingGarbage : .notThisFormat, offset: start)
        }
        frames += 1
        if magic[0] & 0xf0 == 0x50 {
            var length: UInt32 = 0
            for index in 0..<4 {
                guard let byte = try input.readByte() else { throw error(.truncated) }
                length |= UInt32(byte) << UInt32(8 * index)
            }
            return .skippable(length)
        }
        try startFrame(magic)
        return .frame
    }

    private func startFrame(_ magic: [UInt8]) throws {
        if let decoder = unsafe decoder {
            unsafe varve_zstd_decoder_reset(decoder)
        } else {
            guard let new = unsafe varve_zstd_decoder_new(Int32(Self.windowLog)) else {
                throw error(.outOfMemory)
            }
            unsafe decoder = unsafe new
        }
        hasMore = false
        // The magic number was taken out of the stream to look at it; libzstd wants it too, and needs no room
        // for output to take it.
        var consumed = magic.count
        var written = 0
        let result = unsafe magic.withUnsafeBytes {
            unsafe varve_zstd_decode(decoder, $0.baseAddress, &consumed, nil, &written)
        }
        guard result >= 0, consumed == magic.count else { throw failure(of: result) }
    }

    private func decodeSome(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        if unsafe input.rest.isEmpty, !hasMore {
            guard try input.refill() else { throw error(.truncated) }
        }
        let run = unsafe input.rest
        var consumed = run.count
        var written = buffer.count
        let result = unsafe varve_zstd_decode(
            decoder, run.baseAddress, &consumed, buffer.baseAddress, &written)
        guard result >= 0 else { throw failure(of: result) }
        guard input.advance(by: consumed), written <= buffer.count else { throw error(.corrupt("bad state")) }
        hasMore = written == buffer.count
        if result == 0 {
            phase = .magic
        } else if written == 0, consumed == 0, unsafe !run.isEmpty {
            // Room and input and yet no step forward: never turn in circles.
            throw error(.corrupt("no progress"))
        }
        return written
    }

    private func skipSome(_ left: UInt32) throws -> Phase {
        if left == 0 { return .magic }
        if unsafe input.rest.isEmpty {
            guard try input.refill() else { throw error(.truncated) }
        }
        let count = unsafe min(Int(left), input.rest.count)
        guard input.advance(by: count) else { throw error(.corrupt("bad state")) }
        return .skippable(left - UInt32(count))
    }

    private func failure(of result: Int32) -> CodecError {
        switch -result {
        case varve_zstd_window_too_large: error(.windowTooLarge)
        case varve_zstd_checksum_wrong: error(.wrongChecksum)
        case varve_zstd_dictionary_wrong: error(.needsDictionary)
        case varve_zstd_memory_allocation: error(.outOfMemory)
        default: unsafe error(.corrupt(String(cString: varve_zstd_error(-result))))
        }
    }
}
