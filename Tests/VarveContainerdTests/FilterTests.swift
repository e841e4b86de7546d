import Testing
import VarveStore
import VarveSystem

@testable import VarveContainerd

/// The filters of List: containerd's language, and what is no filter.
@Suite struct FilterTests {
    private static let record = SnapshotRecord(
        key: SnapshotKey("k8s.io/7/sha256:ab"), kind: .committed, parent: SnapshotKey("p q"),
        labels: ["containerd.io/gc.root": "now", "l": "1", "a.b": "c"], time: .epoch, tree: 4)

    struct Case: Sendable, CustomTestStringConvertible {
        var filter: String
        var matches: Bool
        var testDescription: String { filter }
        init(_ filter: String, _ matches: Bool) { (self.filter, self.matches) = (filter, matches) }
    }

    static let cases = [
        Case("", true), Case("kind==committed", true), Case("kind==active", false),
        Case("kind != active", true),
        Case("name==k8s.io/7/sha256:ab", true), Case(#"parent=="p q""#, true), Case(#"parent=='p q'"#, true),
        Case(#"parent!="""#, true), Case(#"parent=="""#, false),
        // A label's name holds dots: they are one field when quoted, and several that are joined when not.
        Case(#"labels."containerd.io/gc.root""#, true), Case(#"labels."containerd.io/gc.root"==now"#, true),
        Case("labels.a.b==c", true), Case("labels.l", true), Case("labels.m", false), Case("labels", false),
        Case("labels.m!=x", true), Case("unknown", false), Case("kind==committed,labels.l==1", true),
        Case("kind==committed,labels.l==2", false), Case(" kind == committed , labels.l ", true),
        Case("name~=^k8s", true), Case("name~=^sha256", false), Case("name~=sha256:[0-9a-f]+$", true),
        Case("name~=|/[0-9]/|", true), Case("name~=/k8s.(io|me)/", true),
        Case(#"parent=="\x70\u0020\161""#, true),
    ]

    @Test(arguments: cases) func matches(_ item: Case) throws {
        #expect(try SnapshotFilter(item.filter).matches(Self.record) == item.matches)
    }

    @Test(arguments: [
        "kind=committed", "kind==", "==committed", "kind==a b", "labels.", "labels.\"x", "name~=(",
        "name~=a)",
        "name~=[a", "name~=*", #"name=="\q""#, "kind==committed,", "name~=a{2001}", "name~=[b-a]",
        "name~=((((a{1000}){1000}){1000}){1000})", "name~=(((((){1000}){1000}){1000}){1000})",
        "name~=" + String(repeating: "(", count: 5000),
    ])
    func refuses(_ filter: String) throws {
        let error = #expect(throws: ServiceError.self) { try SnapshotFilter(filter) }
        #expect(error?.code == .invalidArgument)
    }

    /// A label is found by the bytes of its name.
    @Test func namesOfLabelsAreBytes() throws {
        let record = SnapshotRecord(
            key: SnapshotKey("k"), kind: .committed, parent: SnapshotKey(""), labels: ["e\u{301}": "1"],
            time: .epoch, tree: 4)
        #expect(try SnapshotFilter("labels.\"e\u{301}\"").matches(record))
        #expect(try !SnapshotFilter("labels.\"\u{e9}\"").matches(record))
    }

    /// One of several filters is enough; none at all match everything.
    @Test func any() throws {
        let two = try [SnapshotFilter("kind==view"), SnapshotFilter("labels.l")]
        #expect(SnapshotFilter.anyMatches(two, Self.record))
        #expect(SnapshotFilter.anyMatches([], Self.record))
        #expect(try !SnapshotFilter.anyMatches([SnapshotFilter("kind==view")], Self.record))
    }

    struct Pattern: Sendable, CustomTestStringConvertible {
        var pattern: String
        var text: String
        var matches: Bool
        var testDescription: String { "\(pattern) in \(text)" }
        init(_ pattern: String, _ text: String, _ matches: Bool) {
            (self.pattern, self.text, self.matches) = (pattern, text, matches)
        }
    }

    @Test(arguments: [
        Pattern("a", "bab", true), Pattern("^a", "ba", false), Pattern("a$", "ab", false),
        Pattern("^$", "", true),
        Pattern("^(ab|cd){2}$", "abcd", true), Pattern("^(ab|cd){2}$", "abcdab", false),
        Pattern("^a{2,}$", "aaaa", true),
        Pattern("^a{2,3}$", "aaaa", false), Pattern("^a?b*c+$", "bbc", true),
        Pattern("^a?b*c+$", "abb", false),
        Pattern(#"^\d+\.\d+$"#, "12.5", true), Pattern(#"^\w+\s\W$"#, "a_1 -", true),
        Pattern("^[^a-c]+$", "xyz", true),
        Pattern("^[^a-c]+$", "xbz", false), Pattern("^[]a]$", "]", true), Pattern("^[a-]$", "-", true),
        Pattern("^.$", "\n", false), Pattern("^.$", "é", true), Pattern("a{x}", "a{x}", true),
        Pattern("", "x", true),
        Pattern("^(?:a|b)*?c", "abac", true), Pattern("x|", "y", true),
    ])
    func pattern(_ item: Pattern) throws {
        #expect(try LinearPattern(item.pattern).matches(item.text) == item.matches)
    }

    /// What keeps a backtracking matcher busy for longer than the universe lasts costs as many steps as the text has characters.
    @Test func hostilePattern() throws {
        let pattern = try LinearPattern("^(a|a|aa)*(a*)*(a*)*b$")
        #expect(!pattern.matches(String(repeating: "a", count: 4000)))
    }
}
