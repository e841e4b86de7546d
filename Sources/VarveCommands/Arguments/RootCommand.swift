import ArgumentParser
import VarveFormats
import VarveOCI
import VarveStore
import VarveSystem

/// `varve` itself: the global options, which may stand before or behind the name of a command, and the commands.
struct RootCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "varve",
        abstract: "OCI images as btrfs snapshots, and back.",
        discussion: """
            varve unpacks the layers of an OCI image into read-only btrfs subvolumes that all images share, makes \
            bundles as snapshots of them at once, and writes what changed in a bundle as a new layer.

            A session:

              varve store init /var/lib/varve --loopback 20G
              varve unpack --image ./debian:12 /var/lib/varve/bundles/web
              varve diff /var/lib/varve/bundles/web
              varve repack --image ./debian:12-web /var/lib/varve/bundles/web

            IMAGE is PATH[:TAG], an OCI image layout and a tag in it; the default tag is latest.
            The store is --store, else $VARVE_STORE, else store = "PATH" in ~/.config/varve/config.toml, else \
            /var/lib/varve.

            Exit codes: 0 done, 1 failed, 2 wrong usage, 3 invalid input, 4 not found, 5 this host cannot do it, \
            6 a hook failed, 7 no space left, 130 interrupted.
            """,
        version: "varve \(VarveCommand.version)",
        groupedSubcommands: commands.map { title, commands in
            CommandGroup(name: title, subcommands: commands.map { $0().type })
        })

    /// A command or a group of them.
    enum Entry {
        case command(any ExecutableCommand.Type)
        case group(any ParsableCommand.Type)

        var type: any ParsableCommand.Type {
            switch self {
            case .command(let type): type
            case .group(let type): type
            }
        }
    }

    /// As help lists them. They are closures because a type costs time when it is first looked at, which those behind
    /// the one that is asked for need not be.
    static let commands: [(title: String, commands: [@Sendable () -> Entry])] = [
        (
            "Bundle",
            [
                { .command(UnpackCommand.self) },
                { .command(RepackCommand.self) },
                { .command(RunCommand.self) },
                { .command(DiffCommand.self) },
                { .group(BundleCommands.self) },
            ]
        ),
        (
            "Image",
            [
                { .command(PullCommand.self) },
                { .command(PushCommand.self) },
                { .command(InitCommand.self) },
                { .command(NewCommand.self) },
                { .command(ConfigCommand.self) },
                { .command(InsertCommand.self) },
                { .command(TagCommand.self) },
                { .command(RemoveTagCommand.self) },
                { .command(ListTagsCommand.self) },
                { .command(StatCommand.self) },
                { .group(LayerCommands.self) },
                { .command(CollectCommand.self) },
                { .group(RawCommands.self) },
            ]
        ),
        (
            "Store",
            [
                { .group(StoreCommands.self) },
                { .group(SnapshotCommands.self) },
                { .group(ContainerdCommands.self) },
                { .group(StreamCommands.self) },
                { .command(HookCommand.self) },
            ]
        ),
    ]

    @OptionGroup(title: "Global options")
    var options: GlobalOptions

    func run() throws { throw MissingCommand(command: Self.self) }

    /// What comes before a message of the parser is this program's business.
    static var _errorPrefix: String { "" }
}

/// What may be said to every command.
protocol GlobalChoices {
    var store: PathArgument? { get }
    var log: LogLevelArgument? { get }
    var logFormat: LogFormatArgument? { get }
    var errorFormat: ErrorFormatArgument? { get }
    var noProgress: Bool { get }
}

struct GlobalOptions: ParsableArguments, GlobalChoices {
    @Option(help: .store(), completion: .directory)
    var store: PathArgument?

    @Option(help: .log())
    var log: LogLevelArgument?

    @Option(help: .logFormat())
    var logFormat: LogFormatArgument?

    @Option(help: .errorFormat())
    var errorFormat: ErrorFormatArgument?

    @Flag(help: .noProgress())
    var noProgress = false

    /// Those that are followed by a value.
    static let withValue = ["--store", "--log", "--log-format", "--error-format"]
}

extension ArgumentHelp {
    static func store(_ visibility: ArgumentVisibility = .default) -> ArgumentHelp {
        ArgumentHelp("Where the store is.", valueName: "path", visibility: visibility)
    }

    static func log(_ visibility: ArgumentVisibility = .default) -> ArgumentHelp {
        ArgumentHelp(
            "What is told on standard error; warn by default.", valueName: "level", visibility: visibility)
    }

