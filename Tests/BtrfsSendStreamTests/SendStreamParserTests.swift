import BtrfsSendStream
import TestSupport
import Testing

/// All commands of `bytes`, given to the parser in pieces of `piece` bytes.
func parse(_ bytes: [UInt8], piece: Int = .max, bufferSize: Int = 4096) throws(SendStreamError)
    -> [SendCommand]
{
    var parser = SendStreamParser(bufferSize: bufferSize)
    var commands = [SendCommand]()
    var position = 0
    while position < bytes.count {
        let end = position + min(piece, bytes.count - position)
        parser.feed(bytes[position..<end])
        position = end
        while let command = try parser.next() { commands.append(command) }
    }
    try parser.finish()
    return commands
}

private func slice(_ text: String) -> ArraySlice<UInt8> { ArraySlice(text.utf8) }
private func uuid(_ byte: UInt8) -> SubvolumeUUID {
    SubvolumeUUID(high: UInt64(byte) * 0x0101_0101_0101_0101, low: UInt64(byte) * 0x0101_0101_0101_0101)
}

private let version1: [SendCommand] = [
    .snapshot(path: slice("new"), uuid: uuid(1), ctransid: 9, cloneUUID: uuid(2), cloneCtransid: 8),
    .mkfile(path: slice("o257-9-0"), inode: 257),
    .mkdir(path: slice("d"), inode: 258),
    .mknod(path: slice("d/null"), inode: 259, mode: 0o20666, device: 0x103),
    .mkfifo(path: slice("fifo"), inode: 260, mode: 0o10644, device: 0),
    .mksock(path: slice("sock"), inode: 261, mode: 0o140755, device: 0),
    .symlink(path: slice("l"), inode: 262, target: slice("../x//y")),
    .rename(path: slice("o257-9-0"), to: slice("d/f")),
    .link(path: slice("d/g"), existing: slice("d/f")),
    .unlink(path: slice("d/g")),
    .rmdir(path: slice("gone")),
    .setXattr(path: slice("d/f"), name: slice("user.a"), value: [0, 255]),
    .removeXattr(path: slice("d/f"), name: slice("user.b")),
    .write(path: slice("d/f"), offset: 4096, data: slice("hello")),
    .clone(
        path: slice("d/f"), offset: 8192, length: 4096, cloneUUID: uuid(3), cloneCtransid: 7,
        clonePath: slice("from"),
        cloneOffset: 12),
    .truncate(path: slice("d/f"), size: 5),
    .chmod(path: slice("d/f"), mode: 0o4755),
    .chown(path: slice("d/f"), uid: 1000, gid: 100),
    .utimes(
        path: [], atime: SendTime(seconds: 1, nanoseconds: 2), mtime: SendTime(seconds: -3, nanoseconds: 4),
        ctime: SendTime(seconds: 5, nanoseconds: 999_999_999), otime: nil),
    .updateExtent(path: slice("d/f"), offset: 0, length: 4096),
]

private let version2: [SendCommand] = [
    .utimes(
        path: slice("d"), atime: SendTime(seconds: 1, nanoseconds: 2),
        mtime: SendTime(seconds: 3, nanoseconds: 4),
        ctime: SendTime(seconds: 5, nanoseconds: 6), otime: SendTime(seconds: 7, nanoseconds: 8)),
    .fallocate(path: slice("d/f"), mode: 3, offset: 0, length: 10),
    .fileattr(path: slice("d/f"), attributes: 0x10),
    .encodedWrite(
        path: slice("d/f"), offset: 0, unencodedFileLength: 100, unencodedLength: 200, unencodedOffset: 50,
        compression: .lzo4K, encryption: 0, data: [1, 2, 3]),
]

private let version3: [SendCommand] = [
    .enableVerity(path: slice("d/f"), algorithm: 1, blockSize: 4096, salt: [9], signature: [])
]

/// The commands of `StreamBuilder.everything`.
func everyCommand(version: UInt32) -> [SendCommand] {
    version1 + (version >= 2 ? version2 : []) + (version >= 3 ? version3 : []) + [.end]
}

