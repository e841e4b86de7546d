import BtrfsSendStream
import Glibc
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// An open file of these bytes, at its start.
private func file(_ bytes: [UInt8]) throws -> SharedDescriptor {
    let file = SharedDescriptor(try temporaryFile())
    try file.fd.writeFull(bytes)
    _ = try file.fd.seek(offset: 0, from: .start)
    return file
}

/// All commands, as `next` gives them.
private func commands(from descriptor: Int32, bufferSize: Int = 1 << 20) throws(SendStreamError)
    -> [SendCommand]
{
    var stream = SendStreamReader(fileDescriptor: descriptor, bufferSize: bufferSize)
    var commands = [SendCommand]()
    while let command = try stream.next() { commands.append(command) }
    // The end stays the end.
    #expect(try stream.next() == nil)
    return commands
}

@Suite struct SendStreamReaderTests {
    @Test(arguments: [1, 2, 3] as [UInt32])
    func everyCommandOfAFile(version: UInt32) throws {
        let file = try file(StreamBuilder.everything(version: version))
        #expect(try commands(from: file.fd.rawValue) == everyCommand(version: version))
        extendLifetime(file)
    }

    /// A pipe gives what the writer wrote so far: read(2) returns parts of commands.
    @Test func aPipeThatIsWrittenByteByByte() throws {
        let ends = try FileDescriptor.pipe()
        let bytes = StreamBuilder.everything(version: 2)
        let writer = try WorkerThread(name: "writer") {
            for byte in bytes { _ = try? ends.writeEnd.writeAll([byte]) }
            try? ends.writeEnd.close()
        }
        #expect(try commands(from: ends.readEnd.rawValue, bufferSize: 1) == everyCommand(version: 2))
        writer.join()
        try ends.readEnd.close()
    }

    @Test func aFileThatIsCutOff() throws {
        let file = try file(StreamBuilder.everything(version: 1).dropLast())
        let size = StreamBuilder.everything(version: 1).count - 1
        #expect(throws: SendStreamError(.truncated, offset: UInt64(size))) {
            try commands(from: file.fd.rawValue)
        }
        extendLifetime(file)
    }

    @Test func aDescriptorThatCannotBeRead() throws {
        let directory = try FileDescriptor.workingDirectory.openDirectory(temporaryDirectory())
        var stream = SendStreamReader(fileDescriptor: directory.fd.rawValue)
        let error = SendStreamError(.cannotRead(errno: EISDIR), offset: 0)
        #expect(throws: error) { try stream.next() }
        #expect(throws: error) { try stream.next() }
        #expect(throws: SendStreamError(.cannotRead(errno: EBADF), offset: 0)) { try commands(from: -1) }
    }
}

@Suite struct SendCommandsTests {
    /// `bytes` in pieces of `count`, with an empty piece after each.
    private func pieces(_ bytes: [UInt8], of count: Int) -> AsyncStream<[UInt8]> {
        AsyncStream { continuation in
            for start in stride(from: 0, to: bytes.count, by: count) {
                continuation.yield(Array(bytes[start..<min(start + count, bytes.count)]))
                continuation.yield([])
            }
            continuation.finish()
        }
    }

    private func all<Base: AsyncSequence>(_ commands: SendCommands<Base>) async throws -> [SendCommand] {
        var all = [SendCommand]()
        for try await command in commands { all.append(command) }
        return all
    }

    @Test(arguments: [1, 2, 3] as [UInt32], [1, 7, 4096])
    func everyCommandInPieces(version: UInt32, piece: Int) async throws {
        let stream = pieces(StreamBuilder.everything(version: version), of: piece)
        #expect(try await all(SendCommands(pieces: stream)) == everyCommand(version: version))
    }

    @Test func everyCommandInBytes() async throws {
        let bytes = AsyncStream<UInt8> { continuation in
            for byte in StreamBuilder.everything(version: 3) { continuation.yield(byte) }
            continuation.finish()
        }
        #expect(try await all(SendCommands(bytes: bytes)) == everyCommand(version: 3))
    }

    @Test func aStreamThatIsCutOff() async throws {
        let bytes = Array(StreamBuilder.everything(version: 1).dropLast())
        var iterator = SendCommands(pieces: pieces(bytes, of: 100)).makeAsyncIterator()
        let error = SendStreamError(.truncated, offset: UInt64(bytes.count))
        await #expect(throws: error) { while try await iterator.next() != nil {} }
        await #expect(throws: error) { try await iterator.next() }
    }

    @Test func theEndStaysTheEnd() async throws {
        var iterator = SendCommands(pieces: pieces(StreamBuilder.everything(version: 1), of: 100))
            .makeAsyncIterator()
        while try await iterator.next() != nil {}
        #expect(try await iterator.next() == nil)
    }

    @Test func anErrorOfTheSource() async throws {
        struct Lost: Error {}
        let stream = AsyncThrowingStream<[UInt8], any Error> { continuation in
            continuation.yield(Array(StreamBuilder.everything(version: 1).prefix(100)))
            continuation.finish(throwing: Lost())
        }
        await #expect(throws: Lost.self) { try await all(SendCommands(pieces: stream)) }
    }
}

@Suite struct SendStreamPageTests {
    @Test func theExampleIsTheProgramThatRuns() throws {
        func text(_ name: String) throws -> String {
            let bytes = try FileDescriptor.workingDirectory.readFile(
                BytePath(repositoryFile(name)), limit: 1 << 20)
            return String(decoding: bytes, as: UTF8.self)
        }
        let program = try text("Tests/SendStreamExample/Example.swift")
        #expect(try text("Docs/send-stream.md").contains("```swift\n\(program)```\n"))
    }

    @Test func theExampleSaysWhatIsInAStream() throws {
        let run = try runCommand(
            [try builtProgram("send-stream-example")], input: StreamBuilder.everything(version: 2))
        #expect(run.errorText == "" && run.status == 0)
        let lines = run.outputText.split(separator: "\n").map(String.init)
        #expect(
            lines.first
                == "new (01010101-0101-0101-0101-010101010101) is sent as the difference to "
                + "02020202-0202-0202-0202-020202020202")
        #expect(lines.contains("utimes: 2"))
        #expect(
            lines.suffix(2) == [
                "contents, compression none: 5 bytes", "contents, compression lzo_4k: 3 bytes",
            ])
    }
}
