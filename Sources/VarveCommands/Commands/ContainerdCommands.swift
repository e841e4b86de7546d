import ArgumentParser
import Logging
import VarveFormats
import VarveOCI
import VarveStore
import VarveSystem

struct ContainerdCommands: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "containerd",
        abstract: "See and give up what the store keeps for containerd.",
        discussion: """
            varve-containerd keeps the snapshots of each containerd under an ID of its own.

            Example:

              varve containerd ls
              varve containerd forget old-node && varve store gc
            """,
        subcommands: [List.self, Forget.self])

    func run() throws { throw MissingCommand(command: Self.self) }

    struct List: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "ls", abstract: "List the snapshots of each containerd.",
            discussion: """
                CHAIN is the chain that the snapshot is of, or for an active one was made of; private is what something else \
                than a layer wrote. SIZE is what it has that its parent has not. USE says how many others have it as their \
                parent, and whether it is mounted. -q prints the IDs alone.
                """)

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @OptionGroup var listing: ListingOptions

        @OptionGroup var truncation: TruncationOptions

        @Argument(
            help: ArgumentHelp("The ID of one containerd; all by default.", valueName: "id"),
            completion: .names(.containerd))
        var id: TextArgument?

        func execute(_ context: CommandContext) throws {
            let store = try context.openStore()
            let folder = try ContainerdFolder(of: store)
            let places = try id.map { [try folder.place($0.text)] } ?? folder.places()
            if listing.quiet {
                let items = places.map { Listing.Item(name: $0.id, cells: [], json: JSONObject()) }
                return try Listing(header: nil, items: items).write(listing, to: context.output)
            }
            let all = try places.map { place in
                (
                    place: place, isServed: try place.isServed, snapshots: try place.snapshots(),
                    state: try place.state()
                )
            }
            for (place, _, _, state) in all where !state.faults.isEmpty {
                context.logger.warning(
                    "\(state.faults.count) records of the containerd \"\(place.id)\" cannot be read; varve store check says more"
                )
            }
            let items =
                switch listing.format {
                case .json:
                    all.map { place, isServed, snapshots, _ in
                        Listing.Item(
                            name: place.id, cells: [],
                            json: [
                                "id": .string(place.id), "isServed": .bool(isServed),
                                "snapshots": .array(snapshots.map { .object(Self.json($0)) }),
                            ])
                    }
                case .table:
                    all.flatMap { place, isServed, snapshots, _ in
                        let id = isServed ? place.id : "\(place.id) (not served)"
                        guard !snapshots.isEmpty else {
                            return [Listing.Item(name: place.id, cells: [id, "<none>"], json: JSONObject())]
                        }
                        return snapshots.map { snapshot in
                            Listing.Item(
                                name: place.id, cells: [id] + cells(snapshot), json: JSONObject())
                        }
                    }
                }
            try Listing(
                header: ["ID", "KEY", "KIND", "SIZE", "USE", "PARENT", "CHAIN"], items: items,
                width: truncation.width
            ).write(listing, to: context.output)
        }

        private func cells(_ snapshot: ContainerdPlace.Snapshot) -> [String] {
            let record = snapshot.record
            var use: [String] = []
            if snapshot.children > 0 { use.append("\(snapshot.children) on it") }
            if !snapshot.mounts.isEmpty { use.append("mounted") }
            return [
                truncation.shown(record.key.text), record.kind.rawValue,
                snapshot.usage.map { binarySize($0.size) } ?? "?",
                use.isEmpty ? "-" : use.joined(separator: ", "),
                record.parent.isEmpty ? "-" : truncation.shown(record.parent.text),
                record.chain.map { truncation.shown($0.digest) } ?? "private",
            ]
        }

        private static func json(_ snapshot: ContainerdPlace.Snapshot) -> JSONObject {
            let record = snapshot.record
            var labels = JSONMembers()
            for (key, value) in record.labels.sorted(by: { $0.key < $1.key }) {
                labels.set(key, .string(value))
            }
            return [
                "key": .string(record.key.text), "kind": .string(record.kind.rawValue),
                "parent": record.parent.isEmpty ? .null : .string(record.parent.text),
                "chain": record.chain.map { .string($0.description) } ?? .null,
                "size": snapshot.usage.map { .number(JSONNumber($0.size)) } ?? .null,
                "inodes": snapshot.usage.map { .number(JSONNumber($0.inodes)) } ?? .null,
                "children": .number(JSONNumber(snapshot.children)),
                "mounts": .array(snapshot.mounts.map { .string($0.description) }),
                "tree": .number(JSONNumber(record.tree)),
                "created": .string(RFC3339.format(record.created)),
                "updated": .string(RFC3339.format(record.updated)), "labels": .object(labels.object),
            ]
        }
    }

    struct Forget: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "forget", abstract: "Delete all snapshots of a containerd that is gone for good.",
            discussion: """
                Also deletes what containers have written. Chains stay until varve store gc. Asks first, or takes --yes. \
                Refuses while a daemon serves that ID, and while one of its snapshots is mounted.
                """)

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Flag(help: "Do not ask.")
        var yes = false

        @Argument(
            help: ArgumentHelp("The ID, as varve containerd ls shows it.", valueName: "id"),
            completion: .names(.containerd))
        var id: TextArgument

        func execute(_ context: CommandContext) throws {
            let place = try ContainerdFolder(of: try context.openStore()).place(id.text)
            if !yes {
                let records = try place.state().records
                let active = records.count { $0.kind == .active }
                try context.confirm(
                    "delete the \(records.count) snapshots of the containerd \"\(place.id)\" in \"\(place.path)\", of which \(active) may be written to by containers",
                    flag: "--yes")
            }
            let count = try place.forget(context.cancellation)
            context.logger.info("deleted \(count) snapshots of the containerd \"\(place.id)\"")
        }
    }
}
