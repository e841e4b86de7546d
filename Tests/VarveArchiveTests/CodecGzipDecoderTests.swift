import VarveArchive
import Glibc
import Testing

/// The reader of gzip, against what gzip(1) and Python write, and against damage.
@Suite struct CodecGzipDecoderTests {
    struct Sample: Sendable, CustomTestStringConvertible {
        var name: String
        /// Makes the compressed bytes of `$IN`.
        var command: String
        /// How often the content is in it.
        var copies = 1
        var testDescription: String { name }
    }

    static let python = "import sys,gzip,zlib,struct;d=open(sys.argv[1],'rb').read();o=sys.stdout.buffer;"

    /// A member with the given header around a raw deflate stream.
    static func header(_ build: String) -> String {
        "python3 -c \"\(python)c=zlib.compressobj(6,zlib.DEFLATED,-15);r=c.compress(d)+c.flush();\(build);"
            + "o.write(h+r+struct.pack('<II',zlib.crc32(d),len(d)&0xffffffff))\" $IN"
    }

    static let samples = [
        // What most layers are.
        Sample(name: "gzip -6 with a name", command: "gzip -6 -c $IN"),
        // Other block types: -1 writes short ones, and stored ones occur where nothing can be gained.
        Sample(name: "gzip -1", command: "gzip -1 -c < $IN"),
        Sample(name: "gzip -9", command: "gzip -9 -c < $IN"),
        // Stored blocks only.
        Sample(name: "level 0", command: "python3 -c \"\(python)o.write(gzip.compress(d,0))\" $IN"),
        // Fixed codes only.
        Sample(
            name: "fixed Huffman codes",
            command:
                "python3 -c \"\(python)c=zlib.compressobj(6,8,31,8,zlib.Z_FIXED);o.write(c.compress(d)+c.flush())\" $IN"
        ),
        // What pigz writes: many empty stored blocks inside.
        Sample(
            name: "full flushes",
            command: "python3 -c \"\(python)c=zlib.compressobj(6,8,31);"
                + "[o.write(c.compress(d[i:i+5000])+c.flush(zlib.Z_FULL_FLUSH)) for i in range(0,len(d),5000)];"
                + "o.write(c.flush())\" $IN"),
        // Members follow one another without a mark.
        Sample(name: "three members", command: "gzip -c $IN; gzip -1 -c $IN; gzip -9 -c $IN", copies: 3),
        // Empty members before, between and behind.
        Sample(
            name: "empty members",
            command:
                "gzip -c /dev/null; gzip -c /dev/null; gzip -c $IN; gzip -c /dev/null; gzip -c $IN; gzip -c /dev/null",
            copies: 2),
        // gzip(1) accepts padding with zeros, so blobs with it exist.
        Sample(name: "zeros behind", command: "gzip -c $IN; head -c 700 /dev/zero"),
        // Each optional field of the header alone, then all of them, then the longest extra field and a long
        // name.
        Sample(
            name: "extra",
            command: header("h=struct.pack('<BBBBIBBH',31,139,8,4,0,0,255,6)+b'AB'+struct.pack('<H',2)+b'xy'")
        ),
        Sample(name: "no extra bytes", command: header("h=struct.pack('<BBBBIBBH',31,139,8,4,0,0,255,0)")),
        Sample(
            name: "comment", command: header("h=struct.pack('<BBBBIBB',31,139,8,16,5,2,3)+b'a comment\\0'")),
        Sample(
            name: "header checksum",
            command: header(
                "h=struct.pack('<BBBBIBB',31,139,8,2,5,2,3);h+=struct.pack('<H',zlib.crc32(h)&0xffff)")),
        Sample(name: "text flag", command: header("h=struct.pack('<BBBBIBB',31,139,8,1,5,2,3)")),
        Sample(
            name: "all fields",
            command: header(
                "h=struct.pack('<BBBBIBBH',31,139,8,31,0xffffffff,4,11,65535)+b'e'*65535+b'n'*70000+b'\\0'+b'\\xff\\0';"
                    + "h+=struct.pack('<H',zlib.crc32(h)&0xffff)")),
    ]

    @Test(arguments: samples) func reads(_ sample: Sample) throws {
        // More than two slabs, and not a multiple of anything.
        let content = sampleBytes(600_011)
        let compressed = try shell(sample.command, content)
        let expected = (0..<sample.copies).flatMap { _ in content }
        #expect(try decode(compressed, .gzip) == expected)
        // Awkward pieces: everything that can be cut is cut somewhere.
        #expect(try decode(compressed, .gzip, runLength: 977) == expected)
    }

