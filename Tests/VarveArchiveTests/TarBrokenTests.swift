import VarveArchive
import VarveSystem
import TestSupport
import Testing

/// Archives that must be refused, and why; each in runs of several lengths.
@Suite struct TarBrokenTests {
    struct Case: CustomTestStringConvertible, Sendable {
        var testDescription: String
        /// The name of the `TarError.Reason`.
        var reason: String
        /// Of the header in question.
        var offset: Int64
        var archive: [UInt8]
        init(_ name: String, _ reason: String, at offset: Int64 = 0, _ archive: [UInt8]) {
            testDescription = name
            self.reason = reason
            self.offset = offset
            self.archive = archive
        }
    }

    static let nines = String(repeating: "9", count: 19)
    static let ones = [UInt8](repeating: 0xff, count: 12)

    static func pax(_ key: String, _ value: String) -> [UInt8] { paxHeader([(key, value)]) + tarEntry("a") }
    static func rawPax(_ text: String) -> [UInt8] { paxHeader(raw: Array(text.utf8)) + tarEntry("a") }
    static func field(_ at: Int, _ bytes: [UInt8], _ type: Character = "0") -> [UInt8] {
        tarHeader("a", type, [Patch(at, bytes)])
    }
    static func field(_ at: Int, _ text: String, _ type: Character = "0") -> [UInt8] {
        field(at, Array(text.utf8), type)
    }
    static func sparse(_ records: [(String, String)]) -> [UInt8] {
        paxHeader(records.map { ("GNU.sparse." + $0.0, $0.1) }) + tarEntry("a", "0", "abcde")
    }
    static func sparse1(_ map: String, size: Int = 517) -> [UInt8] {
        paxHeader(TarReaderTests.sparse1 + [("GNU.sparse.realsize", "2000")]) + tarHeader("a", size: size)
            + padded(map) + padded("abcde")
    }
    static func old(_ pairs: [(Int, Int)], size: Int = 5, real: Int = 2000, extended: Bool = false) -> [UInt8]
    {
        tarHeader(
            "a", "S", size: size, magic: gnuMagic,
            TarReaderTests.oldMap(pairs, realSize: real, extended: extended))
            + (size == 0 ? [] : padded("abcde"))
    }

    static let cases: [Case] = structure + numbers + names + records + sparseMaps