@Suite struct SendStreamParserTests {
    /// Contents of each length fall in each way into the steps in which checksums are computed. `StreamBuilder` computes
    /// them bit by bit.
    @Test func checksumsOfEveryLength() throws {
        // The check value of CRC-32C, which has both inversions.
        #expect(~slowCRC32C(Array("123456789".utf8), initial: 0xffff_ffff) == 0xe306_9283)
        let contents = (0...100).map { count in (0..<count).map { UInt8($0 * 37 & 255) } }
        var stream = StreamBuilder()
        stream.header()
        stream.subvolume()
        for data in contents { stream.command(15, .text(15, "f"), .u64(18, 0), .bytes(19, data)) }
        stream.end()
        #expect(
            try parse(stream.bytes).dropFirst().dropLast()
                == contents.map { .write(path: slice("f"), offset: 0, data: $0[...]) }[...])
    }

    @Test(arguments: [1, 2, 3] as [UInt32], [1, 2, 3, 7, 16, 4096])
    func everyCommandInPiecesOfAnySize(version: UInt32, piece: Int) throws {
        #expect(
            try parse(StreamBuilder.everything(version: version), piece: piece)
                == everyCommand(version: version))
    }

    @Test func streamsAfterOneAnother() throws {
        let bytes = StreamBuilder.everything(version: 1) + StreamBuilder.everything(version: 2)
        #expect(try parse(bytes) == everyCommand(version: 1) + everyCommand(version: 2))
    }

    /// `btrfs send -e`.
    @Test func severalSubvolumesInOneStream() throws {
        var stream = StreamBuilder()
        stream.header()
        stream.subvolume("a")
        stream.subvolume("b")
        stream.end()
        #expect(try parse(stream.bytes).map(\.name) == ["subvol", "subvol", "end"])
    }

    @Test func slicesOutliveTheBuffer() throws {
        var stream = StreamBuilder()
        stream.header()
        stream.subvolume()
        for index in 0..<500 { stream.command(11, .text(15, "name-\(index)")) }
        stream.end()
        // Kept slices must not change when the buffer is filled again.
        let commands = try parse(stream.bytes, piece: 1000)
        #expect(commands[1...500].elementsEqual((0..<500).map { .unlink(path: slice("name-\($0)")) }))
    }

    /// As long as the kernel writes them, which is more than the buffer holds at first.
    @Test(arguments: [(1, 48 << 10), (2, 140 << 10)] as [(UInt32, Int)], [999, 70_000])
    func longCommands(of stream: (version: UInt32, bytes: Int), piece: Int) throws {
        let data = [UInt8](repeating: 7, count: stream.bytes)
        var built = StreamBuilder()
        built.header(version: stream.version)
        built.subvolume()
        built.command(15, .text(15, "f"), .u64(18, 0), stream.version == 1 ? .bytes(19, data) : .rest(data))
        built.end()
        #expect(
            try parse(built.bytes, piece: piece)[1] == .write(path: slice("f"), offset: 0, data: data[...]))
    }

    /// A length that says 4 GiB must not be believed, or even waited for.
    @Test(
        arguments: [
            (1, SendStreamParser.longestCommandOfVersion1), (2, SendStreamParser.longestCommand),
            (3, SendStreamParser.longestCommand),
        ] as [(UInt32, Int)])
    func memoryIsBounded(version: UInt32, longest: Int) throws {
        var stream = StreamBuilder()
        stream.header(version: version)
        stream.bytes += little(UInt32.max) + little(UInt16(15)) + little(UInt32(0))
        #expect(throws: SendStreamError(.commandTooLong(length: .max, limit: longest - 10), offset: 17)) {
            try parse(stream.bytes)
        }
    }

    @Test(
        "A source that fails is an error, and not the end of the stream", arguments: [-1, Int.min, Int.max])
    func failingSource(_ count: Int) {
        var parser = SendStreamParser(bufferSize: 1 << 16)
        let filled = unsafe parser.fill(with: { _ in count })
        #expect(filled == 0)
        var errors: [SendStreamError] = []
        do throws(SendStreamError) { _ = try parser.next() } catch { errors.append(error) }
        do throws(SendStreamError) { try parser.finish() } catch { errors.append(error) }
        #expect(errors.map(\.reason) == [.sourceFailed, .sourceFailed])
    }

    @Test func sourceThatWritesIntoTheBuffer() throws {
        let bytes = StreamBuilder.everything(version: 2)
        var parser = SendStreamParser(bufferSize: 1)
        var position = 0
        var commands = [SendCommand]()
        while unsafe parser.fill(with: { buffer in
            let count = min(buffer.count, 100, bytes.count - position)
            for index in 0..<count { unsafe buffer[index] = bytes[position + index] }
            position += count
            return count
        }) > 0 {
            while let command = try parser.next() { commands.append(command) }
        }
        try parser.finish()
        #expect(commands == everyCommand(version: 2))
        #expect(parser.finishedStreams == 1)
    }
}