    // One byte at a time: each part of a header, a block header and a trailer is cut at each place.
    @Test(arguments: samples) func readsBytewise(_ sample: Sample) throws {
        let content = sampleBytes(3_001)
        let compressed = try shell(sample.command, content)
        let expected = (0..<sample.copies).flatMap { _ in content }
        for runLength in 1...9 { #expect(try decode(compressed, .gzip, runLength: runLength) == expected) }
    }

    // Around the lengths of windows, slabs and blocks, where off-by-one errors would be.
    @Test(arguments: [
        0, 1, 511, 32_767, 32_768, 32_769, 65_536, 131_071, 131_072, 262_143, 262_144, 262_145, 3 << 20,
    ])
    func readsLength(_ length: Int) throws {
        for content in [sampleBytes(length), randomBytes(length), [UInt8](repeating: 0, count: length)] {
            #expect(try decode(try shell("gzip -c < $IN", content), .gzip) == content)
        }
    }

    // The reader of tar relies on it that all slabs but the last are full.
    @Test func fillsSlabs() throws {
        let content = sampleBytes(100_000)
        let compressed = try shell("gzip -c < $IN; gzip -c < $IN", content)
        let decoder = GzipDecoder(ArraySource(compressed, runLength: 333), slabSize: 4096)
        var lengths: [Int] = []
        while case let count = try unsafe decoder.next().count, count > 0 { lengths.append(count) }
        #expect(lengths.dropLast().allSatisfy { $0 == 4096 })
        #expect(lengths.reduce(0, +) == 200_000)
    }

    // A blob cut anywhere must never pass for a whole one, even where the cut is at the end of a block.
    @Test(arguments: [1, 7, 100_000]) func refusesTruncation(runLength: Int) throws {
        let content = sampleBytes(700)
        let compressed = try shell(
            "python3 -c \"\(Self.python)c=zlib.compressobj(6,8,31);o.write(c.compress(d[:300])+c.flush(zlib.Z_SYNC_FLUSH)"
                + "+c.compress(d[300:])+c.flush())\" $IN", content)
        for length in 0..<compressed.count {
            let error = #expect(throws: CodecError.self) {
                try decode(Array(compressed[..<length]), .gzip, runLength: runLength)
            }
            #expect(error?.reason == .truncated)
            #expect(error?.offset == UInt64(length))
        }
    }

    // Cut inside a later member: the members before it are whole, the blob is not.
    @Test func refusesTruncatedSecondMember() throws {
        let member = try shell("gzip -c < $IN", sampleBytes(200))
        for length in 1..<member.count {
            let error = #expect(throws: CodecError.self) { try decode(member + member[..<length], .gzip) }
            #expect(error?.reason == .truncated)
        }
    }

    // Each bit of a small file flipped: an error, or the same bytes (a time, an operating system, padding
    // bits).
    @Test func noticesFlippedBits() throws {
        let content = sampleBytes(300)
        let compressed = try shell(
            Self.header(
                "h=struct.pack('<BBBBIBBH',31,139,8,28,7,2,3,4)+b'abcd'+b'name\\0'+b'comment\\0'"), content)
        var same = 0
        for bit in 0..<(compressed.count * 8) {
            var damaged = compressed
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            do {
                #expect(try decode(damaged, .gzip) == content, "bit \(bit)")
                same += 1
            } catch {
                #expect(error is CodecError)
            }
        }
        // FTEXT, 6 bytes of time and system, and in the optional fields what their bytes say, but not their
        // ends; in the deflate data at most the bits behind its end.
        #expect(same < (6 + 4 + 4 + 7 + 2 + 2) * 8)
    }

    // With a checksum in the header, no bit of the header may change.
    @Test func noticesFlippedHeaderBits() throws {
        let build =
            "h=struct.pack('<BBBBIBBH',31,139,8,30,7,2,3,4)+b'abcd'+b'name\\0'+b'comment\\0';"
            + "h+=struct.pack('<H',zlib.crc32(h)&0xffff)"
        let compressed = try shell(Self.header(build), sampleBytes(300))
        let headerLength = 12 + 4 + 5 + 8 + 2
        for bit in 0..<(headerLength * 8) {
            var damaged = compressed
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(throws: CodecError.self, "bit \(bit)") { try decode(damaged, .gzip) }
        }
    }

    // Nonsense of every kind: an error, never a crash, never a hang.
    @Test func survivesNonsense() throws {
        let valid = try shell("gzip -c < $IN", sampleBytes(70_000))
        var state: UInt64 = 99
        func random(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % limit
        }
        for round in 0..<400 {
            var bytes = round % 2 == 0 ? valid : Array(valid[..<10]) + randomBytes(400, seed: UInt64(round))
            if round % 2 == 0 {
                for _ in 0..<(1 + random(4)) { bytes[random(bytes.count)] = UInt8(random(256)) }
            }
            if let result = try? decode(bytes, .gzip, runLength: 1 + random(9000)) {
                #expect(result == sampleBytes(70_000))
            }
        }
    }