    static let structure: [Case] = [
        Case("no tar at all", "checksum", [UInt8](repeating: 0x2e, count: 1024)),
        Case("a checksum one too high", "checksum", tarHeader("a", breakSum: true)),
        Case(
            "an entry without padding before the next", "checksum", at: 512,
            tarHeader("a") + [1] + tarEntry("b")),
        Case("cut within a header", "endsEarly", Array(tarHeader("a").prefix(300))),
        Case(
            "cut within the second header", "endsEarly", at: 512,
            Array((tarEntry("a") + tarEntry("b")).prefix(600))),
        Case("cut within content", "endsEarly", Array(tarEntry("a", "0", "abc").prefix(514))),
        Case("cut right before content", "endsEarly", Array(tarEntry("a", "0", "abc").prefix(512))),
        Case(
            "cut within what fills the last block", "endsEarly", Array(tarEntry("a", "0", "abc").prefix(600))),
        Case("cut within a pax header", "endsEarly", Array(pax("uid", "7").prefix(514))),
        Case("cut after a pax header", "endsEarly", at: 1024, Array(pax("uid", "7").prefix(1024))),
        Case("the end marker after a long name", "endsEarly", at: 1024, gnuLong("L", "a") + endOfTar),
        Case("cut within an end marker", "endsEarly", at: 512, tarEntry("a") + endOfTar.prefix(700)),
        Case("a zero block between entries", "loneZeroBlock", endOfTar.prefix(512) + tarEntry("a")),
        Case("type Z", "unknownType", tarEntry("a", "Z")),
        // GNU tar's own: continued volumes, incremental directories, long names of the nineties.
        Case("type M", "unknownType", tarHeader("a", "M", magic: gnuMagic)),
        Case("type D", "unknownType", tarHeader("a", "D", magic: gnuMagic)),
        Case("type N", "unknownType", tarHeader("a", "N", magic: gnuMagic)),
        // Its map is not where GNU tar has it.
        Case("star's sparse file", "unknownType", tarHeader("a", "S")),
        Case(
            "two pax headers", "misplacedHeader", at: 1024,
            paxHeader([("uid", "7")]) + paxHeader([("gid", "7")]) + tarEntry("a")),
        Case(
            "global header after a pax header", "misplacedHeader", at: 1024,
            paxHeader([("uid", "7")]) + paxHeader([("gid", "7")], "g")),
        Case(
            "volume label after a pax header", "misplacedHeader", at: 1024,
            paxHeader([("uid", "7")]) + tarHeader("l", "V")),
        // In a pax archive libarchive reads the data of the link where others read entries.
        Case(
            "hard link with a size in a pax archive", "ambiguousData", at: 1536,
            paxHeader([("uid", "7")]) + tarEntry("a") + tarHeader("h", "1", size: 512, link: "a")
                + tarEntry("b")),
        Case(
            "hard link with a size in an archive with a global header", "ambiguousData", at: 1024,
            paxHeader([("comment", "x")], "g") + tarHeader("h", "1", size: 512, link: "a") + tarEntry("b")),
        Case(
            "directory with a size in a record", "ambiguousData", at: 1024,
            paxHeader([("size", "512")]) + tarHeader("d", "5") + tarEntry("b")),
        Case("directory with a negative size", "field", tarHeader("d", "5", [Patch(124, ones)])),
        Case("file with a slash at the end and content", "ambiguousData", tarEntry("d/", "0", "x")),
        Case("file with a slash at the end", "ambiguousData", tarHeader("d/")),
        Case("type 7 with a slash at the end", "ambiguousData", tarHeader("d/", "7")),
        Case(
            "an entry after a map that goes on after its end", "ambiguousData", at: 1024,
            old([(0, 0)], size: 0, real: 0, extended: true) + endOfTar.prefix(512) + tarEntry("b")),
        Case(
            "another size from libarchive", "ambiguousData",
            tarHeader("a", size: 5, magic: gnuMagic, [Patch(483, octal(6, 11))]) + padded("abcde")),
        Case(
            "another size from star", "ambiguousData", at: 1024,
            paxHeader([("SCHILY.realsize", "6")]) + tarEntry("a", "0", "abcde")),
        Case(
            "other device numbers", "ambiguousData", at: 1024,
            paxHeader([("SCHILY.devmajor", "1")]) + tarHeader("c", "3")),
    ]

    static let numbers: [Case] = [
        Case("size after NULs", "field", field(124, [0, 0] + Array("0000000007".utf8))),
        Case("size after a space and a NUL", "field", field(124, " \u{0}7")),
        Case("size of spaces", "field", field(124, String(repeating: " ", count: 12))),
        Case("size with something behind it", "field", field(124, "7\u{0}7")),
        Case(
            "size with another mark than 0x80 or 0xff", "field",
            field(124, [0x81] + [UInt8](repeating: 0, count: 11))),
        Case("mode with letters", "field", field(100, "0rw0000")),
        Case("mode with an 8", "field", field(100, "0000844")),
        Case("negative size", "field", field(124, ones)),
        Case("size of 2^63", "field", field(124, [0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0])),
        Case("size of 94 bits", "field", field(124, [0xbf] + ones.dropFirst())),
        Case(
            "the largest size, and no data", "endsEarly", field(124, [0x80, 0, 0, 0, 0x7f] + ones.prefix(7))),
        Case("negative uid", "field", field(108, Array(ones.prefix(8)))),
        Case("uid of 33 bits", "field", field(108, [0x80, 0, 0, 1, 0, 0, 0, 0])),
        // chown(2) takes it for "leave the owner".
        Case("gid 4294967295", "field", field(116, [0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff])),
        Case("mtime of 88 bits", "field", field(136, [0x80, 0xff] + [UInt8](repeating: 0, count: 10))),
        Case("mtime with letters", "field", field(136, "yesterday")),
        Case("device number with letters", "field", field(329, "x", "3")),
        Case("size of a pax header with letters", "field", field(124, "y", "x")),
    ]

