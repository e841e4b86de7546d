import VarveFormats
import VarveOCI
import Testing

@Suite struct JSONTests {
    @Test(arguments: [
        // Order, and numbers in the digits they came in, beyond what Double or Int64 hold.
        #"{"z":1,"a":1.50,"big":123456789012345678901234567890,"e":1E+400,"neg":-0}"#,
        #"[[],{},[{"a":[null,true,false]}],""]"#,
        // Decomposed and composed spellings are different keys.
        "{\"e\u{301}\":1,\"\u{e9}\":2}",
        #""\"\\\n\r\t\u0001é 😀""#,
        "0", "-1.5e3", "null",
    ])
    func survivesUnchanged(_ text: String) throws {
        #expect(String(decoding: try json(text).serialized(), as: UTF8.self) == text)
    }

    @Test("What could steer a terminal is escaped, and is the same text") func controls() throws {
        let text = "é\u{7f}\u{9b}31m\u{85}\u{61c}\u{202e}\u{2028}\u{2066}\u{200f}‰\u{a0}😀"
        let written = String(decoding: JSONValue.string(text).serialized(), as: UTF8.self)
        #expect(
            written
                == "\"é\\u007f\\u009b31m\\u0085\\u061c\\u202e\\u2028\\u2066\\u200f‰\u{a0}😀\"")
        #expect(try json(written).string.map { Array($0.utf8) } == Array(text.utf8))
    }

    @Test func readsEscapes() throws {
        #expect(try json(#""\u003c\ud83d\ude00\/\b\f""#).string == "<😀/\u{8}\u{c}")
        #expect(try json(" \t\r\n{ \"a\" : [ 1 , 2 ] } \n").serialized() == Array(#"{"a":[1,2]}"#.utf8))
    }

    @Test func writesPretty() throws {
        let text = String(
            decoding: try json(#"{"a":[1,{}],"b":{"c":[]}}"#).serialized(pretty: true), as: UTF8.self)
        #expect(text == "{\n\t\"a\": [\n\t\t1,\n\t\t{}\n\t],\n\t\"b\": {\n\t\t\"c\": []\n\t}\n}\n")
    }

    struct Hostile: Sendable, CustomTestStringConvertible {
        var name: String
        var bytes: [UInt8]
        var reason: String
        var testDescription: String { name }
        init(_ name: String, _ text: String, _ reason: String) { self.init(name, Array(text.utf8), reason) }
        init(_ name: String, _ bytes: [UInt8], _ reason: String) {
            self.name = name
            self.bytes = bytes
            self.reason = reason
        }
    }

    @Test(arguments: [
        // Would overflow the stack of a recursive reader.
        Hostile("deep arrays", String(repeating: "[", count: 1_000_000), "levels"),
        Hostile("deep objects", String(repeating: "{\"a\":", count: 300_000), "levels"),
        // Which of the two counts depends on the reader.
        Hostile("duplicate key", #"{"layers":[],"layers":[1]}"#, "twice"),
        Hostile("duplicate key, escaped", #"{"a":1,"\u0061":2}"#, "twice"),
        Hostile(
            "duplicate among many", "{" + (0..<40).map { "\"k\($0)\":0," }.joined() + "\"k7\":1}", "twice"),
        Hostile("invalid UTF-8", [0x22, 0xff, 0x22], "UTF-8"),
        Hostile("overlong slash", [0x22, 0xc0, 0xaf, 0x22], "UTF-8"),
        Hostile("half a surrogate", #""\ud800""#, "surrogate"),
        Hostile("the other half", #""\udc00x""#, "surrogate"),
        Hostile("a byte order mark", [0xef, 0xbb, 0xbf] + Array("{}".utf8), "value was expected"),
        Hostile("raw control character", "\"a\nb\"", "control"),
        Hostile("trailing text", "{} {}", "after the end"),
        Hostile("trailing comma", "[1,]", "value was expected"),
        Hostile("leading zero", "01", "after the end"),
        Hostile("a bare dot", "1.", "digit"),
        Hostile("not a number", "NaN", "value was expected"),
        Hostile("unfinished", #"{"a""#, "colon"),
        Hostile("unfinished string", #""abc"#, "no end"),
        Hostile("unfinished escape", #""\u00"#, "hexadecimal"),
        Hostile("mismatched bracket", "[1}", "missing"),
        Hostile("empty", "", "ends early"),
        Hostile("cut word", "tru", "value was expected"),
    ])
    func refuses(_ test: Hostile) {
        let error = #expect(throws: JSONSyntaxError.self) { try JSONValue(parsing: test.bytes) }
        #expect(error?.reason.contains(test.reason) == true, "\(error.map(String.init(describing:)) ?? "")")
    }

    @Test func takesTheDeepestThatIsAllowed() throws {
        let text = String(repeating: "[", count: 512) + String(repeating: "]", count: 512)
        #expect(String(decoding: try json(text).serialized(), as: UTF8.self) == text)
    }

    /// No single cut or flipped byte of a document traps.
    @Test func survivesMutations() {
        let document = Array(#"{"a":[1.5e3,"x\u00e9\n",{"b":null}],"c":true}"#.utf8)
        for index in document.indices {
            _ = try? JSONValue(parsing: Array(document[..<index]))
            for bit in 0..<8 {
                var copy = document
                copy[index] ^= 1 << UInt8(bit)
                _ = try? JSONValue(parsing: copy)
            }
        }
    }
}
