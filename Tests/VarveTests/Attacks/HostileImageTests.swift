import VarveOCI
import VarveSystem
import TestSupport
import Testing

/// Images made to do harm, through the whole command: each is refused with exit code 3 and nothing left, or becomes exactly
/// what it says inside its root, in bounded memory. What the parts of the command do with more cases of each sort:
/// ApplyAttackTests, TarBrokenTests, FuzzTests.
@Suite(.serialized) struct HostileImageTests {
    static let all = HostileCase.paths + HostileCase.entries + HostileCase.sizes + HostileCase.documents

    /// As Docs/security.md says.
    @Test func counts() {
        let sections = [
            HostileCase.paths, HostileCase.entries, HostileCase.sizes, HostileCase.documents,
        ]
        #expect(sections.map(\.count) == [36, 31, 17, 23])
    }

    @Test("An image with", arguments: all) func attack(_ one: HostileCase) throws {
        try HostileWorld.shared().run(one)
    }
}

/// An entry by hand: `size` may lie.
private func entry(
    _ name: String, _ type: Character = "0", _ content: String = "", link: String = "", patches: [Patch] = []
) -> [UInt8] {
    tarHeader(name, type, size: content.utf8.count, link: link, patches) + padded(content)
}

private let up = "../../../../../../.."

// MARK: - Paths and links

extension HostileCase {
    static let paths: [HostileCase] = traversals + races + whiteouts

    /// `..` in the name of every kind of entry, and in what a hard link points to.
    private static let traversals: [HostileCase] =
        [
            ("a file", "0"), ("a hard link", "1"), ("a symbolic link", "2"), ("a character device", "3"),
            ("a block device", "4"), ("a directory", "5"), ("a FIFO", "6"), ("a contiguous file", "7"),
        ].map { what, type in
            HostileCase(
                "\(what) named ../../canary/new", .refused("\"..\""),
                layers: entry("file") + entry("../../canary/new", type, link: type == "1" ? "file" : "x"))
        } + [
            HostileCase(
                "a hard link to the canary by ..", .refused("\"..\""),
                layers: entry("h", "1", link: "../../canary/file")),
            // Nothing below the root has that name, so there is nothing to link to.
            HostileCase(
                "a hard link to the host's /etc/passwd", .refused("not in the image"),
                layers: entry("h", "1", link: "/etc/passwd")),
            HostileCase(
                "an absolute name", .holds("test \"$(cat etc/passwd)\" = x"),
                layers: entry("/etc/passwd", "0", "x")),
            HostileCase(
                "a name in a pax record that is not that of the header", .refused("\"..\""),
                layers: paxHeader([("path", "../../canary/file")]) + entry("harmless", "0", "x")),
            HostileCase(
                "a long name of GNU tar with ..", .refused("\"..\""),
                layers: gnuLong("L", "d/../../canary/new") + entry("d")),
            HostileCase(
                "a sparse file whose own name has ..", .refused("\"..\""),
                layers: paxHeader([
                    ("GNU.sparse.name", "../../canary/file"), ("GNU.sparse.size", "5"),
                    ("GNU.sparse.numblocks", "2"), ("GNU.sparse.map", "0,1,5,0"),
                ]) + entry("f", "0", "x")),
        ]