    static let names: [Case] = [
        Case("no name", "name", tarHeader("")),
        Case("symbolic link without a target", "name", tarHeader("a", "2")),
        Case("hard link without a target", "name", tarHeader("a", "1")),
        Case("empty GNU long name", "name", gnuLong("L", "") + tarHeader("a")),
        Case(
            "two names", "ambiguousName", at: 2048,
            gnuLong("L", "a") + paxHeader([("path", "b")]) + tarHeader("c")),
        Case(
            "two targets", "ambiguousName", at: 2048,
            paxHeader([("linkpath", "b")]) + gnuLong("K", "a") + tarHeader("c", "2", link: "d")),
        // Go before 1.8 wrote it, and Go alone reads it.
        Case("GNU with a prefix", "ambiguousName", tarHeader("n", magic: gnuMagic, prefix: "usr/share")),
        Case("no known magic, and a prefix", "ambiguousName", tarHeader("n", magic: "ustarx00", prefix: "p")),
        Case(
            "star with a prefix that has no end", "ambiguousName",
            tarHeader(
                "n", prefix: String(repeating: "p", count: 131),
                [Patch(476, octal(1, 11)), Patch(508, "tar")])),
        Case("empty pax path", "paxValue", pax("path", "")),
        Case("pax path with a NUL", "name", pax("path", "a\u{0}b")),
        Case("pax linkpath with a NUL", "name", pax("linkpath", "\u{0}")),
        Case("pax path of 4,096 bytes", "nameTooLong", pax("path", String(repeating: "a", count: 4096))),
        Case(
            "pax linkpath of 4,096 bytes", "nameTooLong", pax("linkpath", String(repeating: "a", count: 4096))
        ),
        Case(
            "GNU name of 5,000 bytes", "nameTooLong",
            gnuLong("L", String(repeating: "a", count: 5000)) + tarHeader("a")),
        Case("GNU name of 8 GiB", "headerTooLarge", tarHeader("p", "L", size: 0o77777777777)),
        Case("pax header of 9 MiB", "headerTooLarge", tarHeader("p", "x", size: 9 << 20)),
    ]

