import VarveSystem
import Testing

@testable import VarveCommands

@Suite struct CommandsUsageTests {
    struct Wrong: CustomStringConvertible {
        var words: [BytePath]
        var message: String
        var description: String { words.map(\.description).joined(separator: " ") }
        init(_ words: BytePath..., says message: String) {
            self.words = words
            self.message = message
        }
    }

    @Test(arguments: [
        // Nothing at all, and a group of commands alone: the commands are named.
        Wrong(says: "varve: a command is missing; it is one of unpack, repack, run, diff"),
        Wrong(
            "snapshot",
            says:
                "varve: a command is missing; it is one of create, ls, restore, rm\n  See 'varve snapshot --help'"
        ),
        Wrong("snapshot", "-q", says: "varve: a command is missing; it is one of create, ls, restore, rm\n"),
        Wrong("store", "--no-trunc", says: "varve: a command is missing; it is one of init, "),
        // Whatever the parser finds comes with the right form.
        Wrong("frobnicate", says: "varve: there is no command 'varve frobnicate'; it is one of unpack, "),
        Wrong(
            "--store", "x", "--no-progress", "--log=info", "snapshot", "list",
            says: "varve: there is no command 'varve snapshot list'; it is one of create, "),
        Wrong("unpack", says: "varve: missing expected argument '--image <image>'\nHelp:  --image"),
        Wrong("unpack", "--image", says: "varve: missing value for '--image <image>'"),
        Wrong(
            "unpack", "--image", "L", "--driver", "zfs", "b",
            says: "Please provide one of 'auto', 'btrfs', 'directory' or 'hooks'."),
        Wrong(
            "unpack", "--image", "L", "--platform", "linux", "b",
            says: "the value 'linux' is invalid for '--platform <platform>'"),
        Wrong("unpack", "--image", "L", "", says: "varve: the value '' is invalid for '<bundle>'"),
        Wrong("--log", "loud", "ls", "--layout", "L", says: "'error', 'warn', 'info' or 'debug'"),
        Wrong(
            "diff",
            says:
                "Usage: varve diff [--format <format>] [-z] [--source <source>] [--paranoid] <bundle>\n       varve diff"
        ),
        Wrong(
            "diff", "a", "b", "c",
            says: "varve: diff takes one bundle or two subvolumes, and 3 paths are given\nUsage:"),
        Wrong("diff", "-z", "--format", "json", "a", says: "varve: -z and --format json exclude each other"),
        Wrong(
            "ls", "-q", "--format", "json", "--layout", "L",
            says: "varve: -q and --format json exclude each other"),
        Wrong(
            "repack", "--image", "L", "--no-history", "--history.author", "me", "b",
            says: "--no-history and --history.* exclude each other"),
        Wrong("repack", "--image", "L", "--history.created", "yesterday", "b", says: "2025-01-31T12:00:00Z"),
        Wrong("repack", "--image", "L", "--compress", "xz", "b", says: "'auto', 'gzip', 'zstd' or 'none'"),
        Wrong("store", "init", "--loopback", "20X", "/nowhere", says: "such as 20G"),
        Wrong("store", "init", "--loopback", "9999999999999999T", "/nowhere", says: "such as 20G"),
        // Too small for mkfs.btrfs, found before anything is made.
        Wrong(
            "store", "init", "--loopback", "1M", "/nowhere",
            says: "varve: a loopback store needs at least 256 MiB"),
        Wrong(
            "store", "init", "--at-boot", "/nowhere", says: "varve: --at-boot is for stores in an image file"),
        Wrong(
            "store", "init", "--compress", "zstd", "/nowhere", says: "varve: --compress is for stores in an"),
        Wrong("store", "init", "--for", "daemon", says: "varve: --for needs the path of the user's store"),
        Wrong(
            "store", "init", "--for", "daemon", "--loopback", "1G", "/nowhere",
            says: "varve: --for is for a directory on a btrfs that is there"),
        Wrong(
            "--log-format", "xml", "ls", "--layout", "L", says: "the value 'xml' is invalid for '--log-format"
        ),
        Wrong("store", "resize", "-5X", says: "varve: the value '−5X' is invalid for '<size>'"),
        Wrong(
            "store", "rm", "foo",
            says: "varve: \"foo\" is not the name of a chain; varve store ls lists them\n"),
        // A tag that can never be one.
        Wrong("stat", "--image", "L:-", says: "varve: \"-\" is no valid tag"),
        // Text for an image must be UTF-8; a path need not.
        Wrong("tag", "--image", "L", latin, says: #"the value '\xe9' is invalid for '<new-tag>'"#),
        Wrong(
            "config", "--image", "L", "--config.env", "A",
            says: "'A' is invalid for '--config.env <name=value>'"),
        Wrong(
            "config", "--image", "L", "--config.label", "=A",
            says: "invalid for '--config.label <name=value>'"),
        Wrong(
            "config", "--image", "L", "--clear", "config.user",
            says: "\n  - config.labels\n  - manifest.annotations\n"),
        Wrong("config", "--image", "L", "--os", "", says: "the value '' is invalid for '--os <name>'"),
        Wrong(
            "config", "--image", "L", "--created", "yesterday", says: "'yesterday' is invalid for '--created"),
        Wrong(
            "config", "--image", "L", "--no-history", "--history.author", "me",
            says: "--no-history and --history.* exclude each other"),
        Wrong(
            "insert", "--image", "L", "a",
            says: "insert takes two paths, the source and the target, and 1 is given"),
        Wrong(
            "insert", "--image", "L", "--whiteout", "a", "b",
            says: "insert --whiteout takes one path, the target, and 2 are given"),
        Wrong("raw", says: "a command is missing; it is one of unpack, add-layer, runtime-config"),
        Wrong("raw", "repack", says: "there is no command 'varve raw repack'; it is one of "),
        Wrong("unpack", "--image", "L", "--as-root", "b", says: "varve: unknown option '--as-root'"),
    ])
    func wrong(_ wrong: Wrong) {
        let run = varve(wrong.words)
        #expect(run.code == 2)
        #expect(run.text == "")
        #expect(run.errorText.hasPrefix("varve: ") && run.errorText.contains(wrong.message), "\(run)")
        #expect(!run.errorText.contains("Error:"))
    }

    private static let latin = BytePath([0xe9] as [UInt8]) ?? .empty

    @Test(arguments: [
        ["--help"], ["help"], ["-h"], ["unpack", "--help"], ["help", "store", "init"],
        ["snapshot", "create", "-h"],
    ])
    func help(_ words: [String]) {
        let run = varve(words.map { BytePath($0) })
        #expect(run.code == 0 && run.errors.isEmpty)
        #expect(run.text.contains("USAGE: varve"))
        #expect(!run.text.contains("ParentCommand"))
    }

    @Test func version() {
        let run = varve("--version")
        #expect(run.code == 0 && run.text == "varve \(VarveCommand.version)\n")
    }

    /// Global options may stand before and behind the command.
    @Test(arguments: [
        ["--store", "/nowhere", "store", "ls"], ["store", "ls", "--store", "/nowhere"],
        ["store", "--store=/nowhere", "ls"],
    ])
    func globalOptions(_ words: [String]) {
        let run = varve(words.map { BytePath($0) })
        #expect(run.code == 4)
        #expect(
            run.errorText
                == "varve: there is no store in \"/nowhere\"; make one with: varve store init /nowhere [--loopback SIZE]\n"
        )
    }

