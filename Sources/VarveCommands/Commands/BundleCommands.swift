import ArgumentParser
import VarveFormats
import VarveOCI
import VarveStore
import VarveSystem

struct BundleCommands: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bundle", abstract: "List and delete bundles.", subcommands: [List.self, Remove.self])

    func run() throws { throw MissingCommand(command: Self.self) }

    struct List: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "ls", abstract: "List the bundles on the file system of the store.",
            discussion: """
                Those of the btrfs driver, wherever they lie; for root, who alone may see all subvolumes. EXCLUSIVE is what would be freed \
                if that bundle alone were deleted.
                """)

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @OptionGroup var listing: ListingOptions

        @OptionGroup var truncation: TruncationOptions

        func execute(_ context: CommandContext) throws {
            let store = try context.openStore()
            let bundles = try store.bundles()
            let sizes = listing.quiet ? [] : try store.exclusiveBytes(of: bundles)
            let now = Timestamp.now()
            let items = bundles.enumerated().map { index, bundle in
                let path = bundle.path
                let name = path.map { $0.string ?? "\($0)" } ?? "<not mounted>"
                let size = Int64(clamping: index < sizes.count ? sizes[index] : 0)
                return Listing.Item(
                    name: name,
                    cells: [
                        bundle.tag ?? "<none>", bundle.chain.map { truncation.shown($0) } ?? "<none>",
                        "btrfs",
                        bundle.created.map { age(now.seconds - $0.seconds) } ?? "<none>", binarySize(size),
                        name,
                    ],
                    json: [
                        "name": .string(name), "image": bundle.tag.map { .string($0) } ?? .null,
                        "manifest": bundle.manifest.map { .string($0.description) } ?? .null,
                        "chain": bundle.chain.map { .string($0.description) } ?? .null, "driver": "btrfs",
                        "created": bundle.created.map { .string(RFC3339.format($0)) } ?? .null,
                        "exclusive": .number(JSONNumber(size)),
                    ])
            }
            try Listing(
                header: ["IMAGE", "CHAIN", "DRIVER", "AGE", "EXCLUSIVE", "BUNDLE"], items: items,
                width: truncation.width
            ).write(listing, to: context.output)
        }

        /// In the unit of `--older-than` that leaves two digits, or days.
        private func age(_ seconds: Int64) -> String {
            let seconds = max(0, seconds)
            switch seconds {
            case ..<100: return "\(seconds)s"
            case ..<6_000: return "\(seconds / 60)m"
            case ..<172_800: return "\(seconds / 3_600)h"
            default: return "\(seconds / 86_400)d"
            }
        }
    }

    struct Remove: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "rm", abstract: "Delete bundles, subvolumes nested in them included.")

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Argument(
            help: ArgumentHelp("The bundle; several may be given.", valueName: "bundle"),
            completion: .names(.bundle))
        var bundles: [PathArgument]

        func execute(_ context: CommandContext) throws {
            // A rootless bundle has files that not even their owner may list.
            context.tolerateMissingPermissions()
            try context.forEach(bundles.map(\.path)) { bundle in
                try BundleRemoval.remove(
                    bundle, cancellation: context.cancellation,
                    hooks: { try context.hooksDriverIfConfigured() }
                ) {
                    try context.openStore(of: [bundle])
                }
            }
        }
    }
}