    static let records: [Case] = [
        Case("no length", "paxRecord", rawPax("uid=7\n")),
        Case("length 0", "paxRecord", rawPax("0 uid=7\n")),
        Case("longer than the header", "paxRecord", rawPax("99 uid=7\n")),
        Case("a length over 64 bits", "paxRecord", rawPax(nines + "99 uid=7\n")),
        Case("ends before its newline", "paxRecord", rawPax("7 uid=7\n")),
        Case("shorter than its own length", "paxRecord", rawPax("2 \n")),
        Case("a negative length", "paxRecord", rawPax("-8 uid=7\n")),
        Case("no newline", "paxRecord", rawPax("8 uid=77")),
        Case("no equals sign", "paxRecord", rawPax("7 uid7\n")),
        Case("no keyword", "paxRecord", rawPax("5 =7\n")),
        Case("nothing but a number", "paxRecord", rawPax("2")),
        Case("NULs after the records", "paxRecord", rawPax("8 uid=7\n\u{0}\u{0}")),
        Case("a space before the keyword", "paxRecord", rawPax("9  uid=7\n")),
        Case("a NUL in the keyword", "paxRecord", pax("co\u{0}mment", "x")),
        Case("a NUL in the name of the owner", "paxValue", pax("uname", "a\u{0}b")),
        Case("empty uid", "paxValue", pax("uid", "")),
        Case("empty mtime", "paxValue", pax("mtime", "")),
        Case("records after a NUL", "paxRecord", rawPax("8 uid=7\n\u{0}8 uid=7\n")),
        Case("attribute without a name", "paxRecord", pax("SCHILY.xattr.", "x")),
        Case("attribute with a NUL in its name", "paxRecord", pax("LIBARCHIVE.xattr.user.%00", "YQ")),
        Case("negative uid", "paxValue", pax("uid", "-1")),
        Case("uid of 33 bits", "paxValue", pax("uid", "4294967296")),
        Case("uid 4294967295", "paxValue", pax("uid", "4294967295")),
        Case("uid over 64 bits", "paxValue", pax("uid", nines + "9")),
        Case("negative size", "paxValue", pax("size", "-1")),
        Case("size of 2^63", "paxValue", pax("size", "9223372036854775808")),
        Case("the largest size, and no data", "endsEarly", at: 1024, pax("size", "9223372036854775807")),
        Case("mtime without digits", "paxValue", pax("mtime", ".5")),
        Case("mtime in hexadecimal", "paxValue", pax("mtime", "0x5")),
        Case("mtime of two points", "paxValue", pax("mtime", "1.2.3")),
        Case("mtime of 2^63", "paxValue", pax("mtime", "9223372036854775808")),
        Case("mtime below -2^63", "paxValue", pax("mtime", "-9223372036854775808.1")),
        Case("mtime over 64 bits", "paxValue", pax("mtime", nines + nines)),
        Case("mtime of 2^64 and a bit", "paxValue", pax("mtime", "18446744073709551617")),
        Case("device number of 33 bits", "paxValue", pax("SCHILY.devmajor", "4294967296")),
        Case("attribute that is no base 64", "paxValue", pax("LIBARCHIVE.xattr.user.a", "a-b_")),
        Case("attribute with a base 64 digit too many", "paxValue", pax("LIBARCHIVE.xattr.user.a", "abcde")),
        // No entry can share them, and readers do not agree on what they mean.
        Case("global size", "globalRecord", paxHeader([("size", "3")], "g") + tarEntry("a", "0", "abc")),
        Case("global path", "globalRecord", paxHeader([("path", "b")], "g") + tarEntry("a")),
        Case("global uid", "globalRecord", at: 1024, paxHeader([("uid", "7")], "g") + tarEntry("a")),
        Case("global mtime", "globalRecord", at: 1024, paxHeader([("mtime", "7")], "g") + tarEntry("a")),
        Case("global linkpath", "globalRecord", paxHeader([("linkpath", "b")], "g") + tarEntry("a")),
        Case(
            "global sparse map", "globalRecord", paxHeader([("GNU.sparse.map", "0,1")], "g") + tarEntry("a")),
        // They are kept for ever, so they are bounded together.
        Case(
            "global records of more than 64 KiB", "headerTooLarge", at: 34_304,
            paxHeader([("SCHILY.xattr.user.a", String(repeating: "a", count: 33_000))], "g")
                + tarEntry("a")
                + paxHeader([("SCHILY.xattr.user.b", String(repeating: "a", count: 33_000))], "g")),
    ]

    static func map(_ map: String, _ count: Int, size: String = "2000", _ more: [(String, String)] = [])
        -> [UInt8]
    {
        sparse([("size", size), ("numblocks", "\(count)"), ("map", map)] + more)
    }

