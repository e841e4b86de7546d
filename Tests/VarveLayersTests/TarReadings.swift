import TestSupport

/// A kind of archive that readers of tar archives may read in different ways.
struct TarReading: Sendable {
    var name: String
    var archive: [UInt8]
    /// What comes out although the readers differ, or do not; nil where their agreement decides.
    var exception: Exception?

    enum Exception: Sendable {
        /// Taken although one of the readers is different, for this reason.
        case taken(String)
        /// Refused although they are of one mind, for this reason.
        case refused(String)
    }

    init(_ name: String, _ archive: [UInt8], _ exception: Exception? = nil) {
        self.name = name
        self.archive = archive
        self.exception = exception
    }
}

/// One archive of each kind that is known: those of the tests of Go's archive/tar, libarchive, CPython and GNU tar,
/// built here from nothing, and what their source shows to be handled apart.
enum TarReadings {
    static let all: [TarReading] =
        structure + sizes + numbers + dialects + names + globalRecords + records + numbersInRecords + sparse

    // MARK: Parts

    /// What comes behind the entry in question: a reader that loses its place reads it otherwise, or not.
    static let tail = tarEntry("z", "0", "last") + endOfTar
    static let file = tarEntry("f", "0", "content")
    /// Directories that are not there get other times from each reader.
    static let p = tarHeader("p/", "5") + tarHeader("p/q/", "5")
    static let nothing = [UInt8](repeating: 0, count: 512)

    static func field(_ at: Int, _ bytes: [UInt8], type: Character = "0", content: String = "") -> [UInt8] {
        tarHeader("a", type, size: content.utf8.count, [Patch(at, bytes)]) + padded(content) + tail
    }
    static func field(_ at: Int, _ text: String, type: Character = "0", content: String = "") -> [UInt8] {
        field(at, Array(text.utf8), type: type, content: content)
    }
    static func pax(_ records: (String, String)..., entry: [UInt8] = tarEntry("a", "0", "x")) -> [UInt8] {
        paxHeader(records) + entry + tail
    }
    static func rawPax(_ text: String) -> [UInt8] {
        paxHeader(raw: Array(text.utf8)) + tarEntry("a", "0", "x") + tail
    }
    static func global(_ records: (String, String)..., entry: [UInt8] = tarEntry("a", "0", "x")) -> [UInt8] {
        paxHeader(records, "g") + entry + tail
    }

    // MARK: Kinds

    static let structure: [TarReading] = [
        TarReading("a plain file", file + tail),
        TarReading("no end", file),
        TarReading("one block of zeros at the end", file + nothing),
        TarReading("a lone block of zeros in the middle", file + nothing + tail),
        TarReading("garbage behind the end", file + endOfTar + [UInt8](repeating: 7, count: 700)),
        TarReading("a second archive behind the end", file + endOfTar + tail),
        TarReading(
            "a block of zeros, and less than a block behind it", file + nothing + [1, 2, 3]),
        TarReading(
            "content that is not filled up to a block", Array(file.prefix(519)), .taken("umoci writes it")),
        TarReading("nothing at all", [], .taken("an empty layer")),
        TarReading("two GNU long names", gnuLong("L", "one") + gnuLong("L", "two") + file + tail),
        TarReading(
            "two GNU long links",
            file + gnuLong("K", "one") + gnuLong("K", "two") + tarHeader("s", "2", link: "x") + tail),
        TarReading(
            "a GNU long name, a link, and a name",
            gnuLong("L", "one") + gnuLong("K", "to") + gnuLong("L", "two") + tarHeader("s", "2", link: "x")
                + tail),
        TarReading(
            "two pax headers", paxHeader([("path", "one")]) + paxHeader([("uid", "7")]) + file + tail),
        TarReading(
            "two pax headers that say the same",
            paxHeader([("path", "one")]) + paxHeader([("path", "one")]) + file + tail),
        TarReading(
            "a pax path and another GNU long name",
            paxHeader([("path", "one")]) + gnuLong("L", "two") + file + tail),
        TarReading(
            "a GNU long name and another pax path",
            gnuLong("L", "two") + paxHeader([("path", "one")]) + file + tail),
        TarReading(
            "a GNU long name and the same pax path",
            gnuLong("L", "one") + paxHeader([("path", "one")]) + file + tail),
        TarReading(
            "a GNU long name and a pax owner",
            gnuLong("L", "one") + paxHeader([("uid", "7")]) + file + tail),
        TarReading(
            "a pax linkpath and another GNU long link",
            paxHeader([("linkpath", "one")]) + gnuLong("K", "two") + tarHeader("s", "2", link: "x") + tail),
        TarReading(
            "a volume label",
            tarHeader("label", "V", magic: gnuMagic) + file + tail,
            .taken("Go gives the label to its caller, as an entry that is no file")),
        TarReading(
            "a volume label between a pax header and its entry",
            paxHeader([("uid", "7")]) + tarHeader("label", "V", magic: gnuMagic) + file + tail),
        TarReading("type A", tarEntry("a", "A", "x") + tail),
        TarReading("type Z", tarEntry("a", "Z", "x") + tail),
        TarReading(
            "type D", tarHeader("a", "D", size: 8, magic: gnuMagic) + padded("Yfile\u{0}\u{0}") + tail),
        TarReading("type M", tarHeader("a", "M", magic: gnuMagic) + tail),
        TarReading("type N", tarHeader("a", "N", magic: gnuMagic) + tail),
        TarReading("type X", tarHeader("a", "X", size: 9) + padded("9 uid=77\n") + file + tail),
        TarReading("type 7", tarEntry("a", "7", "content") + tail),
        TarReading("a hard link to what comes later", tarHeader("h", "1", link: "f") + file + tail),
        TarReading("an empty GNU long name", gnuLong("L", "") + file + tail),
        TarReading(
            "a GNU long name without a NUL",
            tarHeader("././@LongLink", "L", size: 3, magic: gnuMagic) + padded("one") + file + tail),
        TarReading(
            "a GNU long name with a NUL in it", gnuLong("L", "one\u{0}two") + file + tail),
        TarReading(
            "a GNU long name before the end", gnuLong("L", "one") + endOfTar),
        TarReading("a GNU long link before a file", gnuLong("K", "f2") + file + tail),
        TarReading("a pax linkpath before a file", file + pax(("linkpath", "f"))),
        TarReading("a link name in the header of a file", file + tarHeader("a", link: "f") + tail),
    ]

