import ArgumentParser
import VarveStore
import VarveSystem

struct BundleCommands: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bundle", abstract: "Delete bundles.", subcommands: [Remove.self])

    func run() throws { throw MissingCommand(command: Self.self) }

    struct Remove: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "rm", abstract: "Delete bundles, subvolumes nested in them included.")

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Argument(help: ArgumentHelp("The bundle; several may be given.", valueName: "bundle"))
        var bundles: [PathArgument]

        func execute(_ context: CommandContext) throws {
            // A rootless bundle has files that not even their owner may list.
            context.tolerateMissingPermissions()
            try context.forEach(bundles.map(\.path)) { bundle in
                try BundleRemoval.remove(bundle, cancellation: context.cancellation) {
                    try context.openStore(of: [bundle])
                }
            }
        }
    }
}