    /// A link is planted, and something goes through it: in one layer, and in the one above.
    private static let races: [HostileCase] = [
        HostileCase(
            "a symbolic link to the canary and a file through it",
            .holds("test -f canary/file; test \"$(cat canary/file)\" = x; test -L l"),
            layers: entry("l", "2", link: "\(up)/canary") + entry("l/file", "0", "x")),
        HostileCase(
            "the same across two layers", .holds("test \"$(cat canary/file)\" = x; test -L l"),
            layers: entry("l", "2", link: "\(up)/canary"), entry("l/file", "0", "x")),
        HostileCase(
            "a directory that becomes a link between two entries below it",
            .holds("test ! -e d/one; test \"$(cat canary/two)\" = 2; test -L d"),
            layers: entry("d/", "5") + entry("d/one", "0", "1") + entry("d", "2", link: "\(up)/canary")
                + entry("d/two", "0", "2")),
        HostileCase(
            "a link that becomes a directory and a link again across layers",
            .holds("test -L d; test ! -e d/one; test -f canary/two"),
            layers: entry("d", "2", link: "\(up)/canary"), entry("d/", "5") + entry("d/one", "0", "1"),
            entry("d", "2", link: "/canary") + entry("d/two", "0", "2")),
        HostileCase(
            "a hard link to a link to the canary's file, then a file over it",
            .holds("test \"$(cat h)\" = x; test -L l"),
            layers: entry("l", "2", link: "\(up)/canary/file") + entry("h", "1", link: "l"),
            entry("h", "0", "x")),
        HostileCase(
            "a hard link through a link to the canary", .refused("not in the image"),
            layers: entry("l", "2", link: "\(up)/canary"), entry("h", "1", link: "l/file")),
        HostileCase(
            "a mode and an owner for a link to the canary", .holds("test -L l"),
            layers: entry(
                "l", "2", link: "\(up)/canary/file",
                patches: [Patch(100, octal(0o4777, 7)), Patch(108, octal(77, 7))])),
        HostileCase(
            "a device node through a link to the canary", .holds("test -b canary/sda"),
            layers: entry("l", "2", link: "\(up)/canary")
                + entry("l/sda", "4", patches: [Patch(329, octal(8, 7)), Patch(337, octal(0, 7))])),
        HostileCase(
            "links to each other on the way", .refused("symbolic links"),
            layers: entry("a", "2", link: "b") + entry("b", "2", link: "a") + entry("a/f")),
        HostileCase(
            "a link into /proc/self on the way", .holds("test -f proc/self/root/canary/file"),
            layers: entry("l", "2", link: "/proc/self/root") + entry("l/canary/file", "0", "x")),
        // The accounts of the image are looked up when config.json is made.
        HostileCase("an /etc/passwd that is a link to the host's", .refused("user")) {
            try $0.image(
                [entry("etc/passwd", "2", link: "\(up)/etc/passwd") + endOfTar],
                config: { $0.replacing("\"config\":{}", "\"config\":{\"User\":\"daemon\"}") })
        }.leaving(1),
        HostileCase("an /etc/passwd that is a FIFO", .refused("user")) {
            try $0.image(
                [entry("etc/passwd", "6") + endOfTar],
                config: { $0.replacing("\"config\":{}", "\"config\":{\"User\":\"daemon\"}") })
        }.leaving(1),
    ]

    private static let whiteouts: [HostileCase] =
        [
            ("..", ".wh..."), (".", ".wh.."), ("nothing", ".wh."), ("/", ".wh./"),
            ("something below a whiteout", ".wh.d/f"),
        ].map { what, name in
            HostileCase("a whiteout of \(what)", .refused("valid"), layers: entry("d/", "5"), entry(name))
                .leaving(1)
        } + [
            HostileCase(
                "a whiteout in the canary", .refused("\"..\""), layers: entry("../../canary/.wh.file")),
            HostileCase(
                "an opaque whiteout of the canary", .refused("\"..\""),
                layers: entry("../../canary/.wh..wh..opq")),
            HostileCase(
                "whiteouts of what lies behind a link", .holds("test -L l"),
                layers: entry("l", "2", link: "\(up)/canary"), entry("l/.wh.file") + entry("l/.wh..wh..opq")),
            HostileCase(
                "a whiteout of the link itself", .holds("test ! -L l"),
                layers: entry("l", "2", link: "\(up)/canary"),
                entry(".wh.l")),
            HostileCase(
                "AUFS's own files", .taken([]), layers: entry(".wh..wh.plnk/1.2") + entry(".wh..wh.aufs")),
        ]
}

// MARK: - Entries, numbers and records

