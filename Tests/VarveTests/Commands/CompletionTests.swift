import SystemPackage
import TestSupport
import Testing
import VarveStore
import VarveSystem

@testable import VarveCommands

/// What completion finds. How shells take it, Scripts/completion-test tries at a terminal.
@Suite struct CompletionTests {
    private static func words(_ line: String..., variables: [String: String] = [:]) -> [String] {
        Completion(after: line.dropLast(), line.last ?? "", CommandEnvironment(variables)).candidates.map(
            \.word)
    }

    @Test(
        "Commands, options and choices are found where they may stand",
        arguments: [
            (["unp"], ["unpack"]), (["snapshot", "re"], ["restore"]), (["--log", "d"], ["debug"]),
            (["--log", "info", "--no-progress", "unp"], ["unpack"]),
            (["unpack", "--root"], ["--rootless"]), (["repack", "--compress=z"], ["--compress=zstd"]),
            (["unpack", "--rootless", "--root"], []),
            (["unpack", "--uid-map", "0:1:2", "--uid"], ["--uid-map"]),
            (["unpack", "--driver", "h"], ["hooks"]), (["diff", "--", "--for"], []),
            (["run", "b", "sh", "--cap"], []),
            (["run", "--cap-a"], ["--cap-add"]), (["frobnicate", "x"], []),
            (["unpack", "--log-f"], ["--log-format"]),
            (["hook", "bundle."], ["bundle.pre-remove"]), (["push", "x", "oci-"], ["oci-archive:"]),
        ])
    func places(_ line: [String], _ expected: [String]) {
        let found = Completion(after: line.dropLast(), line.last ?? "", CommandEnvironment([:]))
        #expect(found.candidates.map(\.word) == expected)
    }

