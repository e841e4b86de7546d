/// How a layer blob is compressed: the media types `…tar`, `…tar+gzip` and `…tar+zstd` of the OCI image-spec
/// (layer.md).
package enum Compression: String, Hashable, Sendable, CaseIterable, CustomStringConvertible {
    case none
    /// RFC 1952.
    case gzip
    /// RFC 8878.
    case zstd

    package var description: String { rawValue }

    /// Bytes that `detect` needs to see.
    package static let magicLength = 4

    /// What the first bytes of a stream say: `none` where they are neither gzip nor zstd, so also for no
    /// bytes.
    package static func detect(magic: some Collection<UInt8>) -> Compression {
        let magic = Array(magic.prefix(magicLength))
        // RFC 1952, 2.3.1. The third byte is the method, of which there is but one.
        if magic.starts(with: [0x1f, 0x8b]) { return .gzip }
        guard magic.count == 4 else { return .none }
        // RFC 8878, 3.1.1 and 3.1.2: little-endian 0xFD2FB528 and 0x184D2A50 … 0x184D2A5F.
        if magic == [0x28, 0xb5, 0x2f, 0xfd] { return .zstd }
        if magic[0] & 0xf0 == 0x50, magic[1...] == [0x2a, 0x4d, 0x18] { return .zstd }
        return .none
    }

    /// Looks at the first bytes of `source`.
    /// - Returns: what they say, and a source that gives all bytes of `source` from the first one.
    package static func detect(in source: any ByteSource) throws -> (Compression, any ByteSource) {
        let peeked = PeekedSource(source)
        return (detect(magic: try peeked.peek()), peeked)
    }

    /// The bytes of `upstream` decompressed; `upstream` itself for `none`.
    package func decoder(
        over upstream: any ByteSource, slabSize: Int = MemoryBudget.defaultSlabSize
    ) -> any ByteSource {
        switch self {
        case .none: upstream
        case .gzip: GzipDecoder(upstream, slabSize: slabSize)
        case .zstd: ZstdDecoder(upstream, slabSize: slabSize)
        }
    }

    /// A sink that writes what it is given, compressed, to `downstream`, and finishes it when it is finished.
    /// - Parameters:
    ///   - level: of zlib or libzstd; nil for their default.
    ///   - threads: that compress, at least 1; it has no influence on the bytes.
    package func encoder(
        into downstream: any ByteSink, level: Int? = nil, threads: Int = 1
    ) throws -> any ByteSink {
        switch self {
        case .none: NullEncoder(into: downstream)
        case .gzip: GzipEncoder(into: downstream, level: level ?? GzipEncoder.defaultLevel, threads: threads)
        case .zstd:
            try ZstdEncoder(into: downstream, level: level ?? ZstdEncoder.defaultLevel, threads: threads)
        }
    }
}

/// A source whose first bytes can be looked at before they are read.
@safe
final class PeekedSource: ByteSource {
    private let upstream: any ByteSource
    /// Runs too short to hold a magic number, copied and joined.
    private var head: [UInt8] = []
    /// The run that follows `head`, not yet handed on.
    private var run: UnsafeRawBufferPointer?
    private var lentHead: AlignedBuffer?

    init(_ upstream: any ByteSource) { self.upstream = upstream }

    /// The first bytes: at least `Compression.magicLength` of them, unless the stream is shorter.
    func peek() throws -> [UInt8] {
        while head.count < Compression.magicLength {
            let next = try unsafe upstream.next()
            unsafe run = unsafe next
            if unsafe next.isEmpty || head.count + next.count >= Compression.magicLength { break }
            unsafe head.append(contentsOf: next)
            unsafe run = nil
        }
        return unsafe head + (run.map { unsafe Array($0.prefix(Compression.magicLength)) } ?? [])
    }

    func next() throws -> UnsafeRawBufferPointer {
        if !head.isEmpty {
            let buffer = AlignedBuffer(count: head.count)
            unsafe buffer.bytes.copyBytes(from: head)
            lentHead = buffer
            head = []
            return unsafe UnsafeRawBufferPointer(buffer.bytes)
        }
        lentHead = nil
        if let run = unsafe run {
            unsafe self.run = nil
            return unsafe run
        }
        return try unsafe upstream.next()
    }
}