    static let sparseMaps: [Case] = [
        Case("out of order", "sparse", at: 1024, map("1000,2,10,3,2000,0", 3)),
        Case("overlap", "sparse", at: 1024, map("10,3,12,2,2000,0", 3)),
        Case("after the end", "sparse", at: 1024, map("10,5", 1, size: "14")),
        Case("over 63 bits", "sparse", at: 1024, map("9223372036854775807,5", 1)),
        Case("less data than segments", "sparse", at: 1024, map("1994,6", 1)),
        Case("more data than segments", "sparse", at: 1024, map("1996,4", 1)),
        // GNU tar takes each segment from a new block, and the end of the last one for the end of the file.
        Case("no whole blocks", "sparse", at: 1024, map("10,3,1998,2", 2)),
        Case("ends before the file", "sparse", at: 1024, map("10,5", 1)),
        Case("no map, but data", "sparse", at: 1024, sparse([("size", "2000")])),
        Case("no size", "sparse", at: 1024, sparse([("numblocks", "1"), ("map", "10,5")])),
        Case("two sizes", "sparse", at: 1024, map("1995,5", 1, [("realsize", "2001")])),
        Case("two maps", "sparse", map("1995,5", 1, [("map", "1995,5")])),
        Case("a map and offsets", "sparse", map("1995,5", 1, [("offset", "1995")])),
        Case("no number of segments", "sparse", at: 1024, sparse([("size", "2000"), ("map", "1995,5")])),
        Case("an odd number of numbers", "sparse", at: 1024, map("10,5,7", 1)),
        Case("an empty number", "paxValue", map("10,,5", 1)),
        Case("a comma at the end", "paxValue", map("1995,5,", 1)),
        Case("letters", "paxValue", map("10,x", 1)),
        Case("another count", "sparse", at: 1024, map("1995,5", 2)),
        Case(
            "of type NUL", "sparse", at: 1024,
            paxHeader([("GNU.sparse.numblocks", "1"), ("GNU.sparse.map", "0,5")])
                + tarEntry("a", "\u{0}", "abcde")),
        Case("two offsets in a row", "sparse", sparse([("size", "2000"), ("offset", "1"), ("offset", "2")])),
        Case("a length first", "sparse", sparse([("size", "2000"), ("numbytes", "1")])),
        Case("format 2.0", "sparse", at: 1024, sparse([("major", "2"), ("minor", "0"), ("realsize", "5")])),
        Case("a directory", "sparse", at: 1024, paxHeader([("GNU.sparse.size", "5")]) + tarEntry("d", "5")),
        Case("in the data: letters", "sparse", at: 1024, sparse1("1\nx\n5\n")),
        Case("in the data: an empty number", "sparse", at: 1024, sparse1("1\n\n5\n")),
        Case("in the data: 19 digits", "sparse", at: 1024, sparse1("1\n" + nines + "\n5\n")),
        Case(
            "in the data: it does not end", "sparse", at: 1024,
            sparse1("200\n" + String(repeating: "1\n", count: 254))),
        Case("in the data: there is none", "sparse", at: 1024, sparse1("1\n0\n0\n", size: 0)),
        Case("in the data: 2,000,000 segments", "tooManySegments", at: 1024, sparse1("2000000\n")),
        Case("in the data: cut", "endsEarly", at: 1024, Array(sparse1("1\n").prefix(1636))),
        Case("old: out of order", "sparse", old([(100, 2), (0, 3)])),
        Case("old: over the end", "sparse", old([(1998, 5)])),
        Case("old: goes on after its end", "sparse", old([(0, 5)], extended: true) + tarEntry("b")),
        Case(
            "old: letters", "sparse",
            tarHeader("a", "S", magic: gnuMagic, [Patch(386, "x"), Patch(398, "y")])),
        Case(
            "old: cut", "endsEarly", Array(old([(0, 1), (1, 1), (2, 1), (3, 1)], extended: true).prefix(512))),
        Case("old and pax", "sparse", at: 1024, paxHeader([("GNU.sparse.size", "5")]) + old([(0, 5)])),
    ]

