import VarveArchive
import VarveSystem
import TestSupport
import Testing

/// What well-formed archives made by hand mean; each is read in runs of several lengths.
@Suite struct TarReaderTests {
    struct Case: CustomTestStringConvertible, Sendable {
        var testDescription: String
        var archive: [UInt8]
        var expected: [TarFile]
        init(_ name: String, _ archive: [UInt8], _ expected: [TarFile]) {
            testDescription = name
            self.archive = archive
            self.expected = expected
        }
    }

    static func file(
        _ path: String, _ content: String = "", _ change: (inout TarEntry) -> Void = { _ in }
    ) -> TarFile {
        var entry = TarEntry(path: BytePath(path), kind: .regular, size: Int64(content.utf8.count))
        change(&entry)
        return TarFile(entry: entry, content: Array(content.utf8))
    }

    static func other(
        _ kind: TarKind, _ path: String, _ target: String = "", device: (UInt32, UInt32) = (0, 0)
    ) -> TarFile {
        TarFile(
            entry: TarEntry(
                path: BytePath(path), kind: kind, linkTarget: BytePath(target), deviceMajor: device.0,
                deviceMinor: device.1))
    }

    static func sparse(_ path: String, _ size: Int64, _ segments: [(Int64, String)]) -> TarFile {
        var entry = TarEntry(path: BytePath(path), kind: .regular, size: size)
        entry.sparse = segments.map { TarSegment(offset: $0.0, length: Int64($0.1.utf8.count)) }
        var content = [UInt8](repeating: 0, count: Int(size))
        for (offset, text) in segments {
            content.replaceSubrange(Int(offset)..<(Int(offset) + text.utf8.count), with: text.utf8)
        }
        return TarFile(entry: entry, content: content)
    }

    /// The fields of an old GNU sparse header.
    static func oldMap(_ pairs: [(Int, Int)], realSize: Int, extended: Bool = false) -> [Patch] {
        oldPairs(pairs, at: 386) + [Patch(482, [extended ? 1 : 0]), Patch(483, octal(realSize, 11))]
    }

    static func oldPairs(_ pairs: [(Int, Int)], at start: Int) -> [Patch] {
        pairs.enumerated().flatMap { index, pair in
            [Patch(start + index * 24, octal(pair.0, 11)), Patch(start + index * 24 + 12, octal(pair.1, 11))]
        }
    }

    static func oldExtension(_ pairs: [(Int, Int)], extended: Bool) -> [UInt8] {
        var block = [UInt8](repeating: 0, count: 512)
        for patch in oldPairs(pairs, at: 0) {
            block.replaceSubrange(patch.at..<(patch.at + patch.bytes.count), with: patch.bytes)
        }
        block[504] = extended ? 1 : 0
        return block
    }

