import ArgumentParser
import Store
import SystemCalls

struct BundleCommands: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bundle", abstract: "Delete bundles.", subcommands: [Remove.self])

    func run() throws { throw MissingCommand(command: Self.self) }

    struct Remove: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "rm", abstract: "Delete a bundle, subvolumes nested in it included.")

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Argument(help: ArgumentHelp("The bundle.", valueName: "bundle"))
        var bundle: PathArgument

        func execute(_ context: CommandContext) throws {
            try BundleRemoval.remove(bundle.path) { try context.openStore() }
        }
    }
}
