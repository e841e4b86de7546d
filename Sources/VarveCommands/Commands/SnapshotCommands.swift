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

        @Flag(help: "A snapshot of that name makes room, in one step.")
        var replace = false

        @Option(help: ArgumentHelp("KEY=VALUE, said of the snapshot; may be repeated.", valueName: "label"))
        var label: [TextArgument] = []

        @Argument(help: ArgumentHelp("The bundle.", valueName: "bundle"), completion: .names(.bundle))
        var bundle: PathArgument

        @Argument(
            help: ArgumentHelp("The name of the snapshot.", valueName: "name"), completion: .names(.snapshot))
        var name: TextArgument

        func execute(_ context: CommandContext) throws {
            let labels = try SnapshotLabels(label.map(\.text))
            try context.openStore(of: [bundle.path]).createSnapshot(
                of: bundle.path, name: name.text, replaces: replace, labels: labels)
        }
    }

    struct List: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "ls", abstract: "List the snapshots of the store.")

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @OptionGroup var listing: ListingOptions

        @OptionGroup var truncation: TruncationOptions

        @Option(help: .snapshotFilter)
        var filter: [TextArgument] = []

        func execute(_ context: CommandContext) throws {
            let filter = try SnapshotSelection(filter.map(\.text))
            let items = try context.openStore().listSnapshots().filter { listed in
                if case .snapshot(let snapshot) = listed { return filter.takes(snapshot) }
                return filter.isEmpty
            }.map { listed in
                switch listed {
                case .snapshot(let snapshot):
                    let created = RFC3339.format(snapshot.created)
                    let labels = snapshot.labels.pairs.map { "\($0.key)=\($0.value)" }
                    return Listing.Item(
                        name: snapshot.name,
                        cells: [
                            snapshot.name, truncation.shown(snapshot.created),
                            snapshot.chain.map { truncation.shown($0) } ?? "<none>",
                        ]
                            + (labels.isEmpty ? [] : [labels.joined(separator: " ")]),
                        json: [
                            "name": .string(snapshot.name), "created": .string(created),
                            "chain": snapshot.chain.map { .string($0.description) } ?? .null,
                            "labels": .object(snapshot.labels.json),
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
            let hasLabels = items.contains { $0.cells.count > 3 }
            try Listing(
                header: ["NAME", "CREATED", "CHAIN"] + (hasLabels ? ["LABELS"] : []), items: items,
                width: truncation.width
            ).write(listing, to: context.output)
        }
    }

    struct Restore: PlainCommand {
        static let about = CommandConfiguration(
            commandName: "restore", abstract: "Make a bundle of a snapshot; the snapshot stays.")

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Argument(
            help: ArgumentHelp("The name of the snapshot.", valueName: "name"), completion: .names(.snapshot))
        var name: TextArgument

        @Option(help: .bundleMode)
        var bundleMode: ModeArgument?

        @Argument(help: ArgumentHelp("The bundle to make.", valueName: "bundle"), completion: .directory)
        var bundle: PathArgument

        func execute(_ context: CommandContext) throws {
            try context.openStore(of: [bundle.path]).restoreSnapshot(
                name.text, to: bundle.path, mode: bundleMode?.mode ?? UnpackContext.closedBundleMode)
        }
    }

    struct Remove: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "rm", abstract: "Delete snapshots.",
            discussion: """
                Those that are named; with --filter or --older-than those of all snapshots that match, whose names are printed.

                Example: varve snapshot rm --filter label=builder=mine --older-than 7d
                """)

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Option(help: .snapshotFilter)
        var filter: [TextArgument] = []

        @Option(help: ArgumentHelp("Those that were made earlier, such as 12h, 7d or 4w.", valueName: "age"))
        var olderThan: DurationArgument?

        @Argument(
            help: ArgumentHelp("The name of a snapshot; several may be given.", valueName: "name"),
            completion: .names(.snapshot))
        var names: [TextArgument] = []

        func validate() throws {
            let isFiltered = !filter.isEmpty || olderThan != nil
            guard names.isEmpty == isFiltered else {
                throw ValidationError(
                    isFiltered
                        ? "names, and --filter or --older-than, exclude each other; give one of them"
                        : "rm needs names of snapshots, --filter or --older-than")
            }
        }

        func execute(_ context: CommandContext) throws {
            let store = try context.openStore()
            var filter = try SnapshotSelection(filter.map(\.text))
            filter.madeBefore = olderThan?.limit
            if filter.isEmpty {
                return try context.forEach(names.map(\.text)) { try store.removeSnapshot($0) }
            }
            let found = try store.snapshots().filter(filter.takes)
            try context.forEach(found.map(\.name)) { name in
                try store.removeSnapshot(name)
                try context.output.show(BytePath.escape(name.utf8) + "\n")
            }
        }
    }
}

extension SnapshotCommands.Create {
    mutating func take(_ words: inout PlainWords) throws {
        global = try GlobalOptions.plain(&words)
        replace = try words.has("--replace")
        label = try words.values(of: "--label")
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

extension ArgumentHelp {
    fileprivate static let snapshotFilter = ArgumentHelp(
        "label=KEY or label=KEY=VALUE; may be repeated, and all must hold.", valueName: "filter")
}