extension HostileCase {
    static let entries: [HostileCase] = [
        // Exactly what the archive says, behind a directory that only root can enter.
        HostileCase(
            "device nodes of the host's memory and disk",
            .holds("test -c mem; test \"$(stat -c %t:%T%a mem)\" = 1:1600; test -b sda"),
            layers: entry(
                "mem", "3",
                patches: [Patch(100, octal(0o600, 7)), Patch(329, octal(1, 7)), Patch(337, octal(1, 7))])
                + entry("sda", "4", patches: [Patch(329, octal(8, 7)), Patch(337, octal(0, 7))])),
        HostileCase(
            "names that differ in case or in Unicode form only",
            .taken(["A f 1", "a f 2", "\u{e9} f 3", "e\u{301} f 4"]),
            layers: entry("A", "0", "1") + entry("a", "0", "22") + entry("\u{e9}", "0", "333")
                + entry("e\u{301}", "0", "4444")),
        HostileCase(
            "names that end a line or move a cursor", .refused("\\x1b"),
            layers: entry("\u{1b}[2J\nvarve: all is well/..", "0", "x")),
        HostileCase(
            "an entry below a file", .holds("[ -f f/g ]"), layers: entry("f", "0", "x") + entry("f/g")),
        HostileCase(
            "a root that is a link", .refused("root"), layers: entry("./", "2", link: "\(up)/canary")),
        HostileCase("a root that is a device", .refused("root"), layers: entry("/", "3")),
        HostileCase("a type that is not known", .refused("type"), layers: entry("f", "Z")),
        HostileCase(
            "an entry that only some readers see", .refused("hard link"),
            layers: paxHeader([("comment", "")]) + entry("f", "0", "x")
                + tarHeader("h", "1", size: 512, link: "f")
                + entry("hidden")),
        // Sizes and numbers.
        HostileCase(
            "a negative size", .refused("size"),
            layers: entry("f", patches: [Patch(124, [UInt8](repeating: 0xff, count: 12))])),
        HostileCase(
            "a size of 2^63", .refused("size"),
            layers: entry("f", patches: [Patch(124, [0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0])])),
        HostileCase(
            "a size of 8 GiB and no data", .refused("ends"), layers: tarHeader("f", size: 0o77777777777)),
        HostileCase(
            "the largest size and no data", .refused("ends"),
            layers: entry(
                "f", patches: [Patch(124, [0x80, 0, 0, 0, 0x7f] + [UInt8](repeating: 0xff, count: 7))])),
        HostileCase(
            "an octal number with an 8", .refused("mode"),
            layers: entry("f", patches: [Patch(100, "0000848")])),
        HostileCase(
            "a negative owner", .refused("uid"),
            layers: entry("f", patches: [Patch(108, [UInt8](repeating: 0xff, count: 8))])),
        HostileCase(
            "an owner of 33 bits", .refused("uid"), layers: paxHeader([("uid", "4294967296")]) + entry("f")),
        HostileCase(
            "a device of 33 bits", .refused("devm"),
            layers: paxHeader([("SCHILY.devmajor", "4294967296")]) + entry("f", "3")),
        HostileCase(
            "a device that Linux cannot name", .refused("valid"),
            layers: paxHeader([("SCHILY.devmajor", "4294967295")]) + entry("f", "3")),
        HostileCase(
            "a negative size in pax", .refused("size"), layers: paxHeader([("size", "-1")]) + entry("f")),
        // Records.
        HostileCase(
            "a pax record longer than its header", .refused("record"),
            layers: paxHeader(raw: Array("99 uid=7\n".utf8))),
        HostileCase(
            "a pax record of length 0", .refused("record"), layers: paxHeader(raw: Array("0 uid=7\n".utf8))),
        HostileCase(
            "a pax record whose length is over 64 bits", .refused("record"),
            layers: paxHeader(raw: Array("99999999999999999999 uid=7\n".utf8))),
        HostileCase(
            "a pax header of 8 GiB", .refused("extended header"),
            layers: tarHeader("p", "x", size: 0o77777777777)),
        HostileCase(
            "a global path", .refused("global"), layers: paxHeader([("path", "x")], "g") + entry("f")),
        HostileCase(
            "an extended attribute in no name space", .refused("attribute"), options: ["--strict-xattrs"],
            layers: paxHeader([("SCHILY.xattr.evil", "x")]) + entry("f")),
        HostileCase(
            "an extended attribute whose name has 64 KiB", .refused("attribute"),
            options: ["--strict-xattrs"],
            layers: paxHeader([("SCHILY.xattr.user." + String(repeating: "n", count: 65_536), "x")])
                + entry("f")),
        HostileCase(
            "an extended attribute of 64 KiB", .refused("attribute"), options: ["--strict-xattrs"],
            layers: paxHeader([("SCHILY.xattr.user.a", String(repeating: "v", count: 65_536))]) + entry("f")),
        HostileCase(
            "5,000 extended attributes", .taken(["f f 0"]),
            layers: paxHeader(
                (0..<5_000).map { ("SCHILY.xattr.user.a\($0)", String(repeating: "v", count: 500)) })
                + entry("f")),
        HostileCase(
            "properties of btrfs", .holds("test -z \"$(btrfs property get f compression)\""),
            layers: paxHeader([("SCHILY.xattr.btrfs.compression", "zstd")]) + entry("f", "0", "x")),
        HostileCase(
            "an ACL of a user whom the image does not have", .holds("! getfacl -cn f | grep user:[0-9]"),
            layers: paxHeader([
                ("SCHILY.acl.access", "user::rwx,user:root:rwx,group::r--,mask::rwx,other::---")
            ]) + entry("f")),
        HostileCase(
            "an ACL that is none", .refused("ACL"),
            layers: paxHeader([("SCHILY.acl.access", "user::rwx,user:0:rwx")]) + entry("f")),
        // A set-ID bit that the tar gives comes with the owner that it gives, and to nobody else.
        HostileCase(
            "a set-ID file of another user", .holds("test \"$(stat -c %a:%u:%g f)\" = 4755:77:0"),
            layers: entry("f", "0", "x", patches: [Patch(100, octal(0o4755, 7)), Patch(108, octal(77, 7))])),
    ]
}

