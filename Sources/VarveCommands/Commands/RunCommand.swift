import VarveFormats
import ArgumentParser
import Glibc
import VarveOCI
import VarveStore
import VarveSystem

struct RunCommand: ExecutableCommand {
    static let about = CommandConfiguration(
        commandName: "run",
        abstract: "Run a command in a bundle.",
        usage: "varve run [<options>] <bundle> [--] <command> [<argument> ...]",
        discussion: """
            crun or runc runs it, with the environment, user and working directory of the image, the capabilities that \
            package managers need, and the network of the host. What it changes is the bundle's; its mounts, /dev and \
            resolv.conf leave nothing there. config.json stays as it is. The exit status is that of the command.

            Examples:

              varve run /var/lib/varve/bundles/web apt-get install -y nginx
              varve run --bind "$PWD":/src:ro --workdir /src --env CC=gcc ./build make
            """)

    enum Network: String, ChoiceArgument {
        case host, none
    }

    @OptionGroup(visibility: .private) var global: GlobalOptions

    @Option(
        help: ArgumentHelp("crun or runc; $VARVE_RUNTIME, else whichever is there.", valueName: "program"))
    var runtime: PathArgument?

    @Option(
        help: ArgumentHelp(
            "A variable; without a value, as it is here. May be repeated.", valueName: "name=value"))
    var env: [TextArgument] = []

    @Option(
        help: ArgumentHelp(
            "SOURCE:DESTINATION[:ro], a file or directory of the host. May be repeated.", valueName: "bind"))
    var bind: [TextArgument] = []

    @Option(help: ArgumentHelp("An empty directory in memory. May be repeated.", valueName: "destination"))
    var tmpfs: [TextArgument] = []

    @Option(help: "The network that the command has.")
    var network = Network.host

    @Option(help: ArgumentHelp("USER[:GROUP], names or numbers; the image's by default.", valueName: "user"))
    var user: TextArgument?

    @Option(help: ArgumentHelp("The working directory; the image's by default.", valueName: "directory"))
    var workdir: TextArgument?

    @Option(help: ArgumentHelp("A capability more, or ALL. May be repeated.", valueName: "capability"))
    var capAdd: [TextArgument] = []

    @Option(help: ArgumentHelp("A capability less, or ALL. May be repeated.", valueName: "capability"))
    var capDrop: [TextArgument] = []

    @Argument(help: ArgumentHelp("The bundle.", valueName: "bundle"), completion: .names(.bundle))
    var bundle: PathArgument

    @Argument(parsing: .captureForPassthrough, help: ArgumentHelp("The command.", valueName: "command"))
    var command: [String] = []

    func validate() throws {
        guard !words.isEmpty else { throw ValidationError("run needs a command after the bundle") }
        guard !words.contains(where: ArgumentText.isEncoded) else {
            throw ValidationError("the command is not UTF-8, which a runtime's configuration is")
        }
        for bind in bind.map(\.text) where Self.parse(bind) == nil {
            throw ValidationError(
                "\"\(bind)\" is not SOURCE:DESTINATION[:ro] with absolute paths, for example /srv/src:/src:ro"
            )
        }
        for destination in (tmpfs + (workdir.map { [$0] } ?? [])).map(\.text)
        where !destination.beginsWithByte("/") {
            throw ValidationError("\"\(destination)\" is not an absolute path in the bundle")
        }
        for variable in env.map(\.text) where variable.isEmpty || variable.beginsWithByte("=") {
            throw ValidationError("\"\(variable)\" is not NAME=VALUE")
        }
    }

    private var words: [String] {
        (command.first == "--" ? Array(command.dropFirst()) : command).map(ArgumentText.unmarked)
    }

    private static func parse(_ text: String) -> RunConfiguration.Bind? {
        var parts = text.split(atByte: ":")
        var isReadOnly = false
        if parts.count == 3, ["ro", "rw"].contains(parts[2]) { isReadOnly = parts.removeLast() == "ro" }
        guard parts.count == 2, parts.allSatisfy({ $0.beginsWithByte("/") }) else { return nil }
        return RunConfiguration.Bind(source: parts[0], destination: parts[1], isReadOnly: isReadOnly)
    }

    func execute(_ context: CommandContext) throws {
        var configuration = RunConfiguration()
        configuration.environment = env.map(\.text).compactMap { variable in
            if variable.hasByte("=") { return variable }
            return context.environment.text(variable).map { "\(variable)=\($0)" }
        }
        configuration.binds = bind.compactMap { Self.parse($0.text) }
        configuration.temporary = tmpfs.map(\.text)
        configuration.hasNetwork = network == .host
        configuration.user = user?.text
        configuration.workingDirectory = workdir?.text
        configuration.addedCapabilities = capAdd.map(\.text)
        configuration.droppedCapabilities = capDrop.map(\.text)
        configuration.hasTerminal = isatty(0) == 1 && isatty(1) == 1
        if configuration.hasTerminal, let kind = context.environment.text("TERM") {
            configuration.environment.insert("TERM=\(kind)", at: 0)
        }
        let run = BundleRun(
            in: bundle.path, configuration,
            runtime: runtime?.path ?? context.environment.path("VARVE_RUNTIME"))
        let status = try run.run(words, cancellation: context.cancellation, passOn: Interruption.passOn)
        if status != 0 { throw PassedStatus(status: status) }
    }
}

/// The command ends with the status of a program that it ran.
struct PassedStatus: Error {
    let status: Int32
}
