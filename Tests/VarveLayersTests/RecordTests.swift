import VarveFormats
import VarveArchive
import DeltaChecks
import Glibc
import VarveSystem
import SystemPackage
import TestSupport
import Testing

@testable import VarveLayers

/// What is written down of a tree: the record, as a file and as an mtree file.
@Suite struct RecordTests {
    /// A tree with some of everything.
    static func tree() throws -> (base: TestDirectory, root: SharedDescriptor) {
        let base = try SharedVolume.directory()
        try base.shell(
            """
            mkdir -p t/d/e t/empty; cd t; printf 'a\\0b' > f; ln f d/g; truncate -s 3000000 sparse; printf x | dd of=sparse bs=1 seek=70001 conv=notrunc status=none
            ln -s 'to nowhere' link; mkfifo pipe; mknod null c 1 3; mknod disk b 259 70000; setfattr -n user.b -v 2 f; setfattr -n user.a -v '' f
            setfattr -n trusted.x -v y d; chmod 7751 d; chown 70000:4294967294 d/e; touch -d @-5.25 d/e; printf x > "$(printf 'n\\377\\n')"
            """)
        return (base, SharedDescriptor(try base.fd.openDirectory("t")))
    }

    @Test("A record that was written and read back says the same")
    func roundTrip() throws {
        let (base, root) = try Self.tree()
        defer { extendLifetime(base) }
        var record = try RecordedTree.scan(root.fd)
        record.trustChangeTimes(before: Timestamp(seconds: -3, nanoseconds: 999_999_999))
        let again = try RecordedTree(decoding: record.encoded)
        #expect(again.encoded == record.encoded && again.count == record.count && record.count == 12)
        guard case .everything(let trusted) = again.knowledge else { throw Errno.invalidArgument }
        #expect(trusted == Timestamp(seconds: -3, nanoseconds: 999_999_999))
        for readsAll in [false, true] {
            #expect(try Delta.compute(old: again, new: root.fd, readsAll: readsAll).changes == [])
        }
        // What a delta compares is in it: a change of any of it shows.
        for index in again.nodes.indices {
            for change in [
                { $0.status.mode ^= 1 }, { $0.status.uid ^= 1 }, { $0.status.gid ^= 1 },
                { $0.status.modificationTime.nanoseconds ^= 1 },
                { $0.attributes.append(ExtendedAttribute(name: "user.z", value: [])) },
            ] as [(inout RecordedTree.Node) -> Void] {
                var other = again
                change(&other.nodes[index])
                #expect(try Delta.compute(old: other, new: root.fd, readsAll: true).changes.count >= 1)
            }
        }
    }

    @Test("The time of a scan grows with the number of directories, however deep they lie")
    func deepTree() throws {
        let base = try SharedVolume.directory()
        defer { extendLifetime(base) }
        func time(_ depth: Int) throws -> Double {
            try base.shell(
                """
                mkdir t\(depth); cd t\(depth); python3 -c '
                import os
                for _ in range(\(depth)): os.mkdir("d"); os.chdir("d")'
                """)
            let root = SharedDescriptor(try base.fd.openDirectory(BytePath("t\(depth)")))
            return try ProcessorTime.least {
                let record = try RecordedTree.scan(root.fd)
                #expect(record.count == depth + 1)
            }
        }
        let (shallow, deep) = (try time(1_000), try time(8_000))
        #expect(ProcessorTime.isInProportion(shallow, toEightTimesAsMuch: deep), "\(shallow) \(deep)")
    }

    @Test("A record is refused wherever it is cut or changed")
    func damaged() throws {
        let (base, root) = try Self.tree()
        defer { extendLifetime(base) }
        let bytes = try RecordedTree.scan(root.fd).encoded
        for end in 0..<bytes.count {
            #expect(throws: RecordError.self) { try RecordedTree(decoding: Array(bytes[..<end])) }
        }
        for index in stride(from: 0, to: bytes.count, by: 7) {
            var changed = bytes
            changed[index] ^= 0x10
            #expect(throws: RecordError.self) { try RecordedTree(decoding: changed) }
        }
        #expect(throws: RecordError.self) { try RecordedTree(decoding: bytes + [0]) }
    }