    @Test(arguments: cases) func refuses(_ test: Case) {
        for run in [1 << 16, 512, 100, 1] {
            let error = #expect(throws: TarError.self, "in runs of \(run)") {
                try readTar(test.archive, run: run)
            }
            guard let error else { continue }
            #expect(String(describing: error.reason).prefix { $0 != "(" } == test.reason, "\(error)")
            #expect(error.offset == test.offset, "\(error)")
        }
    }

    @Test func limitsAreTheCallers() {
        var limits = TarLimits()
        (limits.extendedHeader, limits.path, limits.sparseSegments) = (100, 10, 2)
        let archives = [
            paxHeader([("comment", String(repeating: "a", count: 100))]) + tarEntry("a"),
            gnuLong("L", "01234567890") + tarEntry("a"), Self.old([(0, 0), (2, 0), (4, 5)], real: 9),
            Self.map("0,0,2,0,4,5", 3, size: "9"), Self.sparse1("3\n0\n0\n2\n0\n1995\n5\n"),
        ]
        for archive in archives {
            #expect(throws: Never.self) { try readTar(archive) }
            #expect(throws: TarError.self) { try readTar(archive, limits: limits) }
        }
    }

    @Test func lengthIsTheCallersToLimit() throws {
        let two = tarEntry("a") + tarEntry("b")
        #expect { try readTar(two, allowance: TarAllowance(entries: 1)) } throws: {
            ($0 as? TarError)?.reason == .tooManyEntries
        }
        #expect(throws: Never.self) { try readTar(two, allowance: TarAllowance(entries: 2)) }
        // Of the archive and of holes: 3,072 bytes and 1,995.
        let sparse = Self.map("1995,5", 1) + endOfTar
        for run in [1 << 16, 512, 100] {
            let size = Int64(sparse.count) + 1995
            #expect(throws: Never.self) { try readTar(sparse, run: run, allowance: TarAllowance(size: size)) }
            #expect { try readTar(sparse, run: run, allowance: TarAllowance(size: size - 1)) } throws: {
                ($0 as? TarError)?.reason == .tooLarge
            }
        }
    }

    /// Whoever comes first gets it, and all together get no more.
    @Test func severalReadersShareAnAllowance() async {
        let archive = (0..<1000).reduce(into: []) { $0 += tarEntry("f\($1)") } + endOfTar
        for (size, entries, fits) in [
            (archive.count * 8, 8000, true), (archive.count * 8 - 1, 8000, false),
            (archive.count * 8, 7999, false),
        ] {
            let allowance = TarAllowance(size: Int64(size), entries: Int64(entries))
            let (read, failures) = await withTaskGroup(of: (Int, TarError.Reason?).self) { group in
                for _ in 0..<8 {
                    group.addTask {
                        let reader = TarReader(MemorySource(archive, run: 700), allowance: allowance)
                        var count = 0
                        do {
                            while try reader.nextEntry() != nil { count += 1 }
                            return (count, nil)
                        } catch {
                            return (count, (error as? TarError)?.reason)
                        }
                    }
                }
                return await group.reduce(into: (0, [TarError.Reason]())) { result, one in
                    result.0 += one.0
                    if let reason = one.1 { result.1.append(reason) }
                }
            }
            #expect(failures.isEmpty == fits)
            #expect(failures.allSatisfy { $0 == (entries < 8000 ? .tooManyEntries : .tooLarge) })
            // The last run of an archive holds no entry.
            #expect(entries < 8000 ? read == 7999 : read == 8000)
        }
    }

    @Test func messagesSayWhereAndWhatToDo() throws {
        func message(_ archive: [UInt8]) throws -> String {
            try #require(throws: TarError.self) { try readTar(archive) }.description
        }
        #expect(
            try message(tarEntry("a") + tarEntry("usr/bin/x", "0", "abc").prefix(514))
                == "cannot read the tar archive at entry usr/bin/x (header at byte 512): the archive ends in the "
                + "middle of it; the layer is damaged or not a tar archive, fetch or build it again")
        #expect(
            try message(Self.pax("uid", "no\u{1b}"))
                == "cannot read the tar archive at byte 0: the pax record uid holds \"no\\x1b\", which is not valid "
                + "there; the tool that made the layer wrote it wrongly, build it again with another one")
        #expect(
            try message(Self.pax("path", String(repeating: "a", count: 5000)))
                == "cannot read the tar archive at byte 0: the path has 5000 bytes, and Linux takes 4095 at most; "
                + "build the image again without it")
    }
}