    /// Types that have no content, with a size: the size is nothing, or bytes are passed over.
    static let sizes: [TarReading] = ["1", "2", "3", "4", "5", "6"].flatMap { type -> [TarReading] in
        let link = type == "1" || type == "2" ? "f" : ""
        func header(_ size: Int, magic: String = "ustar\u{0}00") -> [UInt8] {
            tarHeader("a", Character(type), size: size, link: link, magic: magic)
        }
        let what = "type \(type) with a size"
        return [
            TarReading("\(what), a header next", file + header(700) + tail),
            TarReading("\(what), a header next, v7", file + header(700, magic: "") + tail),
            TarReading("\(what), a header next, GNU", file + header(700, magic: gnuMagic) + tail),
            TarReading("\(what), a v7 header next", file + header(700) + tarHeader("y", magic: "") + tail),
            TarReading("\(what), a GNU header next", file + header(700) + gnuLong("L", "long") + tail),
            TarReading("\(what), a pax header next", file + header(700) + pax(("path", "y"))),
            TarReading(
                "\(what), data next", file + header(700) + padded(String(repeating: "x", count: 700)) + tail),
            TarReading(
                "\(what), data next that is a header", file + header(512) + tarHeader("hidden") + tail),
            TarReading("\(what), the end next", file + header(700) + endOfTar),
            TarReading("\(what), the end next, v7", file + header(700, magic: "") + endOfTar),
            TarReading(
                "\(what), the end and another archive next", file + header(1024) + endOfTar + tail),
            TarReading("\(what) that is larger than what is left", file + header(700_000) + endOfTar),
            TarReading("\(what) after a pax header", file + pax(("uid", "7"), entry: header(700))),
            TarReading("\(what) from a pax record", file + pax(("size", "700"), entry: header(0))),
            TarReading(
                "\(what) after a pax header, the end next",
                file + paxHeader([("uid", "7")]) + header(700) + endOfTar),
            TarReading(
                "\(what), in a pax archive", pax(("uid", "7"), entry: file + header(700))),
            TarReading("\(what) of 0, pax", file + pax(("size", "0"), entry: header(0))),
            TarReading(
                "\(what) below zero", field(124, [UInt8](repeating: 0xff, count: 12), type: Character(type))),
            TarReading("\(what) that is no number", field(124, "x", type: Character(type))),
        ]
    }