// MARK: - Sizes and counts

extension HostileCase {
    static let sizes: [HostileCase] = [
        // Holes are holes: neither disk nor memory is used.
        HostileCase(
            "a file of 10 GB in 1 KB",
            .holds("test \"$(stat -c %s f)\" = 10737418240; test \"$(stat -c %b f)\" -le 16"), layers: sparse),
        HostileCase(
            "a file of 10 GB in 1 KB, where 1 GB is allowed", .refused("--max-size"),
            options: ["--max-size", "1G"],
            layers: sparse + entry("another")),
        HostileCase(
            "sparse files of 2^62 bytes, four times", .refused("--max-size"),
            layers: [0, 1, 2, 3].flatMap { number in
                paxHeader([
                    ("GNU.sparse.size", "\(1 << 62)"), ("GNU.sparse.numblocks", "2"),
                    ("GNU.sparse.map", "0,1,\(1 << 62),0"),
                ])
                    + entry("f\(number)", "0", "x")
            }),
        HostileCase(
            "a gzip bomb of 128 MiB, where 32 MiB are allowed", .refused("--max-size"),
            options: ["--max-size", "32M"]
        ) {
            try bomb($0, before: tarHeader("f", size: 128 << 20))
        },
        // Only zeros follow the end of the archive; they must be read, for the DiffID.
        HostileCase(
            "a bomb behind the end of the archive", .refused("--max-size"), options: ["--max-size", "32M"]
        ) {
            try bomb($0, before: entry("f", "0", "x") + endOfTar)
        },
        // No entry ever comes.
        HostileCase("a bomb in a volume's label", .refused("--max-size"), options: ["--max-size", "32M"]) {
            try bomb($0, before: tarHeader("label", "V", size: 128 << 20))
        },
        HostileCase(
            "a tar that does not end", .refused("ends"), layers: Array(entry("f", "0", "x").prefix(700))),
        HostileCase(
            "more entries than are allowed", .refused("--max-entries"), options: ["--max-entries", "2"],
            layers: entry("a") + entry("b"), entry("c")
        ).leaving(1),
        // Of other names: layers that are there already are not read.
        HostileCase(
            "as many entries and bytes as are allowed", .taken(["g f 0", "h f 0", "i f 0"]),
            options: ["--max-entries", "3", "--max-size", "3584"], layers: entry("g") + entry("h"), entry("i")
        ),
        HostileCase("100,000 symbolic links", .holds("test \"$(ls | wc -l)\" = 100000")) {
            try $0.image([numbered(100_000, tarHeader("l000000", "2", link: "x"))])
        },
        // btrfs takes 65,535 at the most.
        HostileCase("100,000 hard links to one file", .refused("too many hard links")) {
            try $0.image([entry("f") + numbered(100_000, tarHeader("l000000", "1", link: "f"))])
        },
        HostileCase(
            "2,000 directories in each other", .holds("find . | wc -l | grep -x 2002"),
            layers: paxHeader([("path", String(repeating: "d/", count: 2000) + "f")]) + entry("x")),
        HostileCase(
            "4,096 directories in each other", .refused("4095"),
            layers: paxHeader([("path", String(repeating: "d/", count: 4096) + "f")]) + entry("x")),
        // 2,000 and 2,000 more, through a link: each path is legal, but not what they lead to.
        HostileCase(
            "4,000 directories in each other, by way of links", .refused("valid"),
            layers: paxHeader([("path", String(repeating: "d/", count: 2000))]) + entry("x", "5")
                + paxHeader([("linkpath", String(repeating: "d/", count: 2000))]) + entry("l", "2", link: "x")
                + paxHeader([("path", "l/" + String(repeating: "d/", count: 2000))]) + entry("x", "5")),
        HostileCase(
            "a name of 256 bytes", .refused("255 bytes"),
            layers: paxHeader([("path", String(repeating: "n", count: 256))]) + entry("x")),
        HostileCase("a zstd frame with a window of 2 GiB", .refused("memory")) {
            // RFC 8878, 3.1.1.1.2: exponent 21 of 2^10 bytes; then an empty last block.
            let frame: [UInt8] = [0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 1, 0, 0]
            try $0.image([[]], layers: [try $0.blob(frame, "application/vnd.oci.image.layer.v1.tar+zstd")])
        },
        HostileCase("a gzip member that ends early", .refused("end too early")) {
            try $0.image([[]], layers: [try $0.blob([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], gzipLayer)])
        },
    ]