    struct Impossible: Sendable, CustomTestStringConvertible {
        var testDescription: String
        /// Gets the first name in the root, a directory, and the file `f`.
        var change: @Sendable (inout RecordedTree, _ directory: Int, _ file: Int) -> Void
        init(_ says: String, _ change: @escaping @Sendable (inout RecordedTree, Int, Int) -> Void) {
            testDescription = says
            self.change = change
        }

        static func attributes(_ names: BytePath...) -> [ExtendedAttribute] {
            names.map { ExtendedAttribute(name: $0, value: []) }
        }
    }

    @Test(
        "A record is refused, whatever its checksum, if no tree can be like that",
        arguments: [
            Impossible("a file's name is a path") { tree, d, _ in tree.nodes[d].name = ".." },
            Impossible("a file's name is a path") { tree, d, _ in tree.nodes[d].name = "." },
            Impossible("a file's name is a path") { tree, d, _ in tree.nodes[d].name = "../x" },
            Impossible("a file has no name") { tree, d, _ in tree.nodes[d].name = .empty },
            Impossible("its names are out of order") { tree, _, _ in tree.nodes[0].children.reverse() },
            Impossible("its names are out of order") { tree, d, _ in tree.nodes[0].children.insert(d, at: 0)
            },
            Impossible("a number is too large") { tree, _, f in tree.nodes[f].status.size = -1 },
            Impossible("a number is too large") { tree, _, f in
                tree.nodes[f].status.modificationTime.nanoseconds = 1_000_000_000
            },
            Impossible("its attributes are out of order") { tree, _, f in
                tree.nodes[f].attributes = Impossible.attributes("user.b", "user.a")
            },
            Impossible("its attributes are out of order") { tree, _, f in
                tree.nodes[f].attributes = Impossible.attributes("user.a", "user.a")
            },
            Impossible("a symbolic link leads to nothing") { tree, _, f in
                tree.nodes[f].status.mode = VarveSystem.FileType.symbolicLink.rawValue | 0o777
            },
        ])
    func impossible(_ test: Impossible) throws {
        let (base, root) = try Self.tree()
        defer { extendLifetime(base) }
        var record = try RecordedTree.scan(root.fd)
        let file = try #require(record.find("f", in: RecordedTree.root))
        test.change(&record, record.nodes[0].children[0], file)
        let error = try #require(throws: RecordError.self) { try RecordedTree(decoding: record.encoded) }
        #expect(error.description == test.testDescription)
    }

    @Test("An mtree file gives the tree that it was made of, as far as it can tell")
    func mtree() throws {
        let (base, root) = try Self.tree()
        defer { extendLifetime(base) }
        let text = try RecordedTree.scan(root.fd).mtree
        let record = try RecordedTree(mtree: text, written: .now(), root: root.fd)
        #expect(try Delta.compute(old: record, new: root.fd).changes == [])
        // Linked files are one file again.
        let names = record.nodes.filter { $0.name == "f" || $0.name == "g" }.map(\.status.inode)
        #expect(names.count == 2 && Set(names).count == 1)
    }