    static func logFormat(_ visibility: ArgumentVisibility = .default) -> ArgumentHelp {
        ArgumentHelp(
            "How standard error tells it; text by default. json is an object on each line: time, level, msg, and of an error what --error-format json says.",
            valueName: "format", visibility: visibility)
    }

    static func errorFormat(_ visibility: ArgumentVisibility = .default) -> ArgumentHelp {
        ArgumentHelp(
            "How standard error says why a command failed; text by default. json is one object: code, subject, reason, remedy, exitCode.",
            valueName: "format", visibility: visibility)
    }

    static func noProgress(_ visibility: ArgumentVisibility = .default) -> ArgumentHelp {
        ArgumentHelp("Show no progress, not even on a terminal.", visibility: visibility)
    }
}

/// The command line names no command, or none that there is, where one of a group should be.
struct MissingCommand: Error, CustomStringConvertible {
    var command: any ParsableCommand.Type
    /// What stands in its place.
    var found: String?

    var description: String {
        let names = command.configuration.subcommands.compactMap { $0.configuration.commandName }
        let program = RootCommand.configuration.commandName ?? ""
        let group = command == RootCommand.self ? "" : " \(command.configuration.commandName ?? "")"
        let problem = found.map { "there is no command '\(program)\(group) \($0)'" } ?? "a command is missing"
        return "\(problem); it is one of \(names.joined(separator: ", "))\n"
            + "  See '\(program)\(group) --help' for more information."
    }

    /// The first word of a command line that should be a command and is none: said instead of what the parser finds
    /// wrong with the options behind it. Likewise where options follow the name of a group, and no command of it.
    init?(in words: [String]) {
        let named = NamedCommands(in: words)
        guard let unknown = named.unknown else {
            guard named.executable == nil, let group = named.path.last else { return nil }
            self.init(command: group)
            return
        }
        self.init(command: named.path.last ?? RootCommand.self, found: unknown)
    }

    init(command: any ParsableCommand.Type, found: String? = nil) {
        self.command = command
        self.found = found
    }
}

/// An error that only the command knows: mostly, something on the command line or in what stands for it (environment,
/// configuration file) is wrong.
struct CommandError: Error {
    let code: VarveError.Code
    let reason: String
    /// What helps, in words for a shell.
    let remedy: String?

    init(_ reason: String, code: VarveError.Code = .usage, remedy: String? = nil) {
        self.code = code
        self.reason = reason
        self.remedy = remedy
    }
}

/// `--no-trunc` of listings with long names.
struct TruncationOptions: ParsableArguments {
    @Flag(help: "Show digests and lines whole, however long they are.")
    var noTrunc = false

    /// What tables are cut to.
    var width: Int? { noTrunc ? nil : Table.width }

    /// A chain, with 12 digits of its digest.
    func shown(_ name: ChainName) -> String {
        noTrunc
            ? name.description
            : name.description.replacing(name.chainID.digest.hex, with: name.chainID.digest.hex.prefix(12))
    }

    /// A digest, with 12 of its digits.
    func shown(_ digest: Digest) -> String {
        noTrunc ? digest.description : digest.description.replacing(digest.hex, with: digest.hex.prefix(12))
    }

    /// A text that may have digests in it, each with 12 of its digits.
    func shown(_ text: String) -> String {
        if noTrunc { return text }
        var result = ""
        var digits: [Character] = []
        func end() {
            result += String(
                digits.count == DigestAlgorithm.sha256.hexCount ? digits.prefix(12) : digits[...])
            digits = []
        }
        for character in text {
            if character.isHexDigit, character.isASCII, !character.isUppercase {
                digits.append(character)
            } else {
                end()
                result.append(character)
            }
        }
        end()
        return result
    }

    /// A time, to the minute.
    func shown(_ time: Timestamp) -> String {
        let whole = RFC3339.format(time)
        return noTrunc ? whole : String(whole.prefix(16)).replacing("T", with: " ")
    }
}

/// `--format` and `-q` of every listing.
struct ListingOptions: ParsableArguments {
    enum Format: String, ChoiceArgument {
        case table, json
    }

    @Option(help: "How to list.")
    var format = Format.table

    @Flag(name: .shortAndLong, help: "Names alone, one a line.")
    var quiet = false

    func validate() throws {
        if quiet, format == .json {
            throw ValidationError("-q and --format json exclude each other; give one of them")
        }
    }
}
