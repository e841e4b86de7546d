import Archive
import DeltaChecks
import Glibc
import SystemCalls
import SystemPackage
import TestSupport
import Testing

@testable import Layers

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