    @Test("An mtree file costs in proportion, however deep it nests and however much its /set says")
    func mtreeGrowth() throws {
        let (base, root) = try Self.tree()
        defer { extendLifetime(base) }
        func time(_ text: String) throws -> Double {
            let bytes = Array(("#mtree\n/set type=dir uid=0 gid=0 mode=0755 nlink=1 time=1\n" + text).utf8)
            return try ProcessorTime.least {
                _ = try RecordedTree(mtree: bytes, written: .now(), root: root.fd)
            }
        }
        // A file with more links than names at the bottom, which is looked for in the tree.
        func deep(_ count: Int) -> String {
            ". \n" + String(repeating: "a\n", count: count) + "f type=fifo nlink=3\n"
        }
        func words(_ count: Int) -> String {
            "/set type=dir uid=0 gid=0 mode=0755 nlink=1 time=1" + String(repeating: " a", count: count)
                + "\n. \n"
                + (0..<count).map { "b\($0)\n..\n" }.joined()
        }
        func attributes(_ count: Int) -> String {
            ". " + (0..<count).map { "xattr.user.\($0)=" }.joined(separator: " ") + "\n"
        }
        for shape in [deep, words, attributes] {
            #expect(
                try ProcessorTime.isInProportion(time(shape(1_000)), toEightTimesAsMuch: time(shape(8_000))))
        }
        #expect(throws: RecordError.self) {
            try time(
                "/set" + (0..<65).map { " xattr.user.\($0)=" }.joined()
                    + "\n. type=dir uid=0 gid=0 mode=0755 nlink=1 time=1\n")
        }
    }

    @Test("What an mtree file gives all files is short, and read once")
    func commonAttributes() throws {
        let (base, root) = try Self.tree()
        defer { extendLifetime(base) }
        func nodes(_ size: Int) throws -> [RecordedTree.Node] {
            let value = String(repeating: "A", count: size)
            let text =
                "/set type=dir uid=0 gid=0 mode=0755 nlink=1 time=1 xattr.user.a=\(value)\n. \na\n..\nb xattr.user.b=AAAA\n..\n"
            return try RecordedTree(mtree: Array(text.utf8), written: .now(), root: root.fd).nodes
        }
        let read = try nodes(3_600)
        #expect(read.map { $0.attributes.map(\.name) } == [["user.a"], ["user.a"], ["user.a", "user.b"]])
        #expect(read.allSatisfy { $0.attributes.first?.value.count == 2_700 })
        #expect(throws: RecordError.self) { try nodes(4_400) }
    }

    @Test("Reading and comparing an mtree file ends when it is told to")
    func mtreeCancellation() throws {
        struct Stop: Error {}
        let (base, root) = try Self.tree()
        defer { extendLifetime(base) }
        let bytes = Array(Self.nested(3).utf8)
        #expect(throws: Stop.self) {
            try RecordedTree(mtree: bytes, written: .now(), root: root.fd, onEntry: { throw Stop() })
        }
        let tree = try RecordedTree(mtree: bytes, written: .now(), root: root.fd)
        #expect(throws: Stop.self) {
            try MtreeDifference.differences(
                from: tree, to: tree, keywords: RecordedTree.mtreeKeywords, onEntry: { throw Stop() })
        }
    }

    /// Directories in each other.
    private static func nested(_ count: Int, mode: String = "0755", last: String = "0755") -> String {
        "/set type=dir uid=0 gid=0 mode=0755 nlink=1 time=1\n. \n"
            + String(repeating: "a mode=\(mode)\n", count: count)
            + "b mode=\(last)\n"
    }

    @Test("Differences are told of by paths that somebody can ask for")
    func deepDifferences() throws {
        let (base, root) = try Self.tree()
        defer { extendLifetime(base) }
        func differences(_ old: String, _ new: String) throws -> [MtreeDifference] {
            let trees = try [old, new].map {
                try RecordedTree(mtree: Array($0.utf8), written: .now(), root: root.fd)
            }
            return try MtreeDifference.differences(
                from: trees[0], to: trees[1], keywords: RecordedTree.mtreeKeywords)
        }
        #expect(try differences(Self.nested(5_000), Self.nested(5_000)).isEmpty)
        let near = try differences(Self.nested(2), Self.nested(2, last: "0700"))
        #expect(near.map(\.path) == ["a/a/b"])
        // Those that are missing as far as there are paths, and each that differs but the deepest, which are one.
        #expect(
            try differences(Self.nested(5_000), ". type=dir uid=0 gid=0 mode=0755 nlink=1 time=1\n").count
                == 2_048)
        let changed = try differences(Self.nested(5_000), Self.nested(5_000, mode: "0700"))
        #expect(changed.count == 2_048)
        #expect(changed.allSatisfy { $0.path.count < 4_096 })
        let deepest = try differences(Self.nested(5_000), Self.nested(5_000, last: "0700"))
        #expect(deepest.count == 1)
    }

    struct WrongText: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var text: String
        var says: String
    }

    private static let sha = String(repeating: "0a", count: 32)
    private static let root = "/set uid=0 gid=0 nlink=1 time=1\n. type=dir mode=0755\n"

    @Test(
        "An mtree file is refused with the line at fault",
        arguments: [
            WrongText(
                testDescription: "a name that stands twice",
                text: root + "a type=fifo mode=0\na type=fifo mode=0\n", says: "line 4: \"a\" is there twice"),
            WrongText(
                testDescription: "a name twice, once by its path",
                text: root + "a type=fifo mode=0\n./a type=fifo mode=0\n",
                says: "line 4: \"./a\" is there twice"),
            WrongText(
                testDescription: "a link that leads nowhere", text: root + "l type=link mode=0777\n",
                says: "line 3: it lacks link"),
            WrongText(
                testDescription: "a size below zero",
                text: root + "f type=file mode=0644 size=-1 sha256=\(sha)\n",
                says: "line 3: size=-1 is no value for that"),
            WrongText(
                testDescription: "a last line that goes on", text: root + "f type=fifo mode=0 \\",
                says: "its last line goes on, and there is no more"),
        ])
    func wrongText(_ test: WrongText) throws {
        let root = try SharedVolume.directory()
        let error = try #require(throws: RecordError.self) {
            try RecordedTree(mtree: Array(test.text.utf8), written: .epoch, root: root.fd)
        }
        #expect(error.description == test.says)
    }

    @Test("What an mtree file says of attributes, links and sockets is kept as an image has it")
    func textKept() throws {
        let root = try SharedVolume.directory()
        let text =
            Self.root + "/set uid=0 gid=0 nlink=1 time=1 xattr.user.a=dg==\n"
            + "d type=dir mode=0 xattr.user.a=dw== link=x\n..\ns type=socket mode=0\n"
        let tree = try RecordedTree(mtree: Array(text.utf8), written: .epoch, root: root.fd)
        #expect(tree.nodes.map(\.name) == ["", "d"])
        #expect(tree.nodes[1].attributes == [ExtendedAttribute(name: "user.a", value: Array("w".utf8))])
        #expect(tree.nodes[1].target.isEmpty)
        // A name with = in it is told from its value.
        var other = tree
        other.nodes[1].attributes[0].name = "user.a=b"
        let again = try RecordedTree(mtree: other.mtree, written: .epoch, root: root.fd)
        #expect(again.nodes[1].attributes == other.nodes[1].attributes)
    }

    struct Name: Sendable {
        var plain: [UInt8]
        var encoded: String
    }

    @Test(
        "Names are encoded as go-mtree does it",
        arguments: [
            Name(plain: Array("plain-._=~%".utf8), encoded: "plain-._=~%"),
            Name(plain: Array("a b\t\n".utf8), encoded: "a\\040b\\011\\012"),
            Name(plain: Array("#*?[]".utf8), encoded: "\\043\\052\\077\\133]"),
            Name(plain: Array("back\\slash".utf8), encoded: "back\\\\slash"),
            Name(plain: [0xc3, 0xa9, 0xff, 0x7f, 0x01], encoded: "\\303\\251\\377\\177\\001"),
        ])
    func names(_ name: Name) {
        #expect(VisEncoding.encode(name.plain) == Array(name.encoded.utf8))
        #expect(VisEncoding.decode(name.encoded.utf8) == name.plain)
    }

    @Test("Other styles of vis(3) are read, and what is none is not")
    func styles() {
        #expect(
            VisEncoding.decode("\\s\\n\\t\\^A\\^?\\M-a\\M^A\\7x\\#".utf8) == [
                0x20, 0x0a, 0x09, 0x01, 0x7f, 0xe1, 0x81, 0x07, 0x78, 0x23,
            ])
        for wrong in ["\\", "\\q", "\\777", "\\M", "\\Mx", "\\^"] {
            #expect(VisEncoding.decode(wrong.utf8) == nil, "\(wrong)")
        }
    }

    @Test("Base64 as RFC 4648, section 10, has it")
    func base64() {
        for (plain, encoded) in [
            ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            #expect(Base64.encode(Array(plain.utf8)) == Array(encoded.utf8))
            #expect(Base64.decode(Array(encoded.utf8)) == Array(plain.utf8))
        }
        #expect(Base64.decode("Zg".utf8) == Array("f".utf8))
        for wrong in ["Z", "====", "Z===", "Zm\n8="] {
            #expect(Base64.decode(wrong.utf8) == nil, "\(wrong)")
        }
    }
}
