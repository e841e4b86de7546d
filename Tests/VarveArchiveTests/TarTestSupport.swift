import VarveArchive
import Glibc
import VarveSystem
import TestSupport

/// Lends `bytes` in runs of `run` bytes, so that headers and records fall across the ends of runs. The memory
/// of a run is overwritten at the next call: what keeps a pointer too long reads something else.
@safe
final class MemorySource: ByteSource {
    private let bytes: [UInt8]
    private let run: Int
    private let lent: UnsafeMutableRawBufferPointer
    private(set) var taken = 0

    init(_ bytes: [UInt8], run: Int) {
        self.bytes = bytes
        self.run = run
        unsafe lent = .allocate(byteCount: run, alignment: 1)
    }

    deinit { unsafe lent.deallocate() }

    func next() -> UnsafeRawBufferPointer {
        unsafe lent.initializeMemory(as: UInt8.self, repeating: 0xee)
        let count = min(run, bytes.count - taken)
        unsafe lent.copyBytes(from: bytes[taken..<(taken + count)])
        taken += count
        return unsafe UnsafeRawBufferPointer(rebasing: lent[..<count])
    }
}

final class MemorySink: ByteSink {
    private(set) var bytes: [UInt8] = []
    private(set) var finished = 0
    func write(_ bytes: UnsafeRawBufferPointer) { unsafe self.bytes.append(contentsOf: bytes) }
    func finish() { finished += 1 }
}

/// An entry and its content as extracted, holes filled with zeros.
struct TarFile: Equatable, Sendable, CustomStringConvertible {
    var entry: TarEntry
    var content: [UInt8] = []

    var description: String {
        "\(entry.kind) \(entry.path) -> \(entry.linkTarget) \(String(entry.mode, radix: 8)) \(entry.uid):\(entry.gid) "
            + "size \(entry.size) mtime \(entry.modificationTime) \(entry.extendedAttributes) content \(content.count)"
    }
}

/// Everything in an archive. Fails if content lies outside its file, or a file is longer than `limit` bytes.
func readTar(
    _ bytes: [UInt8], run: Int = 1 << 16, limits: TarLimits = TarLimits(), allowance: TarAllowance? = nil,
    limit: Int64 = 1 << 26
) throws -> [TarFile] {
    let source = MemorySource(bytes, run: run)
    let reader = TarReader(source, limits: limits, allowance: allowance)
    var result = [TarFile]()
    while let entry = try reader.nextEntry() {
        var file = TarFile(entry: entry)
        // Content that never comes must be found missing by the reader, not by an allocation here.
        if entry.size <= limit { file.content = [UInt8](repeating: 0, count: Int(entry.size)) }
        var end: Int64 = 0
        while let (offset, run) = try unsafe reader.nextContent() {
            guard offset >= end, unsafe !run.isEmpty, offset + Int64(run.count) <= entry.size,
                entry.size <= limit
            else {
                throw TestFailure("content of \(entry.path) at \(offset), \(run.count) bytes, after \(end)")
            }
            end = offset + Int64(run.count)
            unsafe file.content.replaceSubrange(Int(offset)..<Int(end), with: run)
        }
        result.append(file)
    }
    guard source.taken == bytes.count else { throw TestFailure("the source was not read to its end") }
    guard try reader.nextEntry() == nil else { throw TestFailure("there is an entry after the last one") }
    return result
}

func writeTar(_ files: [TarFile]) throws -> [UInt8] {
    let sink = MemorySink()
    let writer = TarWriter(sink)
    for file in files {
        try writer.write(file.entry)
        try unsafe file.content.withUnsafeBytes { try unsafe writer.writeContent($0) }
    }
    try writer.finish()
    guard sink.finished == 1, writer.offset == sink.bytes.count else { throw TestFailure("not finished") }
    return sink.bytes
}

struct TestFailure: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}

/// Numbers that are the same in every run (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}

// MARK: - Other tools

/// Runs a bash script with `set -eu` in a new directory `$T`, which is removed afterwards; gives its standard
/// output. `input`, if any, is the file `$T/in` then.
func runScript(_ script: String, input: [UInt8]? = nil) throws -> [UInt8] {
    let directory = "/tmp/varve-tar-test-\(randomName())"
    guard unsafe mkdir(directory, 0o700) == 0 else { throw TestFailure("mkdir \(directory): \(errno)") }
    defer { _ = unsafe system("rm -rf \(directory)") }
    func save(_ name: String, _ bytes: [UInt8]) throws {
        guard let file = unsafe fopen("\(directory)/\(name)", "w") else {
            throw TestFailure("fopen: \(errno)")
        }
        _ = unsafe bytes.withUnsafeBytes { unsafe fwrite($0.baseAddress, 1, $0.count, file) }
        unsafe fclose(file)
    }
    if let input { try save("in", input) }
    let start =
        "exec 2>\(directory)/errors\nset -eu\nT=\(directory)\ncd $T\numask 022\nexport LC_ALL=C TZ=UTC\n"
    try save("script", Array((start + script).utf8))
    guard let pipe = unsafe popen("bash \(directory)/script", "r") else {
        throw TestFailure("popen: \(errno)")
    }
    var output = [UInt8]()
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while true {
        let count = unsafe chunk.withUnsafeMutableBytes { unsafe fread($0.baseAddress, 1, $0.count, pipe) }
        if count == 0 { break }
        output.append(contentsOf: chunk[..<count])
    }
    let status = unsafe pclose(pipe)
    guard status == 0 else {
        _ = unsafe system("cat \(directory)/errors >&2")
        throw TestFailure("the script failed with \(status)")
    }
    return output
}
