import VarveArchive

extension FuzzTarget {
    /// Gzip. The first byte says in runs of which length the stream comes, and whether it is one as it stands or the
    /// recipe of a valid one, whose content is then known exactly.
    package static let gzip = FuzzTarget(
        name: "gzip",
        seeds: {
            [[0x80, 0x1f, 1, 2, 3], [0x81, 0x0a, 200, 9, 9, 0x04, 5, 1], [0x82, 0, 0, 0]]
                + codecSeeds(.gzip)
        },
        run: { try runCodec(.gzip, $0) })

    /// Zstandard, in the same way.
    package static let zstd = FuzzTarget(
        name: "zstd",
        seeds: {
            [[0x80, 3, 3, 7, 7, 7], [0x81, 5, 0, 200, 1]] + codecSeeds(.zstd)
                + [[0, 0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2]]
        },
        run: { try runCodec(.zstd, $0) })
}

private func codecSeeds(_ codec: Compression) -> [[UInt8]] {
    [
        [], [1, 2, 3], [UInt8](repeating: 7, count: 3000),
        (0..<2000).map { UInt8(truncatingIfNeeded: $0 &* $0) },
    ]
    .compactMap { content in try? [0x01] + encode(content, codec) }
}

/// More than this of one input is not inflated: bombs are legal, and the caller's limits are not the codec's matter.
private let outputLimit = 4 << 20

private func runCodec(_ codec: Compression, _ bytes: [UInt8]) throws -> FuzzTarget.Outcome {
    var input = FuzzInput(bytes)
    let choice = input.byte()
    let run = [1 << 16, 4096, 13, 1][Int(choice & 3)]
    if choice & 0x80 != 0 {
        let (stream, content) = try validStream(codec, &input)
        let decoded = try decode(stream, codec, run: run, slab: 512 << Int(choice >> 2 & 3))
        try require(decoded == content, "\(content.count) bytes became \(decoded.count), or others")
        return .taken
    }
    do {
        let content = try decode(input.all(), codec, run: run, slab: 4096)
        // What was read can be written and read again.
        if content.count < 1 << 18 {
            let again = try decode(try encode(content, codec), codec, run: 1 << 16, slab: 4096)
            try require(again == content, "\(content.count) bytes did not survive")
        }
        return .taken
    } catch let error as CodecError {
        try require(error.offset <= UInt64(bytes.count), "it blames byte \(error.offset)")
        if case .outOfMemory = error.reason { throw FuzzFinding("out of memory") }
        return .refused
    }
}

private func decode(_ stream: [UInt8], _ codec: Compression, run: Int, slab: Int) throws -> [UInt8] {
    let decoder = codec.decoder(over: FuzzSource(stream, run: run), slabSize: slab)
    var result: [UInt8] = []
    while result.count < outputLimit {
        let piece = try unsafe decoder.next()
        if unsafe piece.isEmpty { return result }
        unsafe result.append(contentsOf: piece)
    }
    return result
}

private func encode(_ content: [UInt8], _ codec: Compression, level: Int? = nil) throws -> [UInt8] {
    let sink = FuzzSink()
    let encoder = try codec.encoder(into: sink, level: level)
    try unsafe content.withUnsafeBytes { try unsafe encoder.write($0) }
    try encoder.finish()
    return sink.bytes
}

/// Up to four members or frames after the input's recipe, and what they hold.
private func validStream(_ codec: Compression, _ input: inout FuzzInput) throws -> (
    stream: [UInt8], content: [UInt8]
) {
    var stream: [UInt8] = []
    var content: [UInt8] = []
    repeat {
        let flags = input.byte()
        var piece = input.bytes(Int(input.byte()))
        if flags & 0x20 != 0 { piece = (0..<64).flatMap { _ in piece } }
        if codec == .gzip, flags & 0x40 == 0 {
            stream += storedMember(piece, flags: flags & 0x1f)
        } else {
            stream += try encode(piece, codec, level: codec == .gzip ? Int(flags % 10) : 1 + Int(flags % 3))
        }
        content += piece
        // A skippable frame says nothing.
        if codec == .zstd, flags & 0x40 != 0 { stream += [0x5a, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, flags] }
    } while !input.isEmpty && content.count < 1 << 16
    return (stream, content)
}

/// RFC 1952 by hand: a member with the optional fields that the flags name, and one stored block.
func storedMember(_ content: [UInt8], flags: UInt8) -> [UInt8] {
    var header: [UInt8] = [0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 3]
    if flags & 0x04 != 0 { header += [3, 0, 9, 9, 9] }
    if flags & 0x08 != 0 { header += Array("name".utf8) + [0] }
    if flags & 0x10 != 0 { header += Array("comment".utf8) + [0] }
    if flags & 0x02 != 0 {
        let sum = crc32(header)
        header += [UInt8(truncatingIfNeeded: sum), UInt8(truncatingIfNeeded: sum >> 8)]
    }
    let length = UInt16(truncatingIfNeeded: content.count)
    var body: [UInt8] = [1, UInt8(truncatingIfNeeded: length), UInt8(truncatingIfNeeded: length >> 8)]
    body += [UInt8(truncatingIfNeeded: ~length), UInt8(truncatingIfNeeded: ~length >> 8)] + content
    return header + body + littleEndian(crc32(content))
        + littleEndian(UInt32(truncatingIfNeeded: content.count))
}

private func littleEndian(_ word: UInt32) -> [UInt8] {
    (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * UInt32($0))) }
}

private func crc32(_ bytes: [UInt8]) -> UInt32 {
    var crc = UInt32.max
    for byte in bytes {
        crc ^= UInt32(byte)
        for _ in 0..<8 { crc = crc & 1 == 0 ? crc >> 1 : crc >> 1 ^ 0xedb8_8320 }
    }
    return ~crc
}
