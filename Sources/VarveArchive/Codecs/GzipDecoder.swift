import CCodecs

/// Reads gzip, RFC 1952: any number of members, each with any legal header; CRC-32 and length of each are
/// verified.
///
/// After the last member only zero bytes may follow (padding of tapes, which gzip(1) accepts too); anything
/// else is an error, because bytes that one reader skips and another does not have no place in an image. No
/// bytes at all are an error as well.
///
/// The end is reported after everything was verified, so what came before it may be used only once the end
/// was reached. Memory: the state of ISA-L (90 KiB) and one slab, both made when the first byte is asked for.
@safe
package final class GzipDecoder: FillableSource {
    private enum Phase {
        case header, body, trailer, end
    }

    private var input: CompressedInput
    private let slabSize: Int
    private var slab: AlignedBuffer?
    private var inflater: OpaquePointer?
    private var phase = Phase.header
    private var members = 0
    /// Of the member in hand.
    private var checksum: UInt32 = 0
    private var length: UInt64 = 0
    /// Inflated bytes may be held back in ISA-L because the last buffer was full.
    private var hasMore = false
    private var failure: (any Error)?

    /// - Parameter slabSize: the length of the runs that `next` gives, the last one excepted; a multiple of
    /// 512.
    package init(_ upstream: any ByteSource, slabSize: Int = MemoryBudget.defaultSlabSize) {
        input = CompressedInput(upstream)
        self.slabSize = max(512, slabSize)
    }

    deinit { unsafe varve_inflate_free(inflater) }

    package func next() throws -> UnsafeRawBufferPointer {
        let slab = self.slab ?? AlignedBuffer(count: slabSize)
        self.slab = slab
        let count = try unsafe fill(slab.bytes)
        return unsafe UnsafeRawBufferPointer(rebasing: slab.bytes[..<count])
    }

    package func fill(_ buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        if let failure { throw failure }
        do {
            return try unsafe inflate(into: buffer)
        } catch {
            failure = error
            throw error
        }
    }

    private func error(_ reason: CodecError.Reason) -> CodecError {
        CodecError(.gzip, reason, offset: input.offset)
    }

    private func inflate(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        var filled = 0
        while filled < buffer.count {
            switch phase {
            case .header:
                if try readHeader() {
                    try prepareInflater()
                    phase = .body
                } else {
                    phase = .end
                }
            case .body:
                unsafe filled += try inflateSome(
                    into: UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]))
            case .trailer:
                try readTrailer()
                members += 1
                phase = .header
            case .end:
                return filled
            }
        }
        return filled
    }

    // MARK: - The parts of a member

    private func prepareInflater() throws {
        if let inflater = unsafe inflater {
            unsafe varve_inflate_reset(inflater)
        } else {
            guard let new = unsafe varve_inflate_new() else { throw error(.outOfMemory) }
            unsafe inflater = unsafe new
        }
        checksum = 0
        length = 0
        hasMore = false
    }

    /// Inflates until the buffer is full, the run in hand is used up or the member ends.
    private func inflateSome(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        if unsafe input.rest.isEmpty, !hasMore {
            guard try input.refill() else { throw error(.truncated) }
        }
        let run = unsafe input.rest
        var consumed: Int64 = 0
        var written = buffer.count
        let result = unsafe varve_inflate(
            inflater, run.baseAddress, run.count, &consumed, buffer.baseAddress, &written)
        guard result >= 0 else { throw unsafe error(.corrupt(String(cString: varve_inflate_error(result)))) }
        guard input.advance(by: Int(consumed)), written <= buffer.count else {
            throw error(.corrupt("bad state"))
        }
        hasMore = written == buffer.count
        checksum = unsafe varve_crc32(checksum, buffer.baseAddress, written)
        length &+= UInt64(written)
        if result == varve_inflate_done {
            phase = .trailer
        } else if written == 0, consumed == 0, unsafe !run.isEmpty {
            // Room and input and yet no step forward: never turn in circles.
            throw error(.corrupt("no progress"))
        }
        return written
    }

    private func readTrailer() throws {
        guard try readLittleEndian(4) == UInt64(checksum) else { throw error(.wrongChecksum) }
        // ISIZE is the length modulo 2^32.
        guard try readLittleEndian(4) == length & 0xffff_ffff else { throw error(.wrongLength) }
    }

    private func readLittleEndian(_ count: Int) throws -> UInt64 {
        var value: UInt64 = 0
        for index in 0..<count {
            guard let byte = try input.readByte() else { throw error(.truncated) }
            value |= UInt64(byte) << UInt64(8 * index)
        }
        return value
    }

    // MARK: - The header

    private static let hasHeaderChecksum: UInt8 = 0x02
    private static let hasExtra: UInt8 = 0x04
    private static let hasName: UInt8 = 0x08
    private static let hasComment: UInt8 = 0x10
    private static let reserved: UInt8 = 0xe0

    /// Reads a header, or what may follow the last member; false at the end of the stream.
    private func readHeader() throws -> Bool {
        guard let first = try input.readByte() else {
            if members == 0 { throw error(.truncated) }
            return false
        }
        if members > 0, first == 0 {
            while let byte = try input.readByte() {
                if byte != 0 { throw error(.trailingGarbage) }
            }
            return false
        }
        let foreign = error(members > 0 ? .trailingGarbage : .notThisFormat)
        guard first == 0x1f else { throw foreign }
        var headerChecksum: UInt32 = 0
        func byte() throws -> UInt8 {
            guard var byte = try input.readByte() else { throw error(.truncated) }
            headerChecksum = unsafe varve_crc32(headerChecksum, &byte, 1)
            return byte
        }
        var magic = first
        headerChecksum = unsafe varve_crc32(headerChecksum, &magic, 1)
        guard try byte() == 0x8b else { throw foreign }
        guard try byte() == 8 else { throw error(.badHeader("unknown compression method")) }
        let flags = try byte()
        guard flags & Self.reserved == 0 else { throw error(.badHeader("reserved flags are set")) }
        // MTIME, XFL and OS say nothing about the bytes.
        for _ in 0..<6 { _ = try byte() }
        if flags & Self.hasExtra != 0 {
            let low = Int(try byte())
            let count = low | Int(try byte()) << 8
            for _ in 0..<count { _ = try byte() }
        }
        if flags & Self.hasName != 0 {
            while try byte() != 0 {}
        }
        if flags & Self.hasComment != 0 {
            while try byte() != 0 {}
        }
        if flags & Self.hasHeaderChecksum != 0 {
            let expected = UInt64(headerChecksum & 0xffff)
            guard try readLittleEndian(2) == expected else {
                throw error(.badHeader("its checksum is wrong"))
            }
        }
        return true
    }
}