    @Test func sizes() {
        let cases: [(String, Int64?)] = [
            ("1", 1), ("4k", 4096), ("20G", 20 << 30), ("20GiB", 20 << 30), ("20GB", 20_000_000_000),
            ("1T", 1 << 40),
            ("", nil), ("G", nil), ("-1G", nil), ("1.5G", nil), ("9223372036854775807", .max),
            ("9223372036854775808", nil),
            ("9007199254740992K", nil), ("١G", nil),
        ]
        for (text, bytes) in cases { #expect(SizeArgument(argument: text)?.bytes == bytes, "\(text)") }
    }

    struct Words: CustomStringConvertible {
        var bytes: [UInt8]
        var encoded: String
        var description: String { encoded }
    }

    @Test(arguments: [
        Words(bytes: Array("a/é".utf8), encoded: "a/é"),
        Words(bytes: [0x61, 0xe9], encoded: "a\u{10ffe9}"),
        // The scalar that stands for a byte is itself no such byte.
        Words(bytes: Array("\u{10ffe9}".utf8), encoded: "\u{10fff4}\u{10ff8f}\u{10ffbf}\u{10ffa9}"),
        Words(bytes: [], encoded: ""),
    ])
    func argumentText(_ words: Words) {
        #expect(ArgumentText.encode(words.bytes).unicodeScalars.elementsEqual(words.encoded.unicodeScalars))
        #expect(ArgumentText.decode(ArgumentText.encode(words.bytes)) == words.bytes)
    }

    @Test func invalidSourceDate() throws {
        for value in ["", "abc", "-1", "1e3", "99999999999999999999", "253402300800"] {
            let run = varve("new", "--image", "/nowhere:a", variables: ["SOURCE_DATE_EPOCH": value])
            #expect(
                run.code == 2
                    && run.errorText.hasPrefix("varve: SOURCE_DATE_EPOCH is \"\(value)\", which is no time"))
        }
    }
}
