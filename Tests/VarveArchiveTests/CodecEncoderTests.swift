@testable import VarveArchive
import CCodecs
import Glibc
import VarveSystem
import Testing

/// The writers, against gzip(1), zstd(1) and Python as readers.
extension PipelineTests {
    @Suite struct CodecEncoderTests {
        struct Case: Sendable, CustomTestStringConvertible {
            var length: Int
            var level: Int?
            var testDescription: String { "\(length) bytes at level \(level.map(String.init) ?? "default")" }
        }

        // Around the block of 256 KiB, where a block is empty, full or has one byte; several blocks; each level.
        static let cases =
            [0, 1, 32_768, 262_143, 262_144, 262_145, 524_288, 524_289, 3 << 20].map { Case(length: $0) }
            + (0...9).map { Case(length: 600_000, level: $0) }

        @Test(arguments: cases) func gzipIsReadByOthers(_ item: Case) throws {
            for content in [sampleBytes(item.length), randomBytes(item.length)] {
                let compressed = try encode(content, .gzip, level: item.level, threads: 2, piece: 10_007)
                #expect(try shell("gzip -dc < $IN", compressed) == content)
                #expect(try decode(compressed, .gzip) == content)
            }
        }

        // One member, which is one deflate stream: also for readers that stop after the first one.
        @Test(arguments: [0, 262_144, 900_000]) func gzipIsOneMember(length: Int) throws {
            let content = sampleBytes(length)
            let script =
                "import zlib,sys;d=zlib.decompressobj(31);"
                + "sys.stdout.buffer.write(d.decompress(open(sys.argv[1],'rb').read()));"
                + "assert d.eof and not d.unused_data"
            #expect(
                try shell("python3 -c \"\(script)\" $IN", try encode(content, .gzip, threads: 2)) == content)
        }

        @Test(arguments: cases) func zstdIsReadByOthers(_ item: Case) throws {
            for content in [sampleBytes(item.length), randomBytes(item.length)] {
                let compressed = try encode(content, .zstd, level: item.level, threads: 2, piece: 10_007)
                #expect(try shell("zstd -dqc < $IN", compressed) == content)
                #expect(try decode(compressed, .zstd) == content)
            }
        }

        // The same image must have the same digest wherever it is packed.
        @Test(arguments: [Compression.gzip, .zstd]) func bytesDependOnContentAlone(_ compression: Compression)
            throws
        {
            for length in [0, 1, 262_144, 262_145, 1_400_000, 5_000_000] {
                let content = sampleBytes(length)
                let reference = try encode(content, compression, threads: 1)
                for threads in [1, 2, 4] {
                    let piece = threads == 4 ? 65_537 : 1_000_000
                    #expect(try encode(content, compression, threads: threads, piece: piece) == reference)
                }
            }
        }

        // RFC 1952: no name, no time, system unknown.
        @Test func gzipHeaderSaysNothing() throws {
            let empty = try encode([], .gzip)
            #expect(empty.starts(with: [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]))
            #expect(empty.suffix(8) == [0, 0, 0, 0, 0, 0, 0, 0] && empty.count <= 23)
            #expect(try encode([1], .gzip, level: 9).starts(with: [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255]))
        }