    /// Forms of a number in a header, in each field.
    static let numbers: [TarReading] = {
        let fields: [(String, Int, Int)] = [
            ("size", 124, 12), ("mode", 100, 8), ("uid", 108, 8), ("gid", 116, 8), ("mtime", 136, 12),
            ("devmajor", 329, 8),
        ]
        var result = [TarReading]()
        for (name, at, length) in fields {
            func form(_ what: String, _ bytes: [UInt8], _ exception: TarReading.Exception? = nil) {
                let bytes = bytes + [UInt8](repeating: 0, count: length - bytes.count)
                result.append(
                    TarReading(
                        "\(name): \(what)",
                        name == "devmajor"
                            ? file + tarHeader("a", "3", [Patch(at, bytes)]) + tail
                            : file + tarHeader("a", "0", size: 7, [Patch(at, bytes)]) + padded("content")
                                + tail,
                        exception))
            }
            func form(_ what: String, _ text: String, _ exception: TarReading.Exception? = nil) {
                form(what, Array(text.utf8), exception)
            }
            let first = TarReading.Exception.refused(
                "libarchive knows no archive that begins with such a header")
            form("digits from end to end", String(repeating: "0", count: length - 1) + "7")
            form("digits and a space", "0000007 ".suffix(length).description)
            form("spaces before", "   7")
            form("NULs before", "\u{0}\u{0}\u{0}7")
            form("a space and a NUL before", " \u{0}7")
            form("nothing but NULs", "")
            form("nothing but spaces", String(repeating: " ", count: length))
            form("a space, then NULs", "7 ")
            form("digits again behind a space", "7 7")
            form("digits again behind a NUL", "7\u{0}7", first)
            form("a letter behind", "7x")
            form("a letter behind a NUL", "7\u{0}x", first)
            form("an 8", "8")
            form("an 8 behind", "78")
            form("a plus", "+7")
            form("a minus", "-7")
            form("a tab before", "\u{9}7")
            form("0x", "0x7")
            form("base 256", [0x80] + [UInt8](repeating: 0, count: length - 2) + [7])
            form("base 256 with bit 6", [0xc0] + [UInt8](repeating: 0, count: length - 2) + [7])
            form("base 256 with bit 0", [0x81] + [UInt8](repeating: 0, count: length - 2) + [7])
            form("base 256 of -1", [UInt8](repeating: 0xff, count: length))
            form("base 256 of -7", [UInt8](repeating: 0xff, count: length - 1) + [0xf9])
        }
        // Go reads them wherever they stand.
        let others: [(String, [UInt8])] = [
            (
                "uid of letters, and a pax uid",
                paxHeader([("uid", "7")]) + tarHeader("a", "0", [Patch(108, "x")])
            ),
            (
                "mtime of letters, and a pax mtime",
                paxHeader([("mtime", "7")]) + tarHeader("a", "0", [Patch(136, "x")])
            ),
            (
                "uid of NULs and digits, and a pax uid",
                paxHeader([("uid", "7")]) + tarHeader("a", "0", [Patch(108, "\u{0}\u{0}\u{0}7")])
            ),
            ("device number of letters at a file", tarHeader("a", "0", [Patch(329, "x")])),
            (
                "device number of NULs and digits at a file",
                tarHeader("a", "0", [Patch(329, "\u{0}\u{0}\u{0}7")])
            ),
            ("device number of letters at a file of v7", tarHeader("a", "0", magic: "", [Patch(329, "x")])),
            (
                "uid of letters at a pax header",
                tarHeader("pax", "x", size: 12, [Patch(108, "x")]) + padded("12 path=one\n") + tarHeader("a")
            ),
            (
                "mode of letters at a GNU long name",
                tarHeader("././@LongLink", "L", size: 4, magic: gnuMagic, [Patch(100, "x")])
                    + padded("one\u{0}") + tarHeader("a")
            ),
            (
                "GNU time of bytes that are no ASCII",
                tarHeader("a", magic: gnuMagic, [Patch(345, [0xe9, 0xe9])])
            ),
        ]
        for (what, header) in others { result.append(TarReading(what, file + header + tail)) }
        result.append(TarReading("checksum: NULs before", checksum { [0, 0] + octal($0, 6) }))
        result.append(TarReading("checksum: spaces before", checksum { [32, 32] + octal($0, 6) }))
        result.append(TarReading("checksum: digits, space, NUL", checksum { octal($0, 6) + [32, 0] }))
        result.append(TarReading("checksum: digits from end to end", checksum { octal($0, 8) }))
        return result
    }()

    static func checksum(_ form: (Int) -> [UInt8]) -> [UInt8] {
        var block = tarHeader("a")
        let sum = block.enumerated().reduce(0) {
            $0 + ((148..<156).contains($1.offset) ? 32 : Int($1.element))
        }
        block.replaceSubrange(148..<156, with: form(sum))
        return block + tail
    }

