import VarveFormats
import VarveStore
import Testing

@Suite struct TOMLTests {
    @Test func everyKindOfValue() throws {
        let table = try TOMLTable(
            parsing: Array(
                """
                # A comment.
                name = "a \\"b\\" \\u00e9\\t" # behind it
                'literal key' = 'C:\\x'
                [one.two]
                number = -1_000
                yes = true
                list = [ 1, # one
                    "two",
                    [],
                ]
                [one]
                "quoted.key" = { a = 1, b = ["x"] }
                dotted.a = 1
                dotted.b = 2\r

                """.utf8))
        #expect(table["name"] == .string("a \"b\" é\t"))
        #expect(table["literal key"] == .string("C:\\x"))
        guard case .table(let one) = table["one"], case .table(let two) = one["two"],
            case .table(let quoted) = one["quoted.key"], case .table(let dotted) = one["dotted"]
        else {
            Issue.record("a table is missing")
            return
        }
        #expect(two["number"] == .integer(-1000))
        #expect(two["yes"] == .boolean(true))
        #expect(two["list"] == .array([.integer(1), .string("two"), .array([])]))
        #expect(quoted["b"] == .array([.string("x")]))
        #expect(dotted["b"] == .integer(2))
        #expect(one.members.first { $0.key == "quoted.key" }?.line == 12)
    }

    struct Case: Sendable, CustomStringConvertible {
        var text: String
        var line: Int
        var reason: String
        var description: String { text }
        init(_ text: String, _ line: Int, _ reason: String) {
            self.text = text
            self.line = line
            self.reason = reason
        }
    }

    @Test(arguments: [
        Case("a = 1\na = 2", 2, "\"a\" is set twice"),
        Case("[a]\n[b]\n[a]", 3, "the table \"a\" stands here twice"),
        Case("a = {}\n[a]", 2, "the table \"a\" was written whole before"),
        Case("a = {}\na.b = 1", 2, "the table \"a\" cannot be added to from here"),
        Case("a.b = 1\n[a]", 2, "the table \"a\" was made by dotted keys before"),
        Case("a = 1\na.b = 1", 2, "\"a\" is set already, and is no table"),
        Case("[[a]]", 1, "an array of tables has no meaning here"),
        Case("a = 1.5", 1, "the value is not a string in quotes, a whole number, true or false"),
        Case("a = 2020-01-01", 1, "the value is not a string in quotes, a whole number, true or false"),
        Case("a = 007", 1, "the value is not a string in quotes, a whole number, true or false"),
        Case("a = 9223372036854775808", 1, "the number does not fit 64 bits"),
        Case("a = \"\"\"x\"\"\"", 1, "a string of several lines is not taken here"),
        Case("a = \"\\ud800\"", 1, "an escape in a string names no character"),
        Case("a = \"x\ny\"", 1, "a string does not end on its line"),
        Case("a = [1, 2", 1, "an array has no closing bracket"),
        Case("a = { b = 1,\n c = 2 }", 1, "it is not key = value"),
        Case("a = 1 b = 2", 1, "there is something behind the value"),
        Case("a", 1, "it is not key = value"),
        Case("= 1", 1, "it is not key = value"),
        Case("a =", 1, "the value is not a string in quotes, a whole number, true or false"),
        Case("# \u{1}", 1, "a control character stands in a comment"),
        Case("a = " + String(repeating: "[", count: 100_000), 1, "values are nested too deep"),
        // Each part is a table in another.
        Case("a" + String(repeating: ".a", count: 100_000) + " = 1", 1, "a key has too many parts"),
        Case("[a" + String(repeating: ".a", count: 100_000) + "]", 1, "a key has too many parts"),
        Case(
            "\(String(repeating: "x", count: 300)) = 1\n\(String(repeating: "x", count: 300)) = 1", 2,
            "\"\(String(repeating: "x", count: 200))…\" is set twice"),
    ])
    func wrong(_ test: Case) {
        let error = #expect(throws: TOMLError.self) { try TOMLTable(parsing: Array(test.text.utf8)) }
        #expect(error?.line == test.line)
        #expect(error?.reason == test.reason)
    }

    @Test func notText() {
        let error = #expect(throws: TOMLError.self) {
            try TOMLTable(parsing: Array("a = 1\n\n".utf8) + [0xff])
        }
        #expect(error?.line == 3)
        #expect(error?.reason == "it is not UTF-8")
    }
}
