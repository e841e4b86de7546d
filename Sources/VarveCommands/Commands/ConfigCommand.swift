import ArgumentParser
import VarveOCI
import VarveSystem

struct ConfigCommand: ExecutableCommand {
    static let about = CommandConfiguration(
        commandName: "config",
        abstract: "Change the configuration of an image.",
        usage: "varve config --image <image> [--tag <tag>] [<options>]",
        discussion: """
            What is not named stays as it is; --clear comes before everything else. --config.entrypoint and \
            --config.cmd make a new list of all their values, the others add to what is there.

            Examples:

              varve config --image ./debian:12 --config.user www-data --config.env LANG=C.UTF-8
              varve config --image ./debian:12 --tag web --clear config.cmd --config.entrypoint nginx
            """)

    @OptionGroup(visibility: .private) var global: GlobalOptions

    @OptionGroup var change: ChangedImageOptions

    @Option(
        name: .customLong("config.user"), parsing: .unconditional,
        help: ArgumentHelp("USER[:GROUP], names or numbers.", valueName: "user"))
    var user: TextArgument?

    @Option(
        name: .customLong("config.exposedports"), parsing: .unconditionalSingleValue,
        help: ArgumentHelp("PORT[/tcp|/udp] that the image listens at; may be repeated.", valueName: "port"))
    var exposedPorts: [TextArgument] = []

    @Option(
        name: .customLong("config.env"), parsing: .unconditionalSingleValue,
        help: ArgumentHelp("A variable of the environment; may be repeated.", valueName: "name=value"))
    var environment: [PairArgument] = []

    @Option(
        name: .customLong("config.entrypoint"), parsing: .unconditionalSingleValue,
        help: ArgumentHelp("The next word of the entrypoint; may be repeated.", valueName: "word"))
    var entrypoint: [TextArgument] = []

    @Option(
        name: .customLong("config.cmd"), parsing: .unconditionalSingleValue,
        help: ArgumentHelp("The next word of the command; may be repeated.", valueName: "word"))
    var command: [TextArgument] = []

    @Option(
        name: .customLong("config.volume"), parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "A directory whose content is no part of the image; may be repeated.", valueName: "path"))
    var volumes: [TextArgument] = []

    @Option(
        name: .customLong("config.label"), parsing: .unconditionalSingleValue,
        help: ArgumentHelp("A label; may be repeated.", valueName: "name=value"))
    var labels: [PairArgument] = []

    @Option(
        name: .customLong("config.workingdir"), parsing: .unconditional,
        help: ArgumentHelp("Where the command starts.", valueName: "path"))
    var workingDirectory: TextArgument?

    @Option(
        name: .customLong("config.stopsignal"), parsing: .unconditional,
        help: ArgumentHelp("What stops the container: SIGTERM, 15 or the like.", valueName: "signal"))
    var stopSignal: TextArgument?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("When the image was made, as RFC 3339 has it.", valueName: "time"))
    var created: TimeArgument?

    @Option(parsing: .unconditional, help: ArgumentHelp("Who made the image.", valueName: "text"))
    var author: TextArgument?

    @Option(
        name: [.customLong("platform.os"), .customLong("os")],
        help: ArgumentHelp("The operating system.", valueName: "name"))
    var os: NameArgument?

    @Option(
        name: [.customLong("platform.arch"), .customLong("architecture")],
        help: ArgumentHelp("The architecture, by Go's name for it: amd64, arm64.", valueName: "name"))
    var architecture: NameArgument?

    @Option(
        name: .customLong("platform.variant"), parsing: .unconditional,
        help: ArgumentHelp("The variant of the architecture: v7.", valueName: "name"))
    var variant: TextArgument?

    @Option(
        name: .customLong("manifest.annotation"), parsing: .unconditionalSingleValue,
        help: ArgumentHelp("An annotation of the manifest; may be repeated.", valueName: "name=value"))
    var annotations: [PairArgument] = []

    @Option(help: ArgumentHelp("Empty this first; may be repeated.", valueName: "what"))
    var clear: [ClearArgument] = []

    func execute(_ context: CommandContext) throws {
        try change.run(context, as: "config") { _, image, sourceDate in
            // umoci sets when the image was made where it is told to alone.
            edit(created: created?.time ?? (context.program == .umoci ? nil : sourceDate)).apply(to: &image)
            return nil
        }
    }

    private func edit(created: Timestamp?) -> ImageConfigEdit {
        var edit = ImageConfigEdit()
        edit.cleared = Set(clear.map(\.what))
        edit.created = created
        edit.author = author?.text
        edit.user = user?.text
        edit.workingDirectory = workingDirectory?.text
        edit.stopSignal = stopSignal?.text
        edit.os = os?.name
        edit.architecture = architecture?.name
        edit.variant = variant?.text
        edit.exposedPorts = exposedPorts.map(\.text)
        edit.volumes = volumes.map(\.text)
        edit.labels = labels.map(\.pair)
        edit.annotations = annotations.map(\.pair)
        edit.environment = environment.map(\.pair)
        edit.entrypoint = entrypoint.isEmpty ? nil : entrypoint.map(\.text)
        edit.command = command.isEmpty ? nil : command.map(\.text)
        return edit
    }
}

/// `NAME=VALUE`.
struct PairArgument: ExpressibleByArgument {
    let pair: ImageConfigEdit.Pair

    init?(argument: String) {
        guard let text = TextArgument(argument: argument)?.text,
            let pair = ImageConfigEdit.Pair(parsing: text)
        else { return nil }
        self.pair = pair
    }
}

/// Text that must not be empty.
struct NameArgument: ExpressibleByArgument {
    let name: String

    init?(argument: String) {
        guard let text = TextArgument(argument: argument)?.text, !text.isEmpty else { return nil }
        name = text
    }
}

/// `--clear`.
struct ClearArgument: ExpressibleByArgument {
    let what: ImageConfigEdit.Clearable

    init?(argument: String) {
        guard let what = ImageConfigEdit.Clearable(rawValue: argument) else { return nil }
        self.what = what
    }

    static let allValueStrings = ImageConfigEdit.Clearable.allCases.map(\.rawValue)
}