    static let dialects: [TarReading] = [
        TarReading("v7 with a prefix", tarHeader("a", magic: "", prefix: "p") + tail),
        TarReading("ustar with a prefix", p + tarHeader("a", prefix: "p/q") + tail),
        TarReading("ustar with a prefix that ends in a slash", p + tarHeader("a", prefix: "p/") + tail),
        TarReading("ustar with a prefix and no name", p + tarHeader("", prefix: "p/q") + tail),
        TarReading("ustar of another version", p + tarHeader("a", magic: "ustar\u{0}01", prefix: "p") + tail),
        TarReading("ustar of no version", p + tarHeader("a", magic: "ustar", prefix: "p") + tail),
        TarReading("no known magic", tarHeader("a", magic: "ustarx00", prefix: "p") + tail),
        TarReading("no known magic, no prefix", tarHeader("a", magic: "ustarx00") + tail),
        TarReading("GNU of another version", tarHeader("a", magic: "ustar 00", prefix: "p") + tail),
        TarReading("GNU with a prefix", tarHeader("a", magic: gnuMagic, prefix: "usr/share") + tail),
        TarReading(
            "GNU with a prefix that is no ASCII",
            tarHeader("a", magic: gnuMagic, [Patch(345, [0xe9, 0x2f, 0xe9])]) + tail),
        TarReading(
            "GNU with times",
            tarHeader("a", magic: gnuMagic, [Patch(345, octal(7, 11)), Patch(357, octal(8, 11))]) + tail),
        TarReading(
            "GNU with a real size on a plain file",
            tarHeader("a", size: 7, magic: gnuMagic, [Patch(483, octal(9, 11))]) + padded("content") + tail),
        TarReading(
            "GNU with the same real size on a plain file",
            tarHeader("a", size: 7, magic: gnuMagic, [Patch(483, octal(7, 11))]) + padded("content") + tail),
        TarReading(
            "GNU with a sparse map on a plain file",
            tarHeader("a", size: 7, magic: gnuMagic, [Patch(386, octal(2, 11)), Patch(398, octal(7, 11))])
                + padded("content") + tail),
        TarReading(
            "GNU with a real size on a directory",
            tarHeader("a/", "5", magic: gnuMagic, [Patch(483, octal(9, 11))]) + tail),
        TarReading("star with a prefix", p + tarHeader("a", prefix: "p", [Patch(508, "tar")]) + tail),
        TarReading(
            "star with times",
            p
                + tarHeader(
                    "a", prefix: "p",
                    [Patch(476, octal(10, 11) + [32]), Patch(488, octal(11, 11) + [32]), Patch(508, "tar")])
                + tail),
        TarReading(
            "star with a prefix that fills its field",
            tarHeader(
                "a", prefix: String(repeating: "p", count: 131),
                [Patch(476, octal(10, 11)), Patch(508, "tar")])
                + tail),
        TarReading(
            "star with a longer prefix",
            tarHeader("a", prefix: String(repeating: "p", count: 140), [Patch(508, "tar")]) + tail),
        TarReading(
            "a device in v7",
            tarHeader("a", "3", magic: "", [Patch(329, octal(1, 7)), Patch(337, octal(3, 7))]) + tail),
        TarReading(
            "a device in a header of no known kind",
            tarHeader("a", "3", magic: "ustarx00", [Patch(329, octal(1, 7))]) + tail),
        TarReading(
            "a hard link with a size in a header of no known kind",
            file + pax(("uid", "7"), entry: tarHeader("a", "1", size: 700, link: "f", magic: "ustarx00"))),
        TarReading(
            "a device in GNU",
            tarHeader("a", "3", magic: gnuMagic, [Patch(329, octal(1, 7)), Patch(337, octal(3, 7))]) + tail),
        TarReading(
            "a mode with the type of a file", tarHeader("a", "0", [Patch(100, octal(0o100755, 7))]) + tail),
        TarReading(
            "a mode with the type of a directory", tarHeader("a", "0", [Patch(100, octal(0o40755, 7))]) + tail
        ),
        TarReading("a mode with set-ID bits", tarHeader("a", "0", [Patch(100, octal(0o6755, 7))]) + tail),
    ]

    static let names: [TarReading] = [
        TarReading("type 0, a slash at the end", tarHeader("a/") + tail),
        TarReading("type 0, a slash at the end and content", tarEntry("a/", "0", "x") + tail),
        TarReading("type NUL, a slash at the end", tarHeader("a/", "\u{0}", magic: "") + tail),
        TarReading("type NUL, a slash at the end, ustar", tarHeader("a/", "\u{0}") + tail),
        TarReading(
            "type NUL, a slash at the end and a size", tarHeader("a/", "\u{0}", size: 700, magic: "") + tail),
        TarReading(
            "type NUL, a slash at the end and content", tarEntry("a/", "\u{0}", "x") + tail),
        TarReading("type 7, a slash at the end", tarHeader("a/", "7") + tail),
        TarReading("a pax path with a slash at the end", pax(("path", "a/"), entry: tarHeader("a"))),
        TarReading(
            "a pax path with a slash at the end, type NUL",
            pax(("path", "a/"), entry: tarHeader("a", "\u{0}"))),
        TarReading(
            "a GNU long name with a slash at the end", gnuLong("L", "a/") + tarHeader("a") + tail),
        TarReading("a directory without a slash", tarHeader("a", "5") + tail),
        TarReading("a slash before", tarHeader("/a") + tail),
        TarReading("two slashes", tarHeader("a/", "5") + tarHeader("a//b") + tail),
        TarReading("a dot on the way", tarHeader("a/", "5") + tarHeader("./a/./b") + tail),
        TarReading("no name", tarHeader("") + tail),
        TarReading("a name that fills its field", tarHeader(String(repeating: "n", count: 100)) + tail),
        TarReading("a name that is no UTF-8", tarHeader("", "0", [Patch(0, [0xe9, 0xff])]) + tail),
        TarReading("bytes behind the NUL of a name", tarHeader("a\u{0}b") + tail),
        TarReading("no target of a symbolic link", tarHeader("a", "2") + tail),
        TarReading("no target of a hard link", tarHeader("a", "1") + tail),
    ]

