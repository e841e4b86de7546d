import VarveArchive
import Glibc
import Testing

/// Gives bytes in runs of chosen lengths. Each run lies in memory of its own, which is overwritten when the
/// next one is asked for, so a reader that keeps a run too long reads nonsense.
@safe
final class ArraySource: ByteSource {
    struct Failure: Error, Equatable {}

    private let bytes: [UInt8]
    private let runLength: Int
    private let failsAtEnd: Bool
    private var position = 0
    private var run: UnsafeMutableRawBufferPointer?

    init(_ bytes: [UInt8], runLength: Int = 100_000, failsAtEnd: Bool = false) {
        self.bytes = bytes
        self.runLength = runLength
        self.failsAtEnd = failsAtEnd
    }

    deinit { unsafe run?.deallocate() }

    func next() throws -> UnsafeRawBufferPointer {
        if let old = unsafe run {
            for index in 0..<min(64, old.count) { unsafe old[index] = 0xaa }
            unsafe old.deallocate()
            unsafe run = nil
        }
        if position == bytes.count {
            if failsAtEnd { throw Failure() }
            return unsafe UnsafeRawBufferPointer(start: nil, count: 0)
        }
        let count = min(runLength, bytes.count - position)
        let new = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 1)
        unsafe new.copyBytes(from: bytes[position..<(position + count)])
        unsafe run = new
        position += count
        return UnsafeRawBufferPointer(new)
    }
}

final class CollectingSink: ByteSink {
    struct Failure: Error, Equatable {}

    private(set) var bytes: [UInt8] = []
    private(set) var finishes = 0
    /// Throws once it has more bytes than this.
    var limit = Int.max

    func write(_ run: UnsafeRawBufferPointer) throws {
        unsafe bytes.append(contentsOf: run)
        if bytes.count > limit { throw Failure() }
    }
    func finish() throws { finishes += 1 }
}

/// All bytes of a source. The end must come again when asked for again.
func collect(_ source: any ByteSource) throws -> [UInt8] {
    var result: [UInt8] = []
    while true {
        let run = try unsafe source.next()
        if unsafe run.isEmpty { break }
        unsafe result.append(contentsOf: run)
    }
    let after = try unsafe source.next()
    #expect(unsafe after.isEmpty)
    return result
}

/// Writes `bytes` in pieces and finishes.
func push(_ bytes: [UInt8], into sink: any ByteSink, piece: Int = .max) throws {
    var rest = bytes[...]
    while !rest.isEmpty {
        try unsafe rest.prefix(piece).withUnsafeBytes { try unsafe sink.write($0) }
        rest = rest.dropFirst(piece)
    }
    try sink.finish()
}

func encode(
    _ bytes: [UInt8], _ compression: Compression, level: Int? = nil, threads: Int = 1, piece: Int = .max
) throws -> [UInt8] {
    let sink = CollectingSink()
    try push(bytes, into: try compression.encoder(into: sink, level: level, threads: threads), piece: piece)
    #expect(sink.finishes == 1)
    return sink.bytes
}

func decode(_ bytes: [UInt8], _ compression: Compression, runLength: Int = 100_000) throws -> [UInt8] {
    try collect(compression.decoder(over: ArraySource(bytes, runLength: runLength)))
}

/// Reproducible bytes: a ninth of them random, the rest words that compress well.
func sampleBytes(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
    // Read as numbers, so that making them is quick in a debug build.
    let texts: [UInt64] = [
        "usr/shar", "e/doc/li", "\0\0\0\0\0\0\0\0", "0000644\0", "ustar  \0", "{\"a\": 1}", "\n\n# why ",
        "bin/sh -",
    ]
    .map { $0.utf8.reversed().reduce(0) { $0 << 8 | UInt64($1) } }
    var state = seed
    return words(count) {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return state >> 60 < 2 ? state ^ state >> 29 : texts[Int(state >> 40) & 7]
    }
}

/// Bytes that do not compress at all.
func randomBytes(_ count: Int, seed: UInt64 = 7) -> [UInt8] {
    var state = seed
    return words(count) {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        let mixed = (state ^ state >> 31) &* 0x9e37_79b9_7f4a_7c15
        return mixed ^ mixed >> 32
    }
}

private func words(_ count: Int, _ next: () -> UInt64) -> [UInt8] {
    unsafe [UInt8](unsafeUninitializedCapacity: count + 8) { buffer, filled in
        let bytes = UnsafeMutableRawBufferPointer(buffer)
        var offset = 0
        while offset < count {
            unsafe bytes.storeBytes(of: next().littleEndian, toByteOffset: offset, as: UInt64.self)
            offset += 8
        }
        filled = count
    }
}

/// What a shell command writes for this input. `$IN` is a file with the input, what it prints is the output.
func shell(_ command: String, _ input: [UInt8] = []) throws -> [UInt8] {
    struct Failed: Error {
        var command: String
        var status: Int32
    }
    let base = "/tmp/varve-codec-\(getpid())-\(UInt64.random(in: 0 ... .max))"
    defer {
        _ = unsafe unlink(base + ".in")
        _ = unsafe unlink(base + ".out")
    }
    try writeFile(base + ".in", input)
    let status = unsafe system("IN=\(base).in; { \(command)\n} > \(base).out")
    guard status == 0 else { throw Failed(command: command, status: status) }
    return try readFile(base + ".out")
}

func writeFile(_ path: String, _ bytes: [UInt8]) throws {
    guard let file = unsafe fopen(path, "wb") else { throw CollectingSink.Failure() }
    defer { unsafe fclose(file) }
    _ = unsafe bytes.withUnsafeBytes { unsafe fwrite($0.baseAddress, 1, $0.count, file) }
}

func readFile(_ path: String) throws -> [UInt8] {
    guard let file = unsafe fopen(path, "rb") else { throw CollectingSink.Failure() }
    defer { unsafe fclose(file) }
    var result: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 1 << 16)
    while true {
        let count = unsafe piece.withUnsafeMutableBytes { unsafe fread($0.baseAddress, 1, $0.count, file) }
        if count == 0 { return result }
        result.append(contentsOf: piece[..<count])
    }
}
