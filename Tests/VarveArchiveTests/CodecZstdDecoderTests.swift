import VarveArchive
import Glibc
import Testing

/// The reader of Zstandard, against what zstd(1) writes, and against damage.
@Suite struct CodecZstdDecoderTests {
    struct Sample: Sendable, CustomTestStringConvertible {
        var name: String
        var command: String
        var copies = 1
        var testDescription: String { name }
    }

    /// A skippable frame with 5 bytes.
    static let skippable = "printf '\\132\\052\\115\\030\\005\\000\\000\\000hello'"

    static let samples = [
        Sample(name: "default", command: "zstd -qc $IN"),
        // Without the length of the content in the header, as a stream is written.
        Sample(name: "from a pipe", command: "cat $IN | zstd -qc"),
        Sample(name: "no checksum", command: "zstd -qc --no-check $IN"),
        Sample(name: "fast", command: "zstd -qc --fast=5 $IN"),
        Sample(name: "level 19", command: "zstd -qc -19 $IN"),
        // A window of 128 MiB is the largest that is accepted.
        Sample(name: "long", command: "cat $IN | zstd -qc --long=27"),
        // zstd(1) and pzstd write several frames; eStargz and zstd:chunked have skippable ones.
        Sample(name: "three frames", command: "zstd -qc $IN; zstd -qc -1 $IN; zstd -qc $IN", copies: 3),
        Sample(
            name: "skippable frames",
            command: "\(skippable); zstd -qc $IN; \(skippable); zstd -qc $IN; \(skippable)",
            copies: 2),
        Sample(name: "only skippable", command: skippable, copies: 0),
        Sample(name: "empty frames", command: "zstd -qc < /dev/null; zstd -qc $IN; zstd -qc < /dev/null"),
    ]

    @Test(arguments: samples) func reads(_ sample: Sample) throws {
        let content = sampleBytes(600_011)
        let compressed = try shell(sample.command, content)
        let expected = (0..<sample.copies).flatMap { _ in content }
        #expect(try decode(compressed, .zstd) == expected)
        #expect(try decode(compressed, .zstd, runLength: 977) == expected)
    }

    @Test(arguments: samples) func readsBytewise(_ sample: Sample) throws {
        let content = sampleBytes(3_001)
        let compressed = try shell(sample.command, content)
        let expected = (0..<sample.copies).flatMap { _ in content }
        for runLength in 1...5 { #expect(try decode(compressed, .zstd, runLength: runLength) == expected) }
    }

    @Test(arguments: [0, 1, 131_071, 131_072, 131_073, 262_144, 262_145, 3 << 20])
    func readsLength(_ length: Int) throws {
        for content in [sampleBytes(length), randomBytes(length), [UInt8](repeating: 0, count: length)] {
            #expect(try decode(try shell("zstd -qc < $IN", content), .zstd) == content)
        }
    }

    @Test func fillsSlabs() throws {
        let content = sampleBytes(100_000)
        let compressed = try shell("zstd -qc < $IN; zstd -qc < $IN", content)
        let decoder = ZstdDecoder(ArraySource(compressed, runLength: 333), slabSize: 4096)
        var lengths: [Int] = []
        while case let count = try unsafe decoder.next().count, count > 0 { lengths.append(count) }
        #expect(lengths.dropLast().allSatisfy { $0 == 4096 })
        #expect(lengths.reduce(0, +) == 200_000)
    }

    @Test func refusesTruncation() throws {
        let compressed = try shell("\(Self.skippable); zstd -qc < $IN", sampleBytes(700))
        // After the skippable frame the stream is a whole one.
        for length in 0..<compressed.count where length != 13 {
            let error = #expect(throws: CodecError.self) { try decode(Array(compressed[..<length]), .zstd) }
            // One to three bytes of a magic number may be anything.
            #expect(error?.reason == ((14...16).contains(length) ? .trailingGarbage : .truncated))
        }
    }

    // With a checksum, each flipped bit of a frame is noticed or has no consequence.
    @Test func noticesFlippedBits() throws {
        let content = sampleBytes(300)
        let compressed = try shell("zstd -qc < $IN", content)
        for bit in 0..<(compressed.count * 8) {
            var damaged = compressed
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            do {
                #expect(try decode(damaged, .zstd) == content, "bit \(bit)")
            } catch {
                #expect(error is CodecError)
            }
        }
    }

    struct Refused: Sendable, CustomTestStringConvertible {
        var name: String
        var command: String
        var reason: CodecError.Reason
        var testDescription: String { name }
    }

    static let refused = [
        Refused(name: "gzip", command: "gzip -c $IN", reason: .notThisFormat),
        // zstd 0.7, which libzstd may still read but nobody may write into an image.
        Refused(
            name: "old format", command: "printf '\\047\\265\\057\\375'; zstd -qc $IN", reason: .notThisFormat
        ),
        Refused(name: "garbage", command: "zstd -qc $IN; echo more garbage", reason: .trailingGarbage),
        Refused(name: "zeros", command: "zstd -qc $IN; head -c 512 /dev/zero", reason: .trailingGarbage),
        Refused(name: "one byte", command: "zstd -qc $IN; printf x", reason: .trailingGarbage),
        // A window of 2 GiB would be used up by one layer.
        Refused(name: "window", command: "cat $IN | zstd -qc --long=28", reason: .windowTooLarge),
        Refused(
            name: "dictionary",
            command: "head -c 5000 /dev/urandom > $IN.d; zstd -qc --patch-from=$IN.d $IN > /dev/null;"
                + "python3 -c \"import sys;d=open(sys.argv[1],'rb').read();"
                + "sys.stdout.buffer.write(bytes([0x28,0xb5,0x2f,0xfd,0x01,0x58,0x07,0x01,0,0,0x41]))\" $IN; rm $IN.d",
            reason: .needsDictionary),
    ]

    @Test(arguments: refused) func refuses(_ item: Refused) throws {
        let bytes = try shell(item.command, sampleBytes(1_000))
        for runLength in [1, 100_000] {
            let error = #expect(throws: CodecError.self) { try decode(bytes, .zstd, runLength: runLength) }
            #expect(error?.reason == item.reason)
        }
    }

    @Test func noticesWrongChecksum() throws {
        var bytes = try shell("zstd -qc < $IN", sampleBytes(1_000))
        bytes[bytes.count - 1] ^= 1
        let error = #expect(throws: CodecError.self) { try decode(bytes, .zstd) }
        #expect(error?.reason == .wrongChecksum)
    }
}