    static let globalRecords: [TarReading] = [
        TarReading("global: comment", global(("comment", "0123"))),
        TarReading("global: nothing", paxHeader(raw: [], "g") + file + tail),
        TarReading("global: path", global(("path", "one"))),
        TarReading("global: linkpath", global(("linkpath", "one"), entry: tarHeader("s", "2", link: "x"))),
        TarReading("global: size", global(("size", "0"))),
        TarReading("global: uid", global(("uid", "7"))),
        TarReading("global: the uid that the header has", global(("uid", "0"))),
        TarReading(
            "global: a uid, and each entry has its own",
            paxHeader([("uid", "7")], "g") + paxHeader([("uid", "9")]) + file),
        TarReading("global: mtime", global(("mtime", "1000"))),
        TarReading("global: the mtime that the header has", global(("mtime", "0"))),
        TarReading("global: atime", global(("atime", "1000"))),
        TarReading("global: uname", global(("uname", "nobody"))),
        TarReading("global: an attribute", global(("SCHILY.xattr.user.a", "b"))),
        TarReading("global: two headers", paxHeader([("comment", "1")], "g") + global(("comment", "2"))),
        TarReading(
            "global: between a pax header and its entry", paxHeader([("uid", "7")]) + global(("comment", "2"))
        ),
        TarReading(
            "global: between a GNU long name and its entry", gnuLong("L", "one") + global(("comment", "2"))),
        TarReading("global: at the end", file + paxHeader([("comment", "1")], "g") + endOfTar),
        TarReading("global: no record", paxHeader(raw: Array("garbage".utf8), "g") + file + tail),
    ]

    static let records: [TarReading] = [
        TarReading("pax: nothing", paxHeader(raw: []) + file + tail),
        TarReading("pax: a path", pax(("path", "one"))),
        TarReading("pax: a path twice", pax(("path", "one"), ("path", "two"))),
        TarReading(
            "pax: a path that is no UTF-8",
            paxHeader(raw: paxRecord("path", [0xe9])) + tarEntry("a", "0", "x") + tail,
            .taken("libarchive extracts it, and complains of the name")),
        TarReading("pax: an empty path", pax(("path", ""))),
        TarReading(
            "pax: an empty linkpath", file + pax(("linkpath", ""), entry: tarHeader("s", "2", link: "f"))),
        TarReading("pax: an empty size", pax(("size", ""))),
        TarReading(
            "pax: an empty uid", pax(("uid", ""), entry: tarHeader("a", "0", [Patch(108, octal(7, 7))]))),
        TarReading("pax: an empty mtime", pax(("mtime", ""))),
        TarReading("pax: a NUL in the path", pax(("path", "a\u{0}b"))),
        TarReading(
            "pax: a NUL in the linkpath", pax(("linkpath", "a\u{0}b"), entry: tarHeader("s", "2", link: "f"))),
        TarReading("pax: a NUL in the uname", pax(("uname", "a\u{0}b"))),
        TarReading("pax: a NUL in an unknown value", pax(("comment", "a\u{0}b"))),
        TarReading("pax: a NUL in an unknown key", pax(("comm\u{0}ent", "ab"))),
        TarReading("pax: a NUL in an attribute", pax(("SCHILY.xattr.user.a", "b\u{0}c"))),
        TarReading("pax: an unknown key", pax(("unknown", "x"))),
        TarReading("pax: an upper-case PATH", pax(("PATH", "one"))),
        TarReading("pax: a newline in the path", pax(("path", "o\nne"))),
        TarReading("pax: an equals sign in the path", pax(("path", "o=ne"))),
        TarReading("pax: zeros before the length", rawPax("0012 path=on\n")),
        TarReading("pax: a plus before the length", rawPax("+12 path=one\n")),
        TarReading("pax: a space before the length", rawPax(" 12 path=one\n")),
        TarReading("pax: two spaces behind the length", rawPax("13  path=one\n")),
        TarReading("pax: no newline", rawPax("12 path=onex")),
        TarReading("pax: no equals sign", rawPax("11 path one\n")),
        TarReading("pax: no keyword", rawPax("8 =one\n")),
        TarReading("pax: a record of no length", rawPax("0 path=one\n")),
        TarReading("pax: longer than the header", rawPax("99 path=one\n")),
        TarReading("pax: NULs behind the records", rawPax("12 path=one\n\u{0}\u{0}\u{0}")),
        TarReading("pax: a newline behind the records", rawPax("12 path=one\n\n")),
        TarReading(
            "pax: the size of the content", pax(("size", "7"), entry: tarHeader("a") + padded("content"))),
        TarReading("pax: SCHILY.realsize", pax(("SCHILY.realsize", "9"))),
        TarReading("pax: SCHILY.realsize that is the size", pax(("SCHILY.realsize", "1"))),
        TarReading(
            "pax: device numbers",
            pax(("SCHILY.devmajor", "1"), ("SCHILY.devminor", "3"), entry: tarHeader("a", "3"))),
        TarReading("pax: SUN.holesdata", holes(" 0 512 1024 1536", zeros: true)),
        TarReading("pax: SUN.holesdata, a hole first", holes(" 512 1024 1536", zeros: true)),
        TarReading("pax: SUN.holesdata, data in a hole", holes(" 0 512 1024 1536", zeros: false)),
        TarReading("pax: SUN.holesdata, a byte of data in a hole", holes(" 0 513 1025 1536", zeros: true)),
        TarReading("pax: SUN.holesdata that ends before the data", holes(" 0 512 1024 1100", zeros: true)),
        TarReading("pax: SUN.holesdata that ends behind the data", holes(" 0 512 1024 2000", zeros: true)),
        TarReading("pax: SUN.holesdata without a space", holes("0 512 1024 1536", zeros: true)),
        TarReading("pax: SUN.holesdata of letters", holes(" 0 x 1024 1536", zeros: true)),
        TarReading(
            "pax: SUN.holesdata and a sparse map",
            paxHeader([
                ("SUN.holesdata", " 0 512"), ("GNU.sparse.numblocks", "1"), ("GNU.sparse.map", "0,512"),
            ]) + tarEntry("a", "0", String(repeating: "x", count: 512)) + tail,
            .refused("each could say something else than the other")),
        TarReading("pax: hdrcharset BINARY", pax(("hdrcharset", "BINARY"), ("path", "one"))),
        TarReading("pax: GNU.sparse.name alone", pax(("GNU.sparse.name", "one"))),
        TarReading("pax: GNU.sparse.major of 2", pax(("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0"))),
    ]