/// A stream that must be refused, and why.
struct Refusal: Sendable, CustomTestStringConvertible {
    var name: String
    var bytes: [UInt8]
    var reason: SendStreamError.Reason
    /// Of the error; 17 is the first command, 64 the one after the subvolume "s".
    var offset: UInt64
    var testDescription: String { name }

    init(
        _ name: String, _ reason: SendStreamError.Reason, at offset: UInt64,
        _ build: (inout StreamBuilder) -> Void
    ) {
        self.name = name
        self.reason = reason
        self.offset = offset
        var stream = StreamBuilder()
        build(&stream)
        bytes = stream.bytes
    }

    /// A stream of version `version` with the subvolume "s", then what `build` adds.
    static func afterSubvolume(
        _ name: String, version: UInt32 = 1, _ reason: SendStreamError.Reason,
        _ build: (inout StreamBuilder) -> Void
    ) -> Refusal {
        Refusal(name, reason, at: 64) { stream in
            stream.header(version: version)
            stream.subvolume()
            build(&stream)
            stream.end()
        }
    }

    static let all: [Refusal] = [
        Refusal("nothing", .empty, at: 0) { _ in },
        Refusal("another file", .notASendStream, at: 0) { $0.bytes = Array("hello".utf8) },
        Refusal("only a part of the mark", .truncated, at: 5) { $0.bytes = Array("btrfs".utf8) },
        // The NUL after the mark belongs to it.
        Refusal("mark without NUL", .notASendStream, at: 0) {
            $0.bytes = Array("btrfs-streams1234567890".utf8)
        },
        Refusal("version 0", .unsupportedVersion(0), at: 0) { $0.header(version: 0) },
        Refusal("version 4", .unsupportedVersion(4), at: 0) { $0.header(version: 4) },
        Refusal("header only", .missingEnd, at: 17) { $0.header() },
        Refusal("no end", .missingEnd, at: 64) {
            $0.header()
            $0.subvolume()
        },
        Refusal("end without subvolume", .commandBeforeSubvolume("end"), at: 17) {
            $0.header()
            $0.end()
        },
        Refusal("command before subvolume", .commandBeforeSubvolume("unlink"), at: 17) {
            $0.header()
            $0.command(11, .text(15, "f"))
            $0.end()
        },
        // A second stream must name its subvolume again.
        Refusal("second stream without subvolume", .commandBeforeSubvolume("unlink"), at: 91) {
            $0.header()
            $0.subvolume()
            $0.end()
            $0.header()
            $0.command(11, .text(15, "f"))
        },
        Refusal("something after the end", .trailingData, at: 74) {
            $0.header()
            $0.subvolume()
            $0.end()
            $0.bytes += [0]
        },
        Refusal("half a header after the end", .truncated, at: 79) {
            $0.header()
            $0.subvolume()
            $0.end()
            $0.bytes += Array("btrfs".utf8)
        },
        afterSubvolume("command 0", .unknownCommand(0)) { $0.command(0) },
        // Versions 1 and 2 have no commands of later ones.
        afterSubvolume("command 23 in version 1", .unknownCommand(23)) { $0.command(23) },
        afterSubvolume("command 26 in version 2", version: 2, .unknownCommand(26)) { $0.command(26) },
        afterSubvolume("command 27", version: 3, .unknownCommand(27)) { $0.command(27) },
        afterSubvolume("attribute 0", .unknownAttribute(0, command: "unlink")) { $0.command(11, .u64(0, 0)) },
        afterSubvolume("attribute 25 in version 1", .unknownAttribute(25, command: "unlink")) {
            $0.command(11, .text(15, "f"), .u32(25, 0))
        },
        afterSubvolume("attribute 36", version: 3, .unknownAttribute(36, command: "unlink")) {
            $0.command(11, .text(15, "f"), .u32(36, 0))
        },
        // 64 and above would be out of a 64-bit set.
        afterSubvolume("attribute 65535", .unknownAttribute(65535, command: "unlink")) {
            $0.command(11, .u32(65535, 0))
        },
        afterSubvolume("twice the path", .duplicateAttribute("path", command: "unlink")) {
            $0.command(11, .text(15, "f"), .text(15, "f"))
        },
        afterSubvolume("no path", .missingAttribute("path", command: "unlink")) { $0.command(11) },
        afterSubvolume("no data", .missingAttribute("data", command: "write")) {
            $0.command(15, .text(15, "f"), .u64(18, 0))
        },
        afterSubvolume("one byte of an attribute", .truncatedAttribute(command: "unlink")) {
            $0.raw(11, [15])
        },
        afterSubvolume("attribute without length", .truncatedAttribute(command: "unlink")) {
            $0.raw(11, [15, 0, 1])
        },
        afterSubvolume("attribute too long", .truncatedAttribute(command: "unlink")) {
            $0.raw(11, [15, 0, 2, 0, 65])
        },
        // In version 1 the data does have a length.
        afterSubvolume("data without length in version 1", .truncatedAttribute(command: "write")) {
            $0.command(15, .text(15, "f"), .u64(18, 0), .rest([255, 255, 0]))
        },
        afterSubvolume("u64 of 4 bytes", .wrongLength(4, attribute: "size", command: "truncate")) {
            $0.command(17, .text(15, "f"), .u32(4, 0))
        },
        afterSubvolume("UUID of 15 bytes", .wrongLength(15, attribute: "uuid", command: "subvol")) {
            $0.command(1, .text(15, "f"), .bytes(1, [UInt8](repeating: 0, count: 15)), .u64(2, 0))
        },
        afterSubvolume("time of 8 bytes", .wrongLength(8, attribute: "atime", command: "utimes")) {
            $0.command(20, .text(15, "f"), .u64(11, 0), .time(10, 0, 0), .time(9, 0, 0))
        },
        afterSubvolume("a billion nanoseconds", .invalidTime(attribute: "mtime", command: "utimes")) {
            $0.command(20, .text(15, "f"), .time(11, 0, 0), .time(10, 0, 1_000_000_000), .time(9, 0, 0))
        },
        afterSubvolume("empty xattr name", .invalidPath(attribute: "xattrName", command: "remove_xattr")) {
            $0.command(14, .text(15, "f"), .text(13, ""))
        },
        afterSubvolume("NUL in a link's target", .invalidPath(attribute: "pathLink", command: "symlink")) {
            $0.command(8, .text(15, "f"), .u64(3, 1), .bytes(17, [65, 0]))
        },
        afterSubvolume("path of 4096 bytes", .invalidPath(attribute: "path", command: "unlink")) {
            $0.command(11, .text(15, String(repeating: "a", count: 4096)))
        },
    ]
}

