import VarveSystem
import Testing

@Suite struct BytePathTests {
    struct Parts: Sendable {
        var path: BytePath
        var parent: BytePath
        var last: BytePath
        var components: [BytePath]
    }

    @Test(arguments: [
        Parts(path: "", parent: "", last: "", components: []),
        Parts(path: "a", parent: "", last: "a", components: ["a"]),
        Parts(path: "a/b", parent: "a", last: "b", components: ["a", "b"]),
        // A slash at the end does not make another component.
        Parts(path: "a/b/", parent: "a", last: "b", components: ["a", "b"]),
        Parts(path: "a//b", parent: "a", last: "b", components: ["a", "b"]),
        Parts(path: "/", parent: "", last: "", components: []),
        Parts(path: "/a", parent: "/", last: "a", components: ["a"]),
        Parts(path: "/a/b", parent: "/a", last: "b", components: ["a", "b"]),
    ])
    func parts(_ parts: Parts) {
        #expect(parts.path.parent == parts.parent)
        #expect(parts.path.lastComponent == parts.last)
        #expect(parts.path.components == parts.components)
    }

    @Test func namesAreBytes() {
        let path = BytePath([0x66, 0xff, 0x5c, 0x0a])
        #expect(path?.string == nil)
        #expect(path?.description == "f\\xff\\x5c\\x0a")
        // A name in UTF-8 is shown as it is.
        #expect(BytePath("grün").description == "grün")
        #expect(BytePath([0x61, 0, 0x62]) == nil)
    }

    /// Byte order: the slash counts, and a prefix comes before what it begins.
    @Test func order() {
        let sorted: [BytePath] = ["", "-x", ".", "a", "a-b", "a/b", "ab", "b"]
        #expect(sorted.reversed().sorted() == sorted)
        #expect(!(sorted[3] < sorted[3]))
    }

    @Test func cleaned() {
        for (path, cleaned) in [
            ("", ""), ("/", ""), (".", ""), ("..", ""), ("a", "a"), ("/a//b/", "a/b"), ("./a/./b/.", "a/b"),
            ("a/..", ""), ("a/../b", "b"), ("../../a", "a"), ("a/b/../c", "a/c"), ("a/b/../../..", ""),
            ("...", "..."), ("a/.b/..c", "a/.b/..c"), ("/a/../../b/c/..", "b"),
        ] {
            #expect(BytePath(path).cleaned == BytePath(cleaned), "\(path)")
            #expect(BytePath(path).firstComponent == BytePath(path).components.first, "\(path)")
            #expect(BytePath(path).parts.map(Array.init) == BytePath(path).components.map { Array($0.bytes) })
        }
    }

    @Test func joining() {
        #expect(BytePath("a").appending("b") == "a/b")
        #expect(BytePath("/").appending("b") == "/b")
        #expect(BytePath("").appending("b") == "b")
        #expect(BytePath("a").appendingBytes(".x") == "a.x")
    }
}
