import ArgumentParser
import VarveStore
import VarveSystem
import SystemPackage
import Varve

struct StreamCommands: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stream", abstract: "Look into btrfs send streams.", subcommands: [Dump.self])

    func run() throws { throw MissingCommand(command: Self.self) }

    struct Dump: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "dump",
            abstract: "Print a send stream, one command a line.",
            discussion: """
                FILE holds a stream of btrfs send, version 1 to 3; - is standard input. Contents of files are shown as \
                their length. With --format json, each line is an object.

                Example:

                  btrfs send --no-data -p monday tuesday | varve stream dump -
                """)

        enum Format: String, ChoiceArgument {
            case text, json
        }

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Option(help: "How commands are shown.")
        var format = Format.text

        @Argument(help: ArgumentHelp("The file, or - for standard input.", valueName: "file"))
        var file: PathArgument

        func execute(_ context: CommandContext) throws {
            Interruption.endAtOnce()
            let isInput = file.path == "-"
            let opened = isInput ? nil : SharedDescriptor(try open())
            let descriptor = opened?.fd ?? .standardInput
            try SendStreamDump(of: file.path, format == .json ? .json : .text).run(
                from: descriptor,
                // Whoever watches a stream that comes slowly sees what has come.
                willRead: { if isInput { try context.output.flush() } },
                line: { line in
                    if format == .json {
                        try context.output.write(line + "\n")
                    } else {
                        try context.output.show(line + "\n")
                    }
                })
            extendLifetime(opened)
        }

        private func open() throws -> OwnedDescriptor {
            do throws(Errno) {
                return try FileDescriptor.workingDirectory.open(file.path, [.readOnly])
            } catch {
                throw VarveError.system("open the send stream", file.path, error)
            }
        }
    }
}