    struct Refused: Sendable, CustomTestStringConvertible {
        var name: String
        var change: @Sendable ([UInt8]) -> [UInt8]
        var reason: CodecError.Reason
        var testDescription: String { name }
    }

    static let refused = [
        // Not gzip at all.
        Refused(name: "zstd", change: { _ in [0x28, 0xb5, 0x2f, 0xfd, 0, 0] }, reason: .notThisFormat),
        Refused(name: "tar", change: { _ in Array("usr/".utf8) }, reason: .notThisFormat),
        // compress(1), which gzip(1) reads too.
        Refused(name: "compress", change: { _ in [0x1f, 0x9d, 0x90] }, reason: .notThisFormat),
        // RFC 1952, 2.3.1.2: these must be refused.
        Refused(
            name: "method 7",
            change: {
                var b = $0; b[2] = 7; return b
            },
            reason: .badHeader("unknown compression method")),
        Refused(
            name: "reserved flag",
            change: {
                var b = $0; b[3] |= 0x20; return b
            },
            reason: .badHeader("reserved flags are set")),
        Refused(
            name: "encrypted flag",
            change: {
                var b = $0; b[3] |= 0x80; return b
            },
            reason: .badHeader("reserved flags are set")),
        // The content was exchanged, or the trailer.
        Refused(
            name: "checksum",
            change: {
                var b = $0; b[b.count - 5] ^= 1; return b
            }, reason: .wrongChecksum),
        Refused(
            name: "length",
            change: {
                var b = $0; b[b.count - 1] ^= 1; return b
            }, reason: .wrongLength),
        // Hidden content that some readers would show.
        Refused(name: "garbage", change: { $0 + [1] }, reason: .trailingGarbage),
        Refused(name: "zeros, then garbage", change: { $0 + [0, 0, 0, 1] }, reason: .trailingGarbage),
        Refused(name: "zeros, then a member", change: { $0 + [0] + $0 }, reason: .trailingGarbage),
        Refused(name: "half a magic number", change: { $0 + [0x1f, 0x8a, 8] }, reason: .trailingGarbage),
        Refused(name: "another format", change: { $0 + [0x28, 0xb5, 0x2f, 0xfd] }, reason: .trailingGarbage),
        // A block of type 3.
        Refused(
            name: "reserved block type", change: { Array($0[..<10]) + [0x07, 0, 0, 0, 0, 0] },
            reason: .corrupt("invalid block")),
        // A match at the very start (fixed codes: length 3, distance 1): it must not read what was there
        // before.
        Refused(
            name: "distance before the start",
            change: { Array($0[..<10]) + [0x03, 0x02, 0, 0, 0, 0, 0, 0, 0] },
            reason: .corrupt("a distance reaches before the start")),
    ]

    @Test(arguments: refused) func refuses(_ item: Refused) throws {
        let valid = try shell("gzip -c < $IN", sampleBytes(1_000))
        for runLength in [1, 5, 100_000] {
            let error = #expect(throws: CodecError.self) {
                try decode(item.change(valid), .gzip, runLength: runLength)
            }
            #expect(error?.reason == item.reason)
        }
    }

    // A distance may not reach into the member before, though its bytes lie in the same slab.
    @Test func refusesDistanceIntoMemberBefore() throws {
        let member = try shell("gzip -nc < $IN", sampleBytes(1_000))
        let bad = Array(member[..<10]) + [0x03, 0x02, 0, 0, 0, 0, 0, 0, 0]
        #expect(throws: CodecError.self) { try decode(member + bad, .gzip) }
    }

    // What upstream throws arrives as it is, and again.
    @Test func handsOnErrors() throws {
        let compressed = try shell("gzip -c < $IN", sampleBytes(10_000))
        let source = ArraySource(Array(compressed.prefix(500)), failsAtEnd: true)
        let decoder = GzipDecoder(source)
        for _ in 0..<2 {
            #expect(throws: ArraySource.Failure.self) { while try unsafe !decoder.next().isEmpty {} }
        }
    }

    // More than 4 GiB would take too long here; the counter is at least not the one of the last slab.
    @Test func compressesAway() throws {
        let compressed = try shell("head -c 60000000 /dev/zero | gzip -c")
        let decoder = GzipDecoder(ArraySource(compressed))
        var total = 0
        while case let count = try unsafe decoder.next().count, count > 0 { total += count }
        #expect(total == 60_000_000)
    }
}
