import VarveFormats
import VarveSystem
import TestSupport
import Testing

@Suite struct ShownTextTests {
    @Test(
        "What could steer a terminal is escaped, byte by byte, and nothing else",
        arguments: [
            ("plain é 漢 😀", "plain é 漢 😀"), ("", ""), ("a\u{1b}[31mb", #"a\x1b[31mb"#), ("\u{7}", #"\x07"#),
            ("a\nb\rc\td", #"a\x0ab\x0dc\x09d"#), ("\u{7f}", #"\x7f"#),
            ("a\u{80}\u{9b}31m", #"a\xc2\x80\xc2\x9b31m"#),
            ("\u{9f}\u{a0}", "\\xc2\\x9f\u{a0}"), ("\u{202e}gpj.exe", #"\xe2\x80\xaegpj.exe"#),
            ("\u{202a}\u{202d}", #"\xe2\x80\xaa\xe2\x80\xad"#),
            ("\u{2066}\u{2069}", #"\xe2\x81\xa6\xe2\x81\xa9"#),
            ("\u{200e}\u{200f}\u{61c}", #"\xe2\x80\x8e\xe2\x80\x8f\xd8\x9c"#),
            ("\u{2028}\u{2029}", #"\xe2\x80\xa8\xe2\x80\xa9"#),
            ("\u{200d}\u{2065}\u{206a}", "\u{200d}\u{2065}\u{206a}"),
            (#"back\slash"#, #"back\x5cslash"#),
        ])
    func text(_ text: String, _ shown: String) {
        #expect(BytePath.escape(text.utf8) == shown)
        #expect(BytePath(text).description == shown)
        #expect(ShownText.isPlain(text) == (text == shown || text.contains("\\")))
    }

    @Test(
        "What is not UTF-8 is escaped",
        arguments: [
            ([0xff, 0x41, 0x9b], #"\xffA\x9b"#), ([0xc0, 0x80], #"\xc0\x80"#),
            ([0xed, 0xa0, 0x80], #"\xed\xa0\x80"#),
            ([0xe2, 0x82], #"\xe2\x82"#), ([0xf4, 0x90, 0x80, 0x80], #"\xf4\x90\x80\x80"#),
            ([0xc2], #"\xc2"#),
            ([0xe2, 0x80, 0x41], #"\xe2\x80A"#), ([0xc3, 0xa9, 0xc3], #"é\xc3"#),
            ([0xf0, 0x8f, 0xbf, 0xbf], #"\xf0\x8f\xbf\xbf"#),
        ] as [([UInt8], String)])
    func bytes(_ bytes: [UInt8], _ shown: String) { #expect(BytePath.escape(bytes) == shown) }

    @Test func linesAndTextThatIsEscapedAlready() {
        let bytes = Array("a\\x1b\nb\u{1b}\n".utf8)
        #expect(ShownText.of(bytes[...], escapesBackslash: false, keepsNewlines: true) == "a\\x1b\nb\\x1b\n")
        #expect(ShownText.of(bytes[...], escapesBackslash: false) == "a\\x1b\\x0ab\\x1b\\x0a")
    }

    @Test("A shell reads a path back from its word")
    func shellWords() throws {
        #expect(BytePath("/srv/a-b_c.d:e").shellWord == "/srv/a-b_c.d:e")
        #expect(BytePath("mon day").shellWord == "'mon day'")
        for bytes: [UInt8] in [
            Array("a b".utf8), Array("it's".utf8), Array("$(x) `y` \\ \" *?[]{}~!#&|;<>".utf8),
            Array("a\nb\u{1b}7\u{9b}".utf8),
            Array("\u{202e}é".utf8), [0xff, 0x31, 0x27], Array("~".utf8), Array("'".utf8),
            Array("\\'\n".utf8),
        ] {
            let path = try #require(BytePath(bytes))
            let word = path.shellWord
            #expect(ShownText.isPlain(word), "\(word)")
            #expect(try runSuccessfully(["bash", "-c", "printf %s \(word)"]).output == bytes, "\(word)")
        }
        #expect(
            try runSuccessfully(["bash", "-c", "set -- \(BytePath("").shellWord); echo $#"]).outputText
                == "1\n")
    }

    @Test("What begins with a dash is no option on a command line")
    func dashes() throws {
        #expect(BytePath("-x").shellWord == "./-x" && BytePath("-x y").shellWord == "'./-x y'")
        #expect(BytePath("-x").shellOperand == "-- -x" && BytePath("x-").shellOperand == "x-")
        #expect(BytePath("-x").shellQuoted == "-x")
    }

    @Test(
        "A path that is cleaned does not leave its root",
        arguments: [
            ("a/../b", "b"), ("/../../etc", "etc"), ("..", ""), ("a/./b//c/", "a/b/c"), ("a/../../b/..", ""),
            ("", ""),
        ] as [(BytePath, BytePath)])
    func cleaned(_ path: BytePath, _ result: BytePath) { #expect(path.cleaned == result) }
}
