import VarveFormats
import ArgumentParser
import VarveOCI
import VarveStore
import VarveSystem

struct SnapshotCommands: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "snapshot",
        abstract: "Keep states of bundles under names.",
        discussion: """
            Example:

              varve snapshot create /var/lib/varve/bundles/web before-upgrade
              varve diff before-upgrade /var/lib/varve/bundles/web
              varve snapshot restore before-upgrade /var/lib/varve/bundles/web2
            """,
        subcommands: [Create.self, List.self, Restore.self, Remove.self])

    func run() throws { throw MissingCommand(command: Self.self) }

    struct Create: PlainCommand {
        static let about = CommandConfiguration(
            commandName: "create", abstract: "Keep a bundle as it is now, at once.")

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Argument(help: ArgumentHelp("The bundle.", valueName: "bundle"))
        var bundle: PathArgument

        @Argument(help: ArgumentHelp("The name of the snapshot.", valueName: "name"))
        var name: TextArgument

        func execute(_ context: CommandContext) throws {
            try context.openStore(of: [bundle.path]).createSnapshot(of: bundle.path, name: name.text)
        }
    }

    struct List: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "ls", abstract: "List the snapshots of the store.")

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @OptionGroup var listing: ListingOptions

        func execute(_ context: CommandContext) throws {
            let items = try context.openStore().listSnapshots().map { listed in
                switch listed {
                case .snapshot(let snapshot):
                    let created = RFC3339.format(snapshot.created)
                    return Listing.Item(
                        name: snapshot.name,
                        cells: [snapshot.name, created, snapshot.chain?.description ?? "<none>"],
                        json: [
                            "name": .string(snapshot.name), "created": .string(created),
                            "chain": snapshot.chain.map { .string($0.description) } ?? .null,
                        ])
                case .unusable(let name, let reason):
                    return Listing.Item(
                        name: name, cells: [name, "<none>", "not used: \(reason)"],
                        json: [
                            "name": .string(name), "created": .null, "chain": .null,
                            "notUsed": .string(reason),
                        ])
                }
            }
            try Listing(header: ["NAME", "CREATED", "CHAIN"], items: items).write(listing, to: context.output)
        }
    }

    struct Restore: PlainCommand {
        static let about = CommandConfiguration(
            commandName: "restore", abstract: "Make a bundle of a snapshot; the snapshot stays.")

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Argument(help: ArgumentHelp("The name of the snapshot.", valueName: "name"))
        var name: TextArgument

        @Option(help: .bundleMode)
        var bundleMode: ModeArgument?

        @Argument(help: ArgumentHelp("The bundle to make.", valueName: "bundle"))
        var bundle: PathArgument

        func execute(_ context: CommandContext) throws {
            try context.openStore(of: [bundle.path]).restoreSnapshot(
                name.text, to: bundle.path, mode: bundleMode?.mode ?? UnpackContext.closedBundleMode)
        }
    }

    struct Remove: ExecutableCommand {
        static let about = CommandConfiguration(commandName: "rm", abstract: "Delete snapshots.")

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Argument(help: ArgumentHelp("The name of a snapshot; several may be given.", valueName: "name"))
        var names: [TextArgument]

        func execute(_ context: CommandContext) throws {
            let store = try context.openStore()
            try context.forEach(names.map(\.text)) { try store.removeSnapshot($0) }
        }
    }
}

extension SnapshotCommands.Create {
    mutating func take(_ words: inout PlainWords) throws {
        global = try GlobalOptions.plain(&words)
        bundle = try words.argument()
        name = try words.argument()
    }
}

extension SnapshotCommands.Restore {
    mutating func take(_ words: inout PlainWords) throws {
        global = try GlobalOptions.plain(&words)
        bundleMode = try words.value(of: "--bundle-mode")
        name = try words.argument()
        bundle = try words.argument()
    }
}