    static let long = String(repeating: "directory/", count: 30) + "file"
    static let sparse1 = [
        ("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "real"),
    ]
    static let mapOfThreeBlocks = padded("200\n" + (0..<200).map { "\(10_000 + $0 * 1024)\n512\n" }.joined())

    /// With a checksum that takes bytes above 127 as negative.
    static func signedHeader(_ name: String) -> [UInt8] {
        var block = tarHeader(name)
        let sum = (0..<512).reduce(0) {
            (148..<156).contains($1) ? $0 + 32 : $0 + Int(Int8(bitPattern: block[$1]))
        }
        block.replaceSubrange(148..<154, with: octal(sum, 6))
        return block
    }

    /// "NNNN", NUL, and something else, as an archive of commons-compress has it (COMPRESS-707).
    static func checksumWithRest(_ name: String) -> [UInt8] {
        var block = tarHeader(name)
        let sum = (0..<512).reduce(0) { (148..<156).contains($1) ? $0 + 32 : $0 + Int(block[$1]) }
        block.replaceSubrange(148..<156, with: octal(sum, 4) + [0] + Array("36".utf8) + [0])
        return block
    }

    static let cases: [Case] = ends + headers + gnu + pax + sparseFiles

    static let ends: [Case] = [
        // What some tools make of an empty layer.
        Case("no byte at all", [], []),
        Case("end marker alone", endOfTar, []),
        // Some tools leave the end marker out.
        Case("no end marker", tarEntry("a", "0", "x"), [file("a", "x")]),
        // umoci's insert, as Go's writer closed too early, leaves out what fills the last block too.
        Case(
            "nothing behind the content", Array(tarEntry("a", "0", "x").prefix(513)), [file("a", "x")]),
        Case("half an end marker", tarEntry("a") + endOfTar.prefix(512), [file("a")]),
        // GNU tar fills up to 10 KiB and ignores what comes there; it is still part of the DiffID.
        Case(
            "zeros and rubbish after the end", tarEntry("a") + endOfTar + endOfTar + [1, 2, 3], [file("a")]),
    ]

    static let headers: [Case] = [
        // v7 had no type for directories, and no prefix.
        Case("v7: directory", tarHeader("d/", "\u{0}", magic: ""), [other(.directory, "d/")]),
        Case("v7: no prefix", tarHeader("n", "\u{0}", magic: "", prefix: "p"), [file("n")]),
        // What v7 wrote counts as nothing.
        Case(
            "v7: directory with a size", tarHeader("d/", "\u{0}", size: 9, magic: ""),
            [other(.directory, "d/")]),
        Case(
            "v7: no device numbers", tarHeader("c", "3", magic: "", [Patch(329, octal(1, 7))]),
            [other(.characterDevice, "c")]),
        Case("ustar: prefix", tarHeader("n", prefix: "p/q"), [file("p/q/n")]),
        // No NUL ends them.
        Case(
            "ustar: name and prefix that fill their fields",
            tarHeader(String(repeating: "n", count: 100), prefix: String(repeating: "p", count: 155)),
            [file(String(repeating: "p", count: 155) + "/" + String(repeating: "n", count: 100))]),
        Case(
            "star: a shorter prefix, and times",
            tarHeader(
                "n", prefix: "p", [Patch(476, octal(10, 11)), Patch(488, octal(11, 11)), Patch(508, "tar")]),
            [
                file("p/n") {
                    ($0.accessTime, $0.changeTime) = (Timestamp(seconds: 10), Timestamp(seconds: 11))
                }
            ]),
        // "Contiguous" means nothing on Linux.
        Case("typeflag 7", tarEntry("c", "7", "x"), [file("c", "x")]),
        // POSIX: the size field of these means nothing, and no data follows.
        Case(
            "all other types",
            tarHeader("s", "2", size: 7, link: "t") + tarHeader("d", "5", size: 700)
                + tarHeader("p", "6", size: 1)
                + tarHeader("c", "3", size: 1, [Patch(329, octal(1, 7)), Patch(337, octal(3, 7))])
                + tarHeader("b", "4", [Patch(329, octal(8, 7)), Patch(337, octal(1, 7))])
                + tarHeader("h", "1", link: "c"),
            [
                other(.symbolicLink, "s", "t"), other(.directory, "d"), other(.fifo, "p"),
                other(.characterDevice, "c", device: (1, 3)), other(.blockDevice, "b", device: (8, 1)),
                other(.hardLink, "h", "c"),
            ]),
        Case(
            "hard links with a size, and no data",
            tarEntry("a", "0", "abc") + tarHeader("h", "1", size: 3, link: "a")
                + tarHeader("i", "1", size: 1500, link: "a", magic: gnuMagic) + tarEntry("b"),
            [file("a", "abc"), other(.hardLink, "h", "a"), other(.hardLink, "i", "a"), file("b")]),
        // Some writers begin in the same way, and a GNU header makes it a GNU archive again.
        Case(
            "a hard link with a size after a pax header and a GNU one",
            paxHeader([("uid", "7")]) + tarHeader("a", magic: gnuMagic)
                + tarHeader("h", "1", size: 3, link: "a"),
            [file("a") { $0.uid = 7 }, other(.hardLink, "h", "a")]),
        // As in archives of the seventies.
        Case(
            "numbers with spaces around them, and none at all",
            tarHeader(
                "a", "0",
                [Patch(100, " 4755 \u{0}"), Patch(108, "   12 \u{0}"), Patch(116, [0, 0, 0, 0, 0, 0, 0, 0])]),
            [file("a") { ($0.mode, $0.uid) = (0o4755, 10) }]),
        Case(
            "a mode with type bits", tarHeader("a", "0", [Patch(100, "0100755")]),
            [file("a") { $0.mode = 0o755 }]),
        Case("signed checksum", signedHeader("a\u{e9}"), [file("a\u{e9}")]),
        Case("a checksum with something behind its NUL", checksumWithRest("a"), [file("a")]),
    ]

    static let gnu: [Case] = [
        Case("volume label", tarHeader("label", "V", magic: gnuMagic) + tarEntry("a"), [file("a")]),
        Case(
            "base 256, large and negative",
            tarHeader(
                "a", magic: gnuMagic,
                [
                    Patch(108, [0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]),
                    Patch(136, [UInt8](repeating: 0xff, count: 11) + [0xfe]),
                ]),
            [file("a") { ($0.uid, $0.modificationTime) = (4_294_967_294, Timestamp(seconds: -2)) }]),
        Case(
            "long name and link",
            gnuLong("K", long + "x") + gnuLong("L", long) + tarHeader("cut", "2", link: "cut"),
            [other(.symbolicLink, long, long + "x")]),
        // tar --incremental
        Case(
            "no prefix, but times there",
            tarHeader("n", magic: gnuMagic, [Patch(345, octal(10, 11)), Patch(357, octal(11, 11))]),
            [file("n") { ($0.accessTime, $0.changeTime) = (Timestamp(seconds: 10), Timestamp(seconds: 11)) }]),
        Case(
            "of several long names and links the last",
            gnuLong("L", "a") + gnuLong("K", "b") + gnuLong("L", long) + gnuLong("K", long + "x")
                + tarHeader("cut", "2", link: "cut"),
            [other(.symbolicLink, long, long + "x")]),
    ]

    static let pax: [Case] = [
        Case(
            "pax before GNU before ustar",
            paxHeader([("path", "pax")]) + tarHeader("ustar") + gnuLong("L", "gnu") + tarHeader("ustar")
                + gnuLong("L", "both") + paxHeader([("path", "both")]) + tarHeader("ustar")
                + tarHeader("ustar"),
            [file("pax"), file("gnu"), file("both"), file("ustar")]),
        // Numbers above what the header holds, the last of two attributes, an empty one, GNU tar's escapes in
        // a name.
        Case(
            "everything",
            paxHeader([
                ("path", "p/\u{e9}"), ("size", "3"), ("uid", "4294967294"), ("gid", "3000000"),
                ("mtime", "12345678901.000000001"), ("atime", "-0.25"), ("ctime", "5"),
                ("comment", "nothing"),
                ("SCHILY.acl.access", "user::rw-\n"), ("SCHILY.acl.default", "user::r--\n"),
                ("SCHILY.xattr.user.b", "1\n2=\u{0}"), ("SCHILY.xattr.user.a", ""),
                ("SCHILY.xattr.user.b", "last"),
                ("SCHILY.xattr.user.c%3Dd%25", "x"), ("unknown.key", "y"),
            ]) + tarHeader("a") + padded("abc"),
            [
                file("p/\u{e9}", "abc") {
                    ($0.uid, $0.gid) = (4_294_967_294, 3_000_000)
                    $0.modificationTime = Timestamp(seconds: 12_345_678_901, nanoseconds: 1)
                    $0.accessTime = Timestamp(seconds: -1, nanoseconds: 750_000_000)
                    $0.changeTime = Timestamp(seconds: 5)
                    ($0.accessACL, $0.defaultACL) = (Array("user::rw-\n".utf8), Array("user::r--\n".utf8))
                    $0.extendedAttributes = [("user.a", ""), ("user.b", "last"), ("user.c=d%", "x")].map {
                        ExtendedAttribute(name: BytePath($0.0), value: Array($0.1.utf8))
                    }
                }
            ]),
        Case(
            "attribute values hold any byte",
            paxHeader(raw: paxRecord("SCHILY.xattr.user.a", Array(0...255))) + tarHeader("a"),
            [
                file("a") {
                    $0.extendedAttributes = [
                        ExtendedAttribute(name: BytePath("user.a"), value: Array(0...255))
                    ]
                }
            ]),
        // Base 64 with and without padding, names percent-encoded.
        Case(
            "libarchive's attributes",
            paxHeader([
                ("LIBARCHIVE.xattr.user.a%20b", "AP8K"), ("LIBARCHIVE.xattr.user.c", "YQ"),
                ("LIBARCHIVE.xattr.user.d", "YQ=="), ("LIBARCHIVE.xattr.user.e", ""),
            ]) + tarHeader("a"),
            [
                file("a") {
                    $0.extendedAttributes = [
                        ExtendedAttribute(name: BytePath("user.a b"), value: [0, 255, 10]),
                        ExtendedAttribute(name: BytePath("user.c"), value: [97]),
                        ExtendedAttribute(name: BytePath("user.d"), value: [97]),
                        ExtendedAttribute(name: BytePath("user.e"), value: []),
                    ]
                }
            ]),
        Case(
            "device numbers",
            paxHeader([("SCHILY.devmajor", "511"), ("SCHILY.devminor", "7")])
                + tarHeader("c", "3", [Patch(329, octal(511, 7)), Patch(337, octal(7, 7))]),
            [other(.characterDevice, "c", device: (511, 7))]),
        Case(
            "times below a nanosecond are rounded down",
            paxHeader([
                ("mtime", "1.9999999999"), ("atime", "-1.0000000001"), ("ctime", "-9223372036854775808"),
            ])
                + tarHeader("a"),
            [
                file("a") {
                    $0.modificationTime = Timestamp(seconds: 1, nanoseconds: 999_999_999)
                    $0.accessTime = Timestamp(seconds: -2, nanoseconds: 999_999_999)
                    $0.changeTime = Timestamp(seconds: .min)
                }
            ]),
        // What would change nothing, as an entry has it too.
        Case(
            "global records that say nothing new",
            paxHeader([("uid", "7"), ("mtime", "0"), ("comment", "0123")], "g")
                + tarHeader("a", "0", [Patch(108, octal(7, 7))]) + paxHeader([("uid", "9")]) + tarHeader("b"),
            [file("a") { $0.uid = 7 }, file("b") { $0.uid = 9 }]),
    ]

    static let block = String(repeating: "x", count: 512)

    static let sparseFiles: [Case] = [
        Case(
            "GNU sparse 0.0",
            paxHeader([
                ("GNU.sparse.size", "2000"), ("GNU.sparse.numblocks", "2"), ("GNU.sparse.offset", "10"),
                ("GNU.sparse.numbytes", "512"), ("GNU.sparse.offset", "1998"), ("GNU.sparse.numbytes", "2"),
            ]) + tarEntry("a", "0", block + "de"),
            [sparse("a", 2000, [(10, block), (1998, "de")])]),
        Case(
            "GNU sparse 0.1",
            paxHeader([
                ("GNU.sparse.size", "2000"), ("GNU.sparse.numblocks", "3"),
                ("GNU.sparse.map", "10,512,1000,2,2000,0"), ("GNU.sparse.name", "real"),
            ]) + tarEntry("a", "0", block + "de") + tarEntry("b", "0", "x"),
            [sparse("real", 2000, [(10, block), (1000, "de")]), file("b", "x")]),
        Case(
            "GNU sparse 0.1 as long as its data",
            paxHeader([("GNU.sparse.numblocks", "1"), ("GNU.sparse.map", "0,5")])
                + tarEntry("a", "0", "abcde"),
            [sparse("a", 5, [(0, "abcde")])]),
        // The map is the first block of the data; its last segment only says where the file ends.
        Case(
            "GNU sparse 1.0",
            paxHeader(sparse1 + [("GNU.sparse.realsize", "2000")]) + tarHeader("a", size: 1026)
                + padded("3\n10\n512\n1000\n2\n2000\n0\n") + padded(block + "de"),
            [sparse("real", 2000, [(10, block), (1000, "de")])]),
        Case(
            "GNU sparse 1.0 with a map of several blocks",
            paxHeader(sparse1 + [("GNU.sparse.realsize", "214288")])
                + tarHeader("a", size: mapOfThreeBlocks.count + 200 * 512) + mapOfThreeBlocks
                + padded(String(repeating: block, count: 200)),
            [sparse("real", 214_288, (0..<200).map { (Int64(10_000 + $0 * 1024), block) })]),
        Case(
            "all of it a hole",
            paxHeader([
                ("GNU.sparse.size", "2000"), ("GNU.sparse.numblocks", "1"), ("GNU.sparse.map", "2000,0"),
            ])
                + tarHeader("a"),
            [sparse("a", 2000, [])]),
        Case(
            "all of it a hole, 1.0",
            paxHeader(sparse1 + [("GNU.sparse.realsize", "2000")]) + tarHeader("a", size: 512)
                + padded("1\n2000\n0\n"),
            [sparse("real", 2000, [])]),
        Case(
            "old GNU sparse with two more blocks",
            tarHeader(
                "a", "S", size: 30 * 512, magic: gnuMagic,
                oldMap((0..<4).map { ($0 * 1024, 512) }, realSize: 30_208, extended: true))
                + oldExtension((4..<25).map { ($0 * 1024, 512) }, extended: true)
                + oldExtension((25..<30).map { ($0 * 1024, 512) }, extended: false)
                + padded(String(repeating: block, count: 30)),
            [sparse("a", 30_208, (0..<30).map { (Int64($0 * 1024), block) })]),
        // GNU tar sees the end of the archive where others see more of the map: nothing else may follow.
        Case(
            "old GNU sparse with a map that goes on after its end, at the end",
            tarHeader("a", "S", magic: gnuMagic, oldMap([(0, 0)], realSize: 0, extended: true)) + endOfTar
                + endOfTar,
            [sparse("a", 0, [])]),
    ]

    @Test(arguments: cases) func reads(_ test: Case) throws {
        for run in [1 << 16, 512, 513, 100, 7, 1] {
            #expect(try readTar(test.archive, run: run) == test.expected, "in runs of \(run)")
        }
    }

    @Test func contentNotReadIsPassedOver() throws {
        let archive =
            tarEntry("a", "0", String(repeating: "a", count: 5000)) + tarEntry("b", "0", "b") + endOfTar
        let reader = TarReader(MemorySource(archive, run: 700))
        #expect(try reader.nextEntry()?.path == BytePath("a"))
        let first = try unsafe reader.nextContent()
        #expect(unsafe first?.offset == 0)
        #expect(unsafe first?.bytes.count == 188)
        #expect(try reader.nextEntry()?.path == BytePath("b"))
        #expect(try reader.nextEntry() == nil)
        let last = try unsafe reader.nextContent()
        #expect(unsafe last == nil)
        #expect(reader.offset == archive.count)
    }

    @Test func contentIsLentWhereItLies() throws {
        let archive = tarEntry("a", "0", String(repeating: "a", count: 100_000))
        let reader = TarReader(MemorySource(archive, run: archive.count))
        _ = try reader.nextEntry()
        let content = try unsafe reader.nextContent()
        #expect(unsafe content?.bytes.count == 100_000)
    }

    @Test func anErrorStays() throws {
        let reader = TarReader(MemorySource(tarHeader("a", breakSum: true) + tarEntry("b"), run: 4096))
        let first = #expect(throws: TarError.self) { try reader.nextEntry() }
        let second = #expect(throws: TarError.self) { try reader.nextEntry() }
        let third = #expect(throws: TarError.self) { _ = try unsafe reader.nextContent() }
        #expect(first == second && second == third)
    }

    @Test func anErrorOfTheSourceComesThrough() {
        final class Failing: ByteSource {
            func next() throws -> UnsafeRawBufferPointer { throw TestFailure("broken pipe") }
        }
        #expect(throws: TestFailure.self) { try TarReader(Failing()).nextEntry() }
    }
}
