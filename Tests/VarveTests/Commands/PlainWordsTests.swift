import Testing

@testable import VarveCommands

/// What is made of plain words without the parser is what the parser makes of them.
@Suite struct PlainWordsTests {
    private static let types: [any ExecutableCommand.Type] = [
        UnpackCommand.self, RepackCommand.self, DiffCommand.self, SnapshotCommands.Create.self,
        SnapshotCommands.Restore.self,
    ]

    private static func written(_ command: any ExecutableCommand) -> String {
        var text = ""
        dump(command, to: &text)
        // How help shows a group of options is not kept by the parser.
        let lines = text.split(separator: "\n").filter { !$0.contains("ArgumentVisibility") }
        return lines.joined(separator: "\n")
    }

    /// Every option of these commands, with values that are right and wrong, and what is none.
    private static let pieces: [[String]] =
        [
            ("--store", ["s", "", "-s"]), ("--log", ["warn", "debug", "loud"]),
            ("--error-format", ["json", "x"]), ("--log-format", ["json", "x"]),
            ("--image", ["l:t", "l@sha256:0", "", "--mtree"]), ("--platform", ["linux/arm64", "linux"]),
            ("--driver", ["auto", "btrfs", "hooks:x", "zfs"]), ("--uid-map", ["0:1:2", "0"]),
            ("--gid-map", ["0:1:2"]), ("--chains", ["all", "some"]), ("--memory", ["64M", "x"]),
            ("--bundle-mode", ["755", "0"]), ("--max-size", ["1G"]), ("--max-entries", ["10", "-1"]),
            ("--format", ["json", "text", "z"]), ("--source", ["send", "search", "auto", "walk"]),
            ("--mask-path", ["/tmp", "/a b"]), ("--compress", ["zstd", "none", "zip"]),
            ("--history.author", ["me", "--paranoid", "-"]), ("--history.comment", ["c=d"]),
            ("--history.created", ["2025-01-31T12:00:00Z", "now"]), ("--history.created_by", ["x"]),
        ].flatMap { option, values in
            values.flatMap { [[option, $0], ["\(option)=\($0)"]] } + [[option]]
        }
        + [
            "--no-progress", "--mtree", "--keep-dirlinks", "--strict-xattrs", "--rootless",
            "--no-mask-volumes",
            "--refresh-bundle", "--no-history", "--paranoid", "-z", "--help", "-h", "-", "--", "--unknown",
            "-zz",
            "a", "b", "", "--mtree=yes", "--images", "@x",
        ].map { [$0] }

    @Test("Commands made of plain words are those of the parser, whatever the words", arguments: 0..<5)
    func asTheParser(_ number: Int) throws {
        let type = Self.types[number]
        var random = SystemRandomNumberGenerator()
        var (plain, refused) = (0, 0)
        func check(_ words: [String]) {
            let words = words.map(ArgumentText.marked)
            let parsed = type.parse(alone: words)
            guard let command = type.parse(plain: words) else {
                refused += 1
                return
            }
            plain += 1
            #expect(parsed.map(Self.written) == Self.written(command), "\(words)")
        }
        for _ in 0..<400 {
            // As most lines are: right options with their arguments; and some with anything.
            var words = (0..<Int.random(in: 0...4, using: &random)).flatMap { _ in
                Self.pieces.randomElement(using: &random) ?? []
            }
            if Bool.random(using: &random) { words += ["--image", "l:t"] }
            words += ["x", "y"].prefix(Int.random(in: 0...2, using: &random))
            if Int.random(in: 0..<4, using: &random) == 0 { words.shuffle(using: &random) }
            check(words)
        }
        #expect(plain > 0 && refused > 10, "\(plain) plain, \(refused) not")
    }

    @Test("The lines of scripts are plain")
    func usualLines() {
        #expect(UnpackCommand.parse(plain: ["--store", "s", "--image", "l:t", "b"]) != nil)
        #expect(UnpackCommand.parse(plain: ["--image=l:t", "--driver", "directory", "--mtree", "b"]) != nil)
        #expect(DiffCommand.parse(plain: ["--format", "json", "b"]) != nil)
        #expect(DiffCommand.parse(plain: ["-z", "a", "b"]) != nil)
        #expect(
            RepackCommand.parse(plain: ["--image", "l:t", "--history.created_by", "RUN true", "b"]) != nil)
        #expect(SnapshotCommands.Create.parse(plain: ["b", "name"]) != nil)
        #expect(SnapshotCommands.Restore.parse(plain: ["name", "b"]) != nil)
    }
}