@Suite struct SendStreamRefusalTests {
    @Test(arguments: Refusal.all, [1, Int.max])
    func refused(_ refusal: Refusal, piece: Int) {
        #expect(throws: SendStreamError(refusal.reason, offset: refusal.offset)) {
            try parse(refusal.bytes, piece: piece)
        }
    }

    /// Paths that would lead a careless receiver out of the subvolume, or that no kernel writes.
    @Test(arguments: ["/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/./b", "a/../b", "a\0b"])
    func badPaths(path: String) {
        var stream = StreamBuilder()
        stream.header()
        stream.subvolume()
        stream.command(11, .text(15, path))
        #expect(throws: SendStreamError(.invalidPath(attribute: "path", command: "unlink"), offset: 64)) {
            try parse(stream.bytes)
        }
    }

    @Test(arguments: ["", "a", "...", ".a", "a.", "a/...", "..a/b..", "a b/\u{7}"])
    func goodPaths(path: String) throws {
        var stream = StreamBuilder()
        stream.header()
        stream.subvolume()
        stream.command(11, .text(15, path))
        stream.end()
        #expect(try parse(stream.bytes)[1] == .unlink(path: ArraySlice(path.utf8)))
    }

    @Test(arguments: [1, 2, 3] as [UInt32])
    func cutAnywhere(version: UInt32) throws {
        let bytes = StreamBuilder.everything(version: version)
        for count in 0..<bytes.count {
            let error = #expect(throws: SendStreamError.self) { try parse(Array(bytes[..<count])) }
            let expected: [SendStreamError.Reason] = [.empty, .truncated, .missingEnd]
            #expect(error.map { expected.contains($0.reason) && $0.offset == UInt64(count) } == true)
        }
    }

    @Test func anyBitFlipped() throws {
        let bytes = StreamBuilder.everything(version: 3)
        for index in bytes.indices {
            for bit in 0..<8 {
                var damaged = bytes
                damaged[index] ^= 1 << UInt8(bit)
                // The version is the one field without a checksum: 3 may become 2, or 1, which refuse what is new.
                #expect(throws: SendStreamError.self) { try parse(damaged) }
            }
        }
    }

    @Test func theErrorStays() {
        var parser = SendStreamParser()
        parser.feed(Array("nonsense".utf8))
        let first = #expect(throws: SendStreamError.self) { try parser.next() }
        let second = #expect(throws: SendStreamError.self) { try parser.next() }
        let third = #expect(throws: SendStreamError.self) { try parser.finish() }
        #expect(first == second && second == third)
    }

    struct Text: Sendable, CustomTestStringConvertible {
        var error: SendStreamError
        var text: String
        var testDescription: String { "\(error.reason)" }
    }

    @Test(arguments: [
        Text(
            error: SendStreamError(.missingEnd, offset: 99),
            text:
                "cannot read the send stream at byte 99: it ends without the end command; was the sender stopped?"
        ),
        Text(
            error: SendStreamError(.unsupportedVersion(4), offset: 0),
            text: "cannot read the send stream at byte 0: its version is 4, and versions 1 to 3 are known; "
                + "ask the sender for version 1"),
        Text(
            error: SendStreamError(.missingAttribute("path", command: "unlink"), offset: 5),
            text: "cannot read the send stream at byte 5: unlink lacks its attribute path"),
        Text(
            error: SendStreamError(.cannotRead(errno: 5), offset: 70),
            text: "cannot read the send stream at byte 70: Input/output error"),
    ])
    func texts(_ text: Text) { #expect(text.error.description == text.text) }
}

