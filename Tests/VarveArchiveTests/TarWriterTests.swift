import VarveArchive
import VarveSystem
import TestSupport
import Testing

@Suite struct TarWriterTests {
    struct Case: CustomTestStringConvertible, Sendable {
        var testDescription: String
        var file: TarFile
        /// The keywords of the pax header before it, in order; empty if there is none.
        var records: [String]
        init(_ name: String, _ file: TarFile, _ records: [String] = []) {
            testDescription = name
            self.file = file
            self.records = records
        }
    }

    static func file(_ path: String, _ change: (inout TarEntry) -> Void = { _ in }) -> TarFile {
        TarReaderTests.file(path, "abc", change)
    }
    static func n(_ count: Int) -> String { String(repeating: "n", count: count) }
    static let latin1 = BytePath([UInt8](repeating: 0xe9, count: 120)) ?? .empty

    static let cases: [Case] = [
        Case("all that fits", file("a") { ($0.mode, $0.uid, $0.gid) = (0o7777, 2_097_151, 2_097_151) }),
        Case("a name of 100 bytes", file(n(100))),
        Case("a name of 101 bytes that cannot be split", file(n(101)), ["path"]),
        Case("155 bytes, a slash and 100 bytes", file(n(155) + "/" + n(100))),
        Case("156 bytes, a slash and 100 bytes", file(n(156) + "/" + n(100)), ["path"]),
        Case("155 bytes, a slash and 101 bytes", file(n(155) + "/" + n(101)), ["path"]),
        // Its first slash would be lost.
        Case("an absolute name of 101 bytes", file("/" + n(100)), ["path"]),
        Case("4,095 bytes", file(n(4095)), ["path"]),
        // Names are bytes; a header does not say what they mean, so it holds any.
        Case("not UTF-8, short", file("") { $0.path = BytePath([0xff, 0x0a, 0xe9]) ?? .empty }),
        Case("not UTF-8, long", file("") { $0.path = latin1 }, ["hdrcharset", "path"]),
        Case("UTF-8, long", file(String(repeating: "\u{e9}", count: 60)), ["path"]),
        Case("a directory of 100 bytes", TarReaderTests.other(.directory, n(99) + "/")),
        Case("a directory of 101 bytes", TarReaderTests.other(.directory, n(100) + "/"), ["path"]),
        Case("a directory of prefix and name", TarReaderTests.other(.directory, n(155) + "/" + n(99) + "/")),
        Case("a link of 100 bytes", TarReaderTests.other(.symbolicLink, "l", n(100))),
        Case("a link of 101 bytes", TarReaderTests.other(.hardLink, "l", n(101)), ["linkpath"]),
        Case(
            "a long link that is not UTF-8",
            TarFile(entry: TarEntry(path: BytePath("l"), kind: .symbolicLink, linkTarget: latin1)),
            ["hdrcharset", "linkpath"]),
        Case(
            "owners of more than seven digits", file("a") { ($0.uid, $0.gid) = (2_097_152, 4_294_967_294) },
            ["uid", "gid"]),
        Case("nanoseconds", file("a") { $0.modificationTime.nanoseconds = 1 }, ["mtime"]),
        Case("before the epoch", file("a") { $0.modificationTime.seconds = -1 }, ["mtime"]),
        Case(
            "before the epoch with nanoseconds",
            file("a") { $0.modificationTime = Timestamp(seconds: -1, nanoseconds: 999_999_999) }, ["mtime"]),
        Case("the year 2242", file("a") { $0.modificationTime.seconds = 0o77777777777 }),
        Case("a second later", file("a") { $0.modificationTime.seconds = 0o100000000000 }, ["mtime"]),
        Case("the first second", file("a") { $0.modificationTime.seconds = .min }, ["mtime"]),
        Case("the last second", file("a") { $0.modificationTime.seconds = .max }, ["mtime"]),
        Case(
            "the other times",
            file("a") {
                ($0.accessTime, $0.changeTime) = (.epoch, Timestamp(seconds: 1, nanoseconds: 500_000_000))
            },
            ["atime", "ctime"]),
        Case("a device", TarReaderTests.other(.blockDevice, "b", device: (4095, 1_048_575))),
        Case("a FIFO", TarReaderTests.other(.fifo, "p")),
        Case(
            "ACLs and attributes, whose names hold '=' and '%'",
            file("a") {
                ($0.accessACL, $0.defaultACL) = (Array("user::rw-".utf8), Array("user::r--".utf8))
                $0.extendedAttributes = ["user.%", "user.%25", "user.%3D", "user.=a=", "user.empty"].map {
                    ExtendedAttribute(name: BytePath($0), value: $0 == "user.empty" ? [] : [0, 10, 61, 255])
                }
            },
            [
                "SCHILY.acl.access", "SCHILY.acl.default", "SCHILY.xattr.user.%", "SCHILY.xattr.user.%2525",
                "SCHILY.xattr.user.%253D", "SCHILY.xattr.user.%3Da%3D", "SCHILY.xattr.user.empty",
            ]),
    ]