    private static let gzipLayer = "application/vnd.oci.image.layer.v1.tar+gzip"

    private static let sparse =
        paxHeader([
            ("GNU.sparse.size", "10737418240"), ("GNU.sparse.numblocks", "2"),
            ("GNU.sparse.map", "5000000000,1,10737418240,0"),
        ])
        + entry("f", "0", "x")

    /// A layer of `before` and 128 MiB of zeros, packed by gzip(1); the DiffID is that of something else.
    private static func bomb(_ layout: HostileLayout, before: [UInt8]) throws {
        try layout.write("before", before)
        let packed = try runSuccessfully([
            "sh", "-c", "{ cat '\(layout.path)/before'; head -c 128M /dev/zero; } | gzip -1",
        ])
        try layout.image([[]], layers: [try layout.blob(packed.output, gzipLayer)])
    }

    /// So many copies of a header, with six digits of its name counted on.
    private static func numbered(_ count: Int, _ header: [UInt8]) -> [UInt8] {
        var archive: [UInt8] = []
        archive.reserveCapacity((count + 2) * 512)
        let sum = header.enumerated().reduce(0) {
            $0 + ((148..<156).contains($1.offset) ? 32 : Int($1.element))
        }
        var header = header
        for number in 0..<count {
            var rest = number
            var digits = 0
            for place in (1...6).reversed() {
                header[place] = UInt8(ascii: "0") + UInt8(rest % 10)
                digits += rest % 10
                rest /= 10
            }
            var field = sum + digits
            for place in (148..<154).reversed() {
                header[place] = UInt8(ascii: "0") + UInt8(field & 7)
                field >>= 3
            }
            archive += header
        }
        return archive + endOfTar
    }
}

