@testable import VarveArchive
import Glibc
import VarveSystem
import SystemPackage
import Testing

/// Sources and sinks that work on the thread of their caller.
@Suite struct PipelineSourceTests {
    /// A file that is gone from its directory at once, closed at the end of its owner.
    static func file(_ bytes: [UInt8]) throws -> SharedDescriptor {
        let path = "/tmp/varve-source-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        try writeFile(path, bytes)
        defer { unsafe unlink(path) }
        return SharedDescriptor(try FileDescriptor.workingDirectory.open(BytePath(path), [.readOnly]))
    }

    // Around the length of a piece, with and without a limit.
    @Test(arguments: [0, 1, 262_143, 262_144, 262_145, 1_000_000]) func readsFile(length: Int) throws {
        let content = sampleBytes(length)
        let file = try Self.file(content)
        #expect(try collect(FileSource(file)) == content)
        // The position of the descriptor has not moved, so the file can be read again.
        #expect(try collect(FileSource(file.fd, limit: Int64(length))) == content)
        // A file that is too short is not the business of the reader: the digest will tell.
        #expect(try collect(FileSource(file, limit: Int64(length) + 1)) == content)
        if length > 0 {
            #expect(throws: PipelineError.longerThan(limit: Int64(length) - 1)) {
                try collect(FileSource(file, limit: Int64(length) - 1))
            }
        }
        if length > 0 {
            #expect(throws: PipelineError.longerThan(limit: 0)) { try collect(FileSource(file, limit: -5)) }
        }
    }

    @Test func readsPipe() throws {
        var ends: (Int32, Int32) = (0, 0)
        let result = unsafe withUnsafeMutableBytes(of: &ends) {
            unsafe pipe($0.bindMemory(to: Int32.self).baseAddress)
        }
        try #require(result == 0)
        let reader = OwnedDescriptor(owning: FileDescriptor(rawValue: ends.0))
        let content = sampleBytes(50_000)
        let writing = OwnedDescriptor(owning: FileDescriptor(rawValue: ends.1))
        try writing.fd.writeFull(content)
        try writing.close()
        #expect(try collect(FileSource(SharedDescriptor(reader))) == content)
    }

    @Test func reportsReadErrors() throws {
        let directory = try FileDescriptor.workingDirectory.open(BytePath("/tmp"), [.readOnly])
        #expect(throws: PipelineError.readFailed(offset: 0, .isDirectory)) {
            try collect(FileSource(directory.fd))
        }
    }

    // Whoever fills and whoever gets runs sees the same bytes, also in turns.
    @Test func fillsAndGivesRuns() throws {
        let content = sampleBytes(10_000)
        let sources: [any FillableSource] = unsafe [
            CopyingSource(ArraySource(content, runLength: 300)),
            TappedSource(ArraySource(content, runLength: 300)) { _ in },
            GzipDecoder(ArraySource(try shell("gzip -c < $IN", content))),
            ZstdDecoder(ArraySource(try shell("zstd -qc < $IN", content))),
            FileSource(try Self.file(content)),
        ]
        for source in sources {
            var read: [UInt8] = []
            var piece = [UInt8](repeating: 0, count: 1_000)
            let count = try unsafe piece.withUnsafeMutableBytes { try unsafe source.fill($0) }
            #expect(count == 1_000)
            read += piece
            read += try unsafe Array(source.next())
            while true {
                let count = try unsafe piece.withUnsafeMutableBytes { try unsafe source.fill($0) }
                if count == 0 { break }
                read += piece[..<count]
            }
            #expect(read == content)
            #expect(try unsafe source.next().isEmpty)
        }
    }

    @Test func tapSeesAll() throws {
        let content = sampleBytes(10_000)
        var seen: [UInt8] = []
        var ends = 0
        let source = unsafe TappedSource(
            ArraySource(content, runLength: 300), tap: { unsafe seen.append(contentsOf: $0) },
            atEnd: { ends += 1 })
        #expect(try collect(source) == content)
        #expect(seen == content)
        #expect(ends == 1)
    }

    // What the end of a tap throws comes in place of the end, each time.
    @Test func tapRefusesEnd() throws {
        let source = unsafe TappedSource(ArraySource([1]), tap: { _ in }, atEnd: { throw OrderedSum.Wrong() })
        #expect(try unsafe source.next().count == 1)
        unsafe #expect(throws: OrderedSum.Wrong.self) { try unsafe source.next() }
        unsafe #expect(throws: OrderedSum.Wrong.self) { try unsafe source.next() }
    }

    @Test func tappedSink() throws {
        let sink = CollectingSink()
        let sum = OrderedSum()
        let tapped = TappedSink(sink, observer: sum)
        try push(sampleBytes(5_000), into: tapped, piece: 700)
        try tapped.finish()
        #expect(sink.bytes == sampleBytes(5_000))
        #expect(sum.value == OrderedSum.of(sink.bytes))
        #expect(sink.finishes == 1)
        #expect(sum.finishCount == 1)
    }
}