        // The last block of libdeflate ends at any bit of a byte, and what follows must start at the next byte: 600 runs
        // of all lengths, of bytes of many kinds, are one stream.
        @Test(arguments: [0, 1, 6, 12]) func runsAreOneStream(level: Int) throws {
            let made = unsafe varve_deflate_new(Int32(level))
            let deflater = try unsafe #require(made)
            defer { unsafe varve_deflate_free(deflater) }
            var content: [UInt8] = []
            var stream: [UInt8] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]
            for length in 1...600 {
                let run = length % 3 == 0 ? randomBytes(length) : sampleBytes(length * 7)
                let bound = unsafe varve_deflate_bound(deflater, run.count)
                var output = [UInt8](repeating: 0xff, count: bound)
                let count = unsafe varve_deflate_block(
                    deflater, run, run.count, length == 600 ? 1 : 0, &output, output.count)
                try #require(count > 0)
                if length < 600 { #expect(output[..<Int(count)].suffix(4) == [0, 0, 0xff, 0xff]) }
                content += run
                stream += output[..<Int(count)]
            }
            let checksum = unsafe varve_crc32(0, content, content.count)
            for word in [checksum, UInt32(content.count)] {
                stream += (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) }
            }
            #expect(try shell("gzip -dc < $IN", stream) == content)
            #expect(try decode(stream, .gzip) == content)
        }

        // Blocks know nothing of one another, but each of its own 256 KiB: of four, the first 30,000 bytes, and some two
        // bytes for each 258 of the rest.
        @Test func windowIsUsed() throws {
            let content = randomBytes(30_000)
            let repeated = (0..<30).flatMap { _ in content }
            #expect(try encode(repeated, .gzip).count < 130_000)
        }

        @Test func runsThatDoNotFit() throws {
            let made = unsafe varve_deflate_new(6)
            let deflater = try unsafe #require(made)
            defer { unsafe varve_deflate_free(deflater) }
            let run = randomBytes(1000)
            for room in [0, 4, 5, 900, 1000] {
                var output = [UInt8](repeating: 0, count: room)
                let count = unsafe varve_deflate_block(deflater, run, run.count, 0, &output, room)
                let reason = errno
                #expect(count == -1)
                #expect(reason == ENOBUFS)
            }
        }

        @Test(arguments: Compression.allCases) func finishTwice(_ compression: Compression) throws {
            let sink = CollectingSink()
            let encoder = try compression.encoder(into: sink)
            try push([1, 2, 3], into: encoder)
            let bytes = sink.bytes
            try encoder.finish()
            #expect(sink.bytes == bytes)
            #expect(sink.finishes == 1)
        }

        // A full disk below: the error comes out, again, and no thread stays.
        @Test(arguments: [Compression.gzip, .zstd]) func handsOnErrors(_ compression: Compression) throws {
            let sink = CollectingSink()
            sink.limit = 100_000
            let encoder = try compression.encoder(into: sink, threads: 2)
            let content = randomBytes(5_000_000)
            #expect(throws: CollectingSink.Failure.self) { try push(content, into: encoder, piece: 1 << 20) }
            #expect(throws: CollectingSink.Failure.self) { try encoder.finish() }
            #expect(sink.finishes == 0)
            #expect(eventually { threadCount("varve-deflate") == 0 })
        }

        // Dropped in the middle of its work, an encoder leaves no thread.
        @Test func abandonedGzipEncoder() throws {
            let content = sampleBytes(2_000_000)
            do {
                let encoder = GzipEncoder(into: CollectingSink(), level: 9, threads: 3)
                try unsafe content.withUnsafeBytes { try unsafe encoder.write($0) }
                #expect(eventually { threadCount("varve-deflate") > 0 })
            }
            #expect(eventually { threadCount("varve-deflate") == 0 })
        }

        // The threads of libzstd have the name of the one that made them.
        @Test func abandonedZstdEncoder() throws {
            let content = sampleBytes(6_000_000)
            let result = Results()
            let thread = try WorkerThread(name: "zstd-abandoned") {
                do {
                    let encoder = try ZstdEncoder(into: CollectingSink(), threads: 3)
                    try unsafe content.withUnsafeBytes { try unsafe encoder.write($0) }
                    result.add(eventually { threadCount("zstd-abandoned") == 4 } ? 4 : 0)
                } catch {
                    result.add(-1)
                }
                result.add(eventually { threadCount("zstd-abandoned") == 1 } ? 1 : 2)
            }
            thread.join()
            #expect(result.values == [4, 1])
        }
    }
}