    /// 512 bytes of data, 512 of a hole, 512 of data.
    static func holes(_ value: String, zeros: Bool) -> [UInt8] {
        let data = [UInt8](repeating: 0x78, count: 512)
        let content = (value.hasPrefix(" 512") ? nothing + data : data + (zeros ? nothing : data)) + data
        return paxHeader([("SUN.holesdata", value)]) + tarHeader("a", size: 1536) + content + tail
    }

    static let numbersInRecords: [TarReading] = ["uid", "gid", "mtime", "size"].flatMap {
        key -> [TarReading] in
        let entry = tarHeader("a", "0", [Patch(136, octal(8, 11))]) + (key == "size" ? padded("content") : [])
        return [
            "7", "007", "+7", "-7", " 7", "7 ", "7x", "0x7", "x", "7.0", "7.", ".7", "7.5", "-7.5", "-0.5",
            "7.1234567899",
            "7,5", "7e1", "9999999999999999999", "4294967295", "4294967296", "-1", "7_0",
        ].compactMap { value in
            let big = value.count > 9 && key == "size"
            if big { return nil }
            var exception: TarReading.Exception?
            if value == "4294967295", key.hasSuffix("id") {
                exception = .refused("to chown(2) it means no owner")
            }
            if key == "mtime", ["-7.5", "-0.5"].contains(value) {
                exception = .taken("libarchive counts the fraction of a time before 1970 forwards")
            }
            return TarReading("pax: \(key)=\"\(value)\"", pax((key, value), entry: entry), exception)
        }
    }