/// Gives equal numbers on every run.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
        return value ^ value >> 31
    }
}

@Suite struct SendStreamMutationTests {
    /// Damages commands and makes their checksums right again, so that what lies behind the checksum is reached. The
    /// parser must end with an error of its own or with commands, whatever comes.
    @Test(arguments: [1, 2, 3] as [UInt32], 0..<3)
    func mutatedBehindTheChecksum(version: UInt32, seed: Int) {
        var generator = SeededGenerator(state: UInt64(seed))
        var refused = 0
        var accepted = 0
        for _ in 0..<120 {
            var stream = split(StreamBuilder.everything(version: version))
            for _ in 0..<Int.random(in: 1...3, using: &generator) { mutate(&stream, using: &generator) }
            let bytes = join(stream)
            do throws(SendStreamError) {
                let commands = try parse(bytes, piece: Int.random(in: 1...200, using: &generator))
                #expect(commands.last == .end)
                // A command that was accepted can be printed.
                for command in commands { #expect(!SendStreamPrinter.json(command).isEmpty) }
                accepted += 1
            } catch {
                #expect(error.offset <= UInt64(bytes.count))
                refused += 1
            }
        }
        // Both must occur, or the mutations are too tame or too wild to test anything.
        #expect(refused > 25 && accepted > 5)
    }

    private struct Parts {
        var header: [UInt8]
        var commands: [(number: UInt16, payload: [UInt8])]
    }

    private func split(_ bytes: [UInt8]) -> Parts {
        var parts = Parts(header: Array(bytes[..<17]), commands: [])
        var position = 17
        while position < bytes.count {
            let length = Int(bytes[position]) | Int(bytes[position + 1]) << 8
            let number = UInt16(bytes[position + 4]) | UInt16(bytes[position + 5]) << 8
            parts.commands.append((number, Array(bytes[(position + 10)..<(position + 10 + length)])))
            position += 10 + length
        }
        return parts
    }

    private func join(_ parts: Parts) -> [UInt8] {
        var stream = StreamBuilder()
        stream.bytes = parts.header
        for command in parts.commands { stream.raw(command.number, command.payload) }
        return stream.bytes
    }

    private func mutate(_ parts: inout Parts, using generator: inout SeededGenerator) {
        guard !parts.commands.isEmpty else { return }
        let index = Int.random(in: 0..<parts.commands.count, using: &generator)
        var payload = parts.commands[index].payload
        switch Int.random(in: 0..<8, using: &generator) {
        case 0: parts.commands[index].number = UInt16.random(in: 0...30, using: &generator)
        case 1: parts.commands.remove(at: index)
        case 2: parts.commands.insert(parts.commands[index], at: index)
        case 3: parts.commands.swapAt(index, Int.random(in: 0..<parts.commands.count, using: &generator))
        case 4 where !payload.isEmpty:
            payload[Int.random(in: 0..<payload.count, using: &generator)] = UInt8.random(
                in: 0...255, using: &generator)
            parts.commands[index].payload = payload
        case 5 where !payload.isEmpty:
            payload.removeLast(Int.random(in: 1...payload.count, using: &generator))
            parts.commands[index].payload = payload
        case 6:
            let extra = (0..<Int.random(in: 1...40, using: &generator)).map { _ in
                UInt8.random(in: 0...40, using: &generator)
            }
            payload.insert(contentsOf: extra, at: Int.random(in: 0...payload.count, using: &generator))
            parts.commands[index].payload = payload
        default:
            guard !payload.isEmpty else { return }
            payload[Int.random(in: 0..<payload.count, using: &generator)] &+= 1
            parts.commands[index].payload = payload
        }
    }
}