    @Test("Every command of the help is found, and every option of each has a name")
    func everything() {
        let names = Self.words("")
        #expect(names.contains("unpack") && names.contains("store") && names.count > 15)
        for name in names {
            let options = Self.words(name, "--")
            #expect(options.contains("--store") && options.allSatisfy { $0.hasPrefix("--") }, "\(name)")
        }
        #expect(Self.words("store", "").contains("gc"))
        #expect(
            Set(Self.words("store", "gc", "--")).isSuperset(of: [
                "--free", "--store", "--log-format", "--sync",
            ]))
    }

    @Test("Names come from the directories of a store, and nothing is written")
    func names() throws {
        let volume = try LoopVolume()
        let (store, layout) = (volume.path.appending("store"), volume.path.appending("L"))
        #expect(varve("--store", store, "store", "init").code == 0)
        #expect(varve("init", "--layout", layout).code == 0)
        #expect(varve("new", "--image", layout.appendingBytes(":one")).code == 0)
        try shell("mkdir \"$1/bundles\" \"$1/containerd\" \"$1/containerd/node\" \"$1/work\"/x", store)
        let bundle = store.appending("bundles").appending("b")
        #expect(varve("unpack", "--image", layout.appendingBytes(":one"), bundle).code == 0)
        for name in ["monday", "tuesday", "two words"] {
            #expect(varve("snapshot", "create", bundle, BytePath(name)).code == 0)
        }
        // Files that were put there by hand, and what is on its way.
        try shell("touch \"$1/snapshots/file\"; mkdir \"$1/snapshots/.hidden\"; touch \"$1/chains/x\"", store)
        let before = try shell(asText: "find \"$1\" -printf '%p %A@ %C@\\n' | sort", store)
        let variables = ["VARVE_STORE": "\(store)"]
        #expect(Self.words("snapshot", "rm", "", variables: variables) == ["monday", "tuesday", "two words"])
        #expect(Self.words("snapshot", "rm", "monday", "tu", variables: variables) == ["tuesday"])
        #expect(Self.words("bundle", "rm", "", variables: variables) == ["\(bundle)"])
        #expect(Self.words("containerd", "forget", "", variables: variables) == ["node"])
        #expect(Self.words("diff", "m", variables: variables) == ["monday"])
        #expect(Self.words("--store", "\(store)", "snapshot", "rm", "m") == ["monday"])
        #expect(Self.words("snapshot", "rm", "--store=\(store)", "m") == ["monday"])
        #expect(Self.words("stat", "--image", "\(layout):") == ["\(layout):one"])
        #expect(Self.words("stat", "--image", "\(volume.path)/") == ["\(layout):", "\(store)/"])
        #expect(Self.words("snapshot", "rm", "", variables: ["VARVE_STORE": "/none"]).isEmpty)
        #expect(try shell(asText: "find \"$1\" -printf '%p %A@ %C@\\n' | sort", store) == before)
        // A store that others could have made leads to nothing.
        try shell("chmod 777 \"$1\"", store)
        #expect(Self.words("snapshot", "rm", "", variables: variables).isEmpty)
    }

    @Test(
        "Lines are taken apart as bash does, and put together again",
        arguments: [
            ("varve a\\ b 'c d'e \"f\\\"g\\h\"", ["varve", "a b", "c de", "f\"g\\h"], nil),
            ("varve  x ", ["varve", "x", ""], nil), ("varve ''", ["varve", ""], nil),
            ("varve 'it", ["varve", "it"], "'"), ("varve \"a 'b", ["varve", "a 'b"], "\""),
        ] as [(String, [String], Character?)])
    func lines(_ line: String, _ words: [String], _ quote: Character?) {
        let parsed = ShellLine(parsing: Array(line.utf8))
        #expect(parsed.words.map { String(decoding: $0, as: UTF8.self) } == words)
        #expect(parsed.quote == quote?.asciiValue)
    }

    @Test("What is typed for any name is that name again, in whatever quotes", arguments: ["", "'", "\""])
    func typed(_ quote: String) throws {
        for name in [
            "a b", "$(touch x)`y`", "it's", "\"q\"", "a\\b", "~x", "*?[a]{b,c}", "a;b|c&d", "#x", "!x",
            "ü:=@", "wow!", "a!!b", "it's!x",
        ] {
            let line = ShellLine(parsing: Array("varve \(quote)".utf8))
            let text = String(decoding: line.typed(name.utf8), as: UTF8.self)
            // Line by line, with the history that a person has.
            let said = try runSuccessfully([
                "bash", "-c", "bash <<< \"$1\"", "bash",
                "set -o history -o histexpand\n: xyz\nprintf '%s' \(quote)\(text)\(quote)",
            ]).outputText
            #expect(said == name, "\(text)")
            let again = ShellLine(parsing: Array("varve \(quote)\(text)".utf8))
            #expect(again.words.last.map { $0.elementsEqual(name.utf8) } == true, "\(text)")
        }
    }

    @Test(
        "Bash gets what stands behind its last word break",
        arguments: [
            ("varve stat --image L:o", "o", "one "), ("varve stat --image=L:o", "o", "one "),
            ("varve stat --image L:o", "L:o", "L:one "), ("varve stat --image \"L:o", "L:o", "L:one"),
            ("varve stat --image L:", "", "one "),
        ])
    func behindBreaks(_ line: String, _ end: String, _ expected: String) throws {
        let directory = try TemporaryDirectory()
        let layout = directory.path.appending("L")
        #expect(varve("init", "--layout", layout).code == 0)
        #expect(varve("new", "--image", layout.appendingBytes(":one")).code == 0)
        let replaced = line.replacing("L:", with: "\(layout):")
        let end = end == "L:o" ? "\(layout):o" : end
        let run = varve("---complete", "bash", BytePath(replaced), BytePath(end))
        let lines = run.text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        #expect(run.code == 0 && run.errors.isEmpty && lines[0] == "none")
        #expect(lines[1] == expected.replacing("L:", with: "\(layout):"))
    }
}