    static let sparse: [TarReading] = {
        func old(
            _ pairs: [(Int, Int)], real: Int, size: Int, extended: Bool = false, magic: String = gnuMagic
        ) -> [UInt8] {
            tarHeader("a", "S", size: size, magic: magic, TarReadings.oldMap(pairs, real, extended))
        }
        let block = String(repeating: "x", count: 512)
        func v0(_ records: [(String, String)], size: Int = 512) -> [UInt8] {
            paxHeader(records.map { ("GNU.sparse." + $0.0, $0.1) })
                + tarEntry("a", "0", String(repeating: "x", count: size))
                + tail
        }
        func v1(
            _ map: String, real: String = "1536", content: String = block, more: [(String, String)] = [],
            name: String = "real"
        )
            -> [UInt8]
        {
            paxHeader(
                [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", name)]
                    + (real.isEmpty ? [] : [("GNU.sparse.realsize", real)]) + more)
                + tarHeader("a", size: padded(map).count + content.utf8.count) + padded(map) + padded(content)
                + tail
        }
        return [
            TarReading(
                "old GNU: one segment", old([(1024, 512)], real: 1536, size: 512) + padded(block) + tail),
            TarReading(
                "old GNU: a map that ends before the file",
                old([(1024, 512)], real: 2000, size: 512) + padded(block) + tail),
            TarReading(
                "old GNU: two segments",
                old([(512, 512), (1536, 100)], real: 1636, size: 612)
                    + padded(block + String(repeating: "y", count: 100)) + tail),
            TarReading(
                "old GNU: a segment that is no whole block before another",
                old([(10, 3), (1000, 2)], real: 1002, size: 5) + padded("abcde") + tail),
            TarReading("old GNU: nothing but a hole", old([(2000, 0)], real: 2000, size: 0) + tail),
            TarReading("old GNU: no map", old([], real: 0, size: 0) + tail),
            TarReading("old GNU: no map, and a size", old([], real: 2000, size: 0) + tail),
            TarReading("old GNU: no map, and data", old([], real: 512, size: 512) + padded(block) + tail),
            TarReading(
                "old GNU: segments out of order",
                old([(1024, 512), (0, 512)], real: 2000, size: 1024) + padded(block + block) + tail),
            TarReading(
                "old GNU: segments that overlap",
                old([(0, 512), (256, 512)], real: 2000, size: 1024) + padded(block + block) + tail),
            TarReading(
                "old GNU: a segment behind the end",
                old([(1800, 512)], real: 2000, size: 512) + padded(block) + tail),
            TarReading(
                "old GNU: more data than segments",
                old([(0, 512)], real: 2000, size: 1024) + padded(block + block) + tail),
            TarReading(
                "old GNU: less data than segments",
                old([(0, 1024)], real: 2000, size: 512) + padded(block) + tail),
            TarReading(
                "old GNU: a map that goes on after its end",
                old([(0, 512)], real: 512, size: 512, extended: true) + nothing + padded(block) + tail),
            TarReading(
                "old GNU: a map that goes on with more after its end",
                old([(0, 512)], real: 1536, size: 1024, extended: true) + oldExtension([(1024, 512)])
                    + padded(block + block) + tail),
            TarReading(
                "old GNU: a map of two parts",
                old(
                    [(0, 512), (1024, 512), (2048, 512), (3072, 512)], real: 4608, size: 2560, extended: true)
                    + oldExtension([(4096, 512)]) + padded(block + block + block + block + block) + tail),
            TarReading(
                "old GNU: the flag of another part is a letter",
                tarHeader(
                    "a", "S", size: 512, magic: gnuMagic,
                    oldMap([(0, 512)], 512, false) + [Patch(482, "0")]) + nothing + padded(block) + tail),
            TarReading(
                "old GNU: in ustar",
                old([(0, 512)], real: 512, size: 512, magic: "ustar\u{0}00") + padded(block) + tail),
            TarReading(
                "old GNU: a map of no numbers",
                tarHeader(
                    "a", "S", size: 512, magic: gnuMagic, oldMap([(0, 512)], 512, false) + [Patch(386, "x")])
                    + padded(block) + tail),
            TarReading(
                "old GNU: a pax size too",
                paxHeader([("size", "512")]) + old([(0, 512)], real: 512, size: 512) + padded(block) + tail),
            TarReading("0.0", paxHeader(raw: zero(1)) + tarEntry("a", "0", block) + tail),
            TarReading(
                "0.0: the length before the offset",
                v0([("size", "1536"), ("numblocks", "1"), ("numbytes", "512"), ("offset", "1024")])),
            TarReading(
                "0.0: another number of segments",
                v0([("size", "1536"), ("numblocks", "2"), ("offset", "1024"), ("numbytes", "512")])),
            TarReading(
                "0.0: no number of segments", v0([("size", "1536"), ("offset", "1024"), ("numbytes", "512")])),
            TarReading(
                "0.0: a hole alone",
                v0([("size", "1536"), ("numblocks", "1"), ("offset", "1536"), ("numbytes", "0")], size: 0)),
            TarReading(
                "0.1: a hole alone",
                v0([("size", "1536"), ("numblocks", "1"), ("map", "1536,0"), ("name", "real")], size: 0)),
            TarReading(
                "0.1: offsets too",
                v0([
                    ("size", "1536"), ("numblocks", "1"), ("map", "1024,512"), ("offset", "1024"),
                    ("numbytes", "512"),
                ])),
            TarReading(
                "0.1: a realsize that is the size",
                v0([
                    ("size", "1536"), ("realsize", "1536"), ("numblocks", "1"), ("map", "1024,512"),
                    ("name", "real"),
                ])),
            TarReading(
                "0.1: a realsize alone",
                v0([("realsize", "1536"), ("numblocks", "1"), ("map", "1024,512"), ("name", "real")])),
            TarReading(
                "old GNU: a map that goes on after its end, at the end",
                old([(0, 0)], real: 0, size: 0, extended: true) + nothing + endOfTar),
            TarReading(
                "old GNU: a map that goes on after its end, and the archive ends",
                old([(0, 0)], real: 0, size: 0, extended: true) + nothing),
            TarReading(
                "old GNU: an offset without a length",
                tarHeader(
                    "a", "S", size: 0, magic: gnuMagic,
                    oldMap([(0, 0)], 0, false) + [Patch(410, octal(0, 11))]) + tail,
                .refused("a length that is not there is another thing to each of them")),
            TarReading("0.0: no segment", v0([("size", "1536"), ("numblocks", "0")], size: 0)),
            TarReading(
                "0.1", v0([("size", "1536"), ("numblocks", "1"), ("map", "1024,512"), ("name", "real")])),
            TarReading("0.1: no name", v0([("size", "1536"), ("numblocks", "1"), ("map", "1024,512")])),
            TarReading(
                "0.1: no number of segments", v0([("size", "1536"), ("map", "1024,512"), ("name", "real")])),
            TarReading(
                "0.1: another number of segments",
                v0([("size", "1536"), ("numblocks", "2"), ("map", "1024,512"), ("name", "real")])),
            TarReading("0.1: no size", v0([("numblocks", "1"), ("map", "0,512"), ("name", "real")])),
            TarReading(
                "0.1: a comma at the end",
                v0([("size", "1536"), ("numblocks", "1"), ("map", "1024,512,"), ("name", "real")])),
            TarReading(
                "0.1: an empty number",
                v0([("size", "1536"), ("numblocks", "1"), ("map", ",512"), ("name", "real")])),
            TarReading(
                "0.1: out of order",
                v0([("size", "1536"), ("numblocks", "2"), ("map", "1024,256,0,256"), ("name", "real")])),
            TarReading(
                "0.1: a segment that is no whole block before another",
                v0([("size", "1536"), ("numblocks", "2"), ("map", "10,256,1280,256"), ("name", "real")])),
            TarReading(
                "0.1: the map twice",
                v0([
                    ("size", "1536"), ("numblocks", "1"), ("map", "0,512"), ("map", "1024,512"),
                    ("name", "real"),
                ])),
            TarReading(
                "0.1: a realsize too",
                v0([
                    ("size", "1536"), ("realsize", "3000"), ("numblocks", "1"), ("map", "1024,512"),
                    ("name", "real"),
                ])),
            TarReading("1.0", v1("1\n1024\n512\n")),
            TarReading("1.0: two segments", v1("2\n0\n512\n1024\n512\n", content: block + block)),
            TarReading(
                "1.0: a segment that is no whole block before another",
                v1("2\n0\n500\n1024\n12\n", real: "1036")),
            TarReading("1.0: nothing but a hole", v1("0\n", content: "")),
            TarReading("1.0: a hole with a mark at its end", v1("1\n1536\n0\n", content: "")),
            TarReading("1.0: no real size", v1("1\n0\n512\n", real: "")),
            TarReading("1.0: a size too", v1("1\n0\n512\n", real: "512", more: [("GNU.sparse.size", "900")])),
            TarReading("1.0: spaces in the map", v1("1\n 1024\n512\n")),
            TarReading("1.0: a minus in the map", v1("1\n-1\n512\n")),
            TarReading("1.0: zeros before numbers", v1("01\n001024\n0512\n")),
            TarReading("1.0: an empty line", v1("1\n\n512\n")),
            TarReading("1.0: letters behind the map", v1("1\n1024\n512\nabc")),
            TarReading("1.0: less data than segments", v1("1\n0\n1024\n")),
            TarReading("1.0: more data than segments", v1("1\n0\n100\n")),
            TarReading("1.0: a segment behind the end", v1("1\n1800\n512\n")),
            TarReading("1.0: an empty name", v1("1\n1024\n512\n", name: "")),
            TarReading("1.0: a path too", v1("1\n1024\n512\n", more: [("path", "other")])),
            TarReading(
                "1.0: of a directory",
                paxHeader([
                    ("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "0"),
                ])
                    + tarHeader("a", "5") + tail),
            TarReading(
                "1.0: of a hard link",
                file
                    + paxHeader([
                        ("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "0"),
                    ])
                    + tarHeader("a", "1", link: "f") + tail),
            TarReading(
                "1.0: type NUL",
                paxHeader([
                    ("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "1536"),
                ])
                    + tarHeader("a", "\u{0}", size: 1024) + padded("1\n1024\n512\n") + padded(block) + tail),
            TarReading(
                "1.0: type 7",
                paxHeader([
                    ("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "1536"),
                ])
                    + tarHeader("a", "7", size: 1024) + padded("1\n1024\n512\n") + padded(block) + tail),
        ]
    }()

    static func zero(_ count: Int) -> [UInt8] {
        paxRecord("GNU.sparse.size", Array("1536".utf8)) + paxRecord("GNU.sparse.numblocks", Array("1".utf8))
            + paxRecord("GNU.sparse.offset", Array("1024".utf8))
            + paxRecord("GNU.sparse.numbytes", Array("512".utf8))
    }
    static func oldPairs(_ pairs: [(Int, Int)], at start: Int) -> [Patch] {
        pairs.enumerated().flatMap { index, pair in
            [Patch(start + index * 24, octal(pair.0, 11)), Patch(start + index * 24 + 12, octal(pair.1, 11))]
        }
    }
    static func oldMap(_ pairs: [(Int, Int)], _ real: Int, _ extended: Bool) -> [Patch] {
        oldPairs(pairs, at: 386) + [Patch(482, [extended ? 1 : 0]), Patch(483, octal(real, 11))]
    }
    static func oldExtension(_ pairs: [(Int, Int)]) -> [UInt8] {
        var block = [UInt8](repeating: 0, count: 512)
        for patch in oldPairs(pairs, at: 0) {
            block.replaceSubrange(patch.at..<(patch.at + patch.bytes.count), with: patch.bytes)
        }
        return block
    }
}
