import VarveArchive
import Testing

/// Telling formats apart, and the texts of errors.
@Suite struct CodecCompressionTests {
    struct Magic: Sendable {
        var bytes: [UInt8]
        var compression: Compression
    }

    @Test(arguments: [
        Magic(bytes: [0x1f, 0x8b, 8, 0], compression: .gzip),
        Magic(bytes: [0x28, 0xb5, 0x2f, 0xfd], compression: .zstd),
        // The first and the last of the sixteen numbers of skippable frames, and what is beside them.
        Magic(bytes: [0x50, 0x2a, 0x4d, 0x18], compression: .zstd),
        Magic(bytes: [0x5f, 0x2a, 0x4d, 0x18], compression: .zstd),
        Magic(bytes: [0x60, 0x2a, 0x4d, 0x18], compression: .none),
        // Too short to say.
        Magic(bytes: [0x28, 0xb5, 0x2f], compression: .none),
        Magic(bytes: [0x1f], compression: .none),
        Magic(bytes: [], compression: .none),
        // An empty tar, and a name.
        Magic(bytes: [0, 0, 0, 0], compression: .none),
        Magic(bytes: Array("etc/".utf8), compression: .none),
    ])
    func detects(_ magic: Magic) {
        #expect(Compression.detect(magic: magic.bytes) == magic.compression)
        #expect(
            Compression.detect(magic: magic.bytes + (magic.bytes.count < 4 ? [] : [9, 9]))
                == magic.compression)
    }

    // Looking must not lose a byte, however short the runs are.
    @Test(arguments: [1, 2, 3, 4, 5, 100]) func looksWithoutReading(runLength: Int) throws {
        for content in [[], [7], [0x1f, 0x8b, 8], [0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3], sampleBytes(50)]
            as [[UInt8]]
        {
            let (compression, source) = try Compression.detect(in: ArraySource(content, runLength: runLength))
            #expect(compression == Compression.detect(magic: content))
            #expect(try collect(source) == content)
        }
    }

    @Test(arguments: Compression.allCases) func roundTrip(_ compression: Compression) throws {
        let content = sampleBytes(300_000)
        #expect(try decode(try encode(content, compression, threads: 2), compression) == content)
    }

    @Test func errorTexts() {
        #expect(
            CodecError(.gzip, .truncated, offset: 17).description
                == "cannot decompress the gzip data: they end too early, after 17 bytes; the blob is incomplete, "
                + "fetch it again")
        #expect(
            CodecError(.zstd, .windowTooLarge, offset: 6).description
                == "cannot decompress the zstd data: at byte 6 they need more than 128 MiB of memory; compress "
                + "the layer again with a smaller window")
        #expect(
            CodecError(.gzip, .trailingGarbage, offset: 40).description
                == "cannot decompress the gzip data: something else follows them at byte 40; the blob was not "
                + "made as one layer, build or fetch it again")
        #expect(
            PipelineError.longerThan(limit: 10).description
                == "the file has more than the 10 bytes that it should have; it is not the one that was asked "
                + "for, fetch it again")
    }
}