// MARK: - Documents

extension HostileCase {
    static let documents: [HostileCase] = [
        HostileCase("an index.json of 1 GB", .refused("index.json")) {
            try runSuccessfully(["truncate", "-s", "1G", "\($0.path)/index.json"])
        },
        HostileCase("an index.json of 10,000 levels", .refused("levels")) {
            try $0.write(index: String(repeating: "[", count: 10_000) + String(repeating: "]", count: 10_000))
        },
        HostileCase("a manifest of 1 GB", .refused("4194304")) {
            let manifest = try $0.blob("{}", MediaType.ociManifest, size: 1 << 30)
            try runSuccessfully([
                "truncate", "-s", "1G", "\($0.path)/blobs/sha256/\(Digest(of: Array("{}".utf8)).hex)",
            ])
            try $0.tag(manifest)
        },
        HostileCase("a key that stands twice", .refused("twice")) {
            try $0.image([entry("f") + endOfTar], manifest: { $0.dropLast() + ",\"layers\":[]}" })
        },
        HostileCase("the same key, spelt with an escape", .refused("twice")) {
            try $0.image([entry("f") + endOfTar], manifest: { $0.dropLast() + ",\"l\\u0061yers\":[]}" })
        },
        HostileCase("a digest of an unknown algorithm", .refused("digest")) {
            try $0.tag(
                #"{"mediaType":"\#(MediaType.ociManifest)","digest":"md5:\#(String(repeating: "0", count: 32))","size":2}"#
            )
        },
        HostileCase("a digest that is a path", .refused("digest")) {
            try $0.tag(
                #"{"mediaType":"\#(MediaType.ociManifest)","digest":"sha256:../../../canary/file","size":8}"#)
        },
        HostileCase("a digest in upper case", .refused("digest")) {
            try $0.tag(
                #"{"mediaType":"\#(MediaType.ociManifest)","digest":"sha256:\#(String(repeating: "A", count: 64))","size":8}"#
            )
        },
        HostileCase("a DiffID that is a path", .refused("sha256:../")) {
            try $0.image(
                [entry("f") + endOfTar],
                config: { _ in
                    #"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:../../x"]}}"#
                })
        },
        HostileCase("a blob that is a link to the canary", .refused("is not valid JSON")) {
            let content = Array("content\n".utf8)
            let descriptor = try $0.blob(content, MediaType.ociManifest)
            try runSuccessfully([
                "ln", "-sf", "\($0.world.path)/canary/file",
                "\($0.path)/blobs/sha256/\(Digest(of: content).hex)",
            ])
            try $0.tag(descriptor)
        },
        HostileCase(
            "a manifest that is larger than its descriptor says",
            .refused("has not the 2 bytes that its descriptor says")
        ) {
            try $0.tag(try $0.blob("{\"schemaVersion\":2}", MediaType.ociManifest, size: 2))
        },
        HostileCase(
            "a layer that is smaller than its descriptor says", .refused("has not the 1099511627776 bytes")
        ) {
            let layer = entry("f") + endOfTar
            try $0.image(
                [layer], layers: [try $0.blob(layer, "application/vnd.oci.image.layer.v1.tar", size: 1 << 40)]
            )
        },
        HostileCase("a negative size", .refused("size")) {
            let layer = entry("f") + endOfTar
            try $0.image(
                [layer], layers: [try $0.blob(layer, "application/vnd.oci.image.layer.v1.tar", size: -1)])
        },
        HostileCase("a size of 2^64", .refused("size")) {
            try $0.tag(
                #"{"mediaType":"\#(MediaType.ociManifest)","digest":"\#(Digest(of: []))","size":18446744073709551616}"#
            )
        },
        HostileCase("a layer whose content is not what its digest says", .refused("damaged")) {
            let layer = entry("f") + endOfTar
            let descriptor = try $0.blob(layer, "application/vnd.oci.image.layer.v1.tar")
            try $0.image([layer], layers: [descriptor])
            try $0.write(BytePath("blobs/sha256/\(Digest(of: layer).hex)"), entry("g") + endOfTar)
        },
        HostileCase("a layer that is not the one of its DiffID", .refused("DiffID")) {
            let layer = entry("f") + endOfTar
            try $0.image(
                [entry("g") + endOfTar],
                layers: [try $0.blob(layer, "application/vnd.oci.image.layer.v1.tar")])
        },
        HostileCase("more layers than DiffIDs", .refused("layers")) {
            let layer = entry("f") + endOfTar
            let descriptor = try $0.blob(layer, "application/vnd.oci.image.layer.v1.tar")
            try $0.image([layer], layers: [descriptor, descriptor])
        },
        HostileCase("a layer of a type that is not known", .refused("media type")) {
            let layer = entry("f") + endOfTar
            try $0.image([layer], layers: [try $0.blob(layer, "application/x-evil")])
        },
        // Its digest cannot be that of itself: whoever follows it meets a blob that is not what it says.
        HostileCase("an index that names itself", .refused("damaged")) {
            let digest = Digest(of: Array("itself".utf8))
            let descriptor = #"{"mediaType":"\#(MediaType.ociIndex)","digest":"\#(digest)","size":"#
            var size = 100
            var text = ""
            // Its own size, digits and all.
            while text.utf8.count != size {
                if !text.isEmpty { size = text.utf8.count }
                text = #"{"schemaVersion":2,"manifests":[\#(descriptor)\#(size)}]}"#
            }
            try $0.write(BytePath("blobs/sha256/\(digest.hex)"), Array(text.utf8))
            try $0.tag("\(descriptor)\(size)}")
        },
        HostileCase("20 indexes in each other", .refused("deep")) {
            var inner = try $0.blob("{}", MediaType.ociManifest)
            for _ in 0..<20 {
                inner = try $0.blob(#"{"schemaVersion":2,"manifests":[\#(inner)]}"#, MediaType.ociIndex)
            }
            try $0.tag(inner)
        },
        // 10^7 ways, of which each index is gone through once; what they end in is no manifest.
        HostileCase("indexes with ten ways to each of the next", .refused("schemaVersion")) {
            var inner = try $0.blob("{}", MediaType.ociManifest)
            for _ in 0..<7 {
                let ten = [String](repeating: inner, count: 10).joined(separator: ",")
                inner = try $0.blob(#"{"schemaVersion":2,"manifests":[\#(ten)]}"#, MediaType.ociIndex)
            }
            try $0.tag(inner)
        },
        HostileCase("a document that is index and manifest", .refused("ambiguous")) {
            try $0.image([entry("f") + endOfTar], manifest: { $0.dropLast() + ",\"manifests\":[]}" })
        },
        HostileCase("variables with a NUL", .refused("NUL")) {
            try $0.image(
                [entry("f") + endOfTar],
                config: { $0.replacing("\"config\":{}", "\"config\":{\"Env\":[\"A=b\\u0000c\"]}") })
        }.leaving(1),
    ]
}

extension String {
    fileprivate func replacing(_ old: String, _ new: String) -> String {
        guard let range = firstRange(of: old) else { return self }
        return self[..<range.lowerBound] + new + self[range.upperBound...]
    }
}