    /// What the records of `archive`'s first header are called; none if that is no pax header.
    static func keywords(_ archive: [UInt8]) -> [String] {
        guard archive[156] == UInt8(ascii: "x") else { return [] }
        let size = Int(String(decoding: archive[124..<135], as: UTF8.self), radix: 8) ?? 0
        var rest = archive[512..<(512 + size)]
        var result = [String]()
        while let space = rest.firstIndex(of: 0x20), let equals = rest.firstIndex(of: 0x3d) {
            result.append(String(decoding: rest[(space + 1)..<equals], as: UTF8.self))
            rest = rest.dropFirst(Int(String(decoding: rest[..<space], as: UTF8.self)) ?? rest.count)
        }
        return result
    }

    @Test(arguments: cases) func whatIsWrittenIsRead(_ test: Case) throws {
        let archive = try writeTar([test.file, test.file])
        #expect(archive.count % 512 == 0)
        #expect(try readTar(archive) == [test.file, test.file])
        #expect(Self.keywords(archive) == test.records)
    }

    @Test func aDirectoryGetsItsSlash() throws {
        let archive = try writeTar([TarReaderTests.other(.directory, "d")])
        #expect(try readTar(archive) == [TarReaderTests.other(.directory, "d/")])
    }

    /// 8 GiB and one byte: the header comes right, the content is not written here.
    @Test(arguments: [0o77777777777, 0o100000000000, Int64.max]) func largeSizes(_ size: Int64) throws {
        let sink = MemorySink()
        let writer = TarWriter(sink)
        try writer.write(TarEntry(path: BytePath("a"), kind: .regular, size: size))
        #expect(Self.keywords(sink.bytes) == (size > 0o77777777777 ? ["size"] : []))
        #expect(try TarReader(MemorySource(sink.bytes, run: 512)).nextEntry()?.size == size)
        let error = #expect(throws: TarError.self) { try writer.finish() }
        #expect(
            error?.description
                == "cannot write the tar archive at entry a (header at byte 0): its content is \(size) "
                + "bytes shorter than the size in its header; it changed while it was read")
    }

    /// The bytes themselves: a change here changes the digest of every layer made.
    @Test func theBytesNeverChange() throws {
        let file = Self.file("etc/motd") {
            ($0.mode, $0.uid, $0.gid) = (0o640, 1, 2)
            $0.modificationTime = Timestamp(seconds: 1_700_000_000, nanoseconds: 250_000_000)
        }
        func text(_ field: String, _ length: Int) -> [UInt8] {
            Array(field.utf8) + [UInt8](repeating: 0, count: length - field.utf8.count)
        }
        func header(_ fields: [(String, Int)]) -> [UInt8] { fields.flatMap { text($0.0, $0.1) } }
        let expected =
            header([
                ("PaxHeaders.0/etc/motd", 100), ("0000644", 8), ("0000000", 8), ("0000000", 8),
                ("00000000027", 12),
                ("00000000000", 12), ("013137\0 ", 8), ("x", 101), ("ustar\u{0}00", 72), ("0000000", 8),
                ("0000000", 175),
            ]) + padded("23 mtime=1700000000.25\n")
            + header([
                ("etc/motd", 100), ("0000640", 8), ("0000001", 8), ("0000002", 8), ("00000000003", 12),
                ("14524770400", 12), ("010700\0 ", 8), ("0", 101), ("ustar\u{0}00", 72), ("0000000", 8),
                ("0000000", 175),
            ]) + padded("abc") + endOfTar
        let archive = try writeTar([file])
        #expect(archive.count == expected.count)
        for (offset, pair) in zip(archive, expected).enumerated() where pair.0 != pair.1 {
            Issue.record("byte \(offset) is \(pair.0), not \(pair.1)")
            break
        }
    }

    struct Unwritable: CustomTestStringConvertible, Sendable {
        var testDescription: String
        var entry: TarEntry
        init(
            _ name: String, _ path: String, _ kind: TarKind = .regular,
            _ change: (inout TarEntry) -> Void = { _ in }
        ) {
            testDescription = name
            entry = TarEntry(path: BytePath(path), kind: kind)
            change(&entry)
        }
    }

    static let attribute = ExtendedAttribute(name: BytePath("user.a"), value: [1])
    static let unwritable: [Unwritable] = [
        Unwritable("no name", ""),
        // Read as a directory.
        Unwritable("a file with a slash at the end", "d/"),
        Unwritable("4,096 bytes", n(4096)),
        // And there is no room for the slash.
        Unwritable("a directory of 4,095 bytes", n(4095), .directory),
        Unwritable("a link to 4,096 bytes", "l", .hardLink) { $0.linkTarget = BytePath(n(4096)) },
        Unwritable("a link to nothing", "l", .symbolicLink),
        Unwritable("a file with a target", "a") { $0.linkTarget = BytePath("b") },
        Unwritable("a negative size", "a") { $0.size = -1 },
        Unwritable("a directory with content", "d", .directory) { $0.size = 1 },
        Unwritable("a device that Linux has not", "c", .characterDevice) { $0.deviceMinor = 0o10000000 },
        Unwritable("a mode with type bits", "a") { $0.mode = 0o100644 },
        // chown(2) takes it for "leave the owner".
        Unwritable("uid 4294967295", "a") { $0.uid = .max },
        Unwritable("a second of nanoseconds", "a") { $0.modificationTime.nanoseconds = 1_000_000_000 },
        Unwritable("an attribute twice", "a") { $0.extendedAttributes = [attribute, attribute] },
        Unwritable("an attribute without a name", "a") {
            $0.extendedAttributes = [ExtendedAttribute(name: .empty, value: [])]
        },
        // More than the reader takes.
        Unwritable("attributes of 9 MiB", "a") {
            $0.extendedAttributes = [
                ExtendedAttribute(name: BytePath("user.a"), value: [UInt8](repeating: 0, count: 9 << 20))
            ]
        },
    ]

    @Test(arguments: unwritable) func refuses(_ test: Unwritable) throws {
        let sink = MemorySink()
        let writer = TarWriter(sink)
        #expect(throws: TarError.self) { try writer.write(test.entry) }
        #expect(sink.bytes.isEmpty)
    }

    @Test func contentMustBeAsLongAsItSays() throws {
        let writer = TarWriter(MemorySink())
        try writer.write(TarEntry(path: BytePath("a"), kind: .regular, size: 3))
        let four: [UInt8] = [1, 2, 3, 4]
        try unsafe four.withUnsafeBytes { bytes in
            try unsafe writer.writeContent(UnsafeRawBufferPointer(rebasing: bytes[..<2]))
            #expect(throws: TarError.self) { try writer.write(TarEntry(path: BytePath("b"), kind: .fifo)) }
            #expect(throws: TarError.self) {
                try unsafe writer.writeContent(UnsafeRawBufferPointer(rebasing: bytes[..<2]))
            }
            try unsafe writer.writeContent(UnsafeRawBufferPointer(rebasing: bytes[..<1]))
        }
        try writer.finish()
        try writer.finish()
        #expect(throws: TarError.self) { try writer.write(TarEntry(path: BytePath("b"), kind: .fifo)) }
    }

    @Test(arguments: 0..<4 as Range<UInt64>) func randomEntriesComeBack(_ seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let files = (0..<150).map { _ in Self.randomFile(&random) }
        let archive = try writeTar(files)
        for run in [1 << 16, 512, 333] { #expect(try readTar(archive, run: run) == files) }
        #expect(try writeTar(files) == archive)
    }

    static func randomBytes(_ lengths: ClosedRange<Int>, _ random: inout SeededGenerator) -> [UInt8] {
        (0..<Int.random(in: lengths, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
    }

    static func randomPath(_ random: inout SeededGenerator) -> BytePath {
        let longest = [5, 100, 260, 4000].randomElement(using: &random) ?? 5
        let letters = Bool.random(using: &random) ? Array("abc/".utf8) : Array(1...255)
        var bytes = (0..<Int.random(in: 1...longest, using: &random)).map { _ in
            letters.randomElement(using: &random) ?? 97
        }
        bytes[bytes.count - 1] = 97
        return BytePath(bytes) ?? .empty
    }

    static func randomTime(_ random: inout SeededGenerator) -> Timestamp {
        let seconds =
            [
                Int64.random(in: -2...2, using: &random), Int64.random(in: 0...2_000_000_000, using: &random),
                Int64.random(in: .min ... .max, using: &random),
            ].randomElement(using: &random) ?? 0
        let nanoseconds =
            [0, UInt32.random(in: 0...999_999_999, using: &random), 1000].randomElement(using: &random) ?? 0
        return Timestamp(seconds: seconds, nanoseconds: nanoseconds)
    }

    static func randomFile(_ random: inout SeededGenerator) -> TarFile {
        var entry = TarEntry(
            path: randomPath(&random), kind: TarKind.allCases.randomElement(using: &random) ?? .regular)
        var content = [UInt8]()
        switch entry.kind {
        case .regular:
            content = randomBytes(0...3000, &random)
            entry.size = Int64(content.count)
        case .directory: entry.path = BytePath(entry.path.bytes + [UInt8(ascii: "/")]) ?? .empty
        case .symbolicLink, .hardLink: entry.linkTarget = randomPath(&random)
        case .characterDevice, .blockDevice:
            entry.deviceMajor = UInt32.random(in: 0...0xfff, using: &random)
            entry.deviceMinor = UInt32.random(in: 0...0xfffff, using: &random)
        case .fifo: break
        }
        entry.mode = UInt32.random(in: 0...0o7777, using: &random)
        entry.uid = Bool.random(using: &random) ? 1000 : UInt32.random(in: 0 ..< .max, using: &random)
        entry.gid = Bool.random(using: &random) ? 1000 : UInt32.random(in: 0 ..< .max, using: &random)
        entry.modificationTime = randomTime(&random)
        if Int.random(in: 0..<4, using: &random) == 0 { entry.accessTime = randomTime(&random) }
        if Int.random(in: 0..<4, using: &random) == 0 { entry.changeTime = randomTime(&random) }
        if Int.random(in: 0..<4, using: &random) == 0 { entry.accessACL = randomBytes(1...200, &random) }
        let attributes = Int.random(in: -3...3, using: &random)
        let names = Set(
            (0..<max(0, attributes)).map { _ in randomBytes(1...20, &random).filter { $0 != 0 } + [97] })
        entry.extendedAttributes = names.compactMap(BytePath.init).sorted().map {
            ExtendedAttribute(name: $0, value: randomBytes(0...300, &random))
        }
        return TarFile(entry: entry, content: content)
    }
}
