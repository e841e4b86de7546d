import VarveFormats
import ArgumentParser
import Logging
import VarveOCI
import VarveStore
import VarveSystem

/// `varve store` du, check and gc.
extension StoreCommands {
    struct DiskUsage: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "du", abstract: "List what each chain takes on disk.",
            discussion: """
                Also listed are the trees of containerd's snapshots that are more than a chain: those that are written to, and \
                those that were committed and are none.

                EXCLUSIVE is what would be freed if that chain, or tree, alone were deleted. Where quota groups are on, the figures are \
                theirs; elsewhere the extents of files are counted, without metadata.
                """)

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @OptionGroup var listing: ListingOptions

        @OptionGroup var truncation: TruncationOptions

        func execute(_ context: CommandContext) throws {
            let usage = try context.openStore().usage()
            context.logger.info(
                usage.areQuotas
                    ? "the figures are those of quota groups" : "the figures are those of file extents")
            func item(
                _ name: String, _ shown: String, _ referenced: UInt64, _ exclusive: UInt64
            ) -> Listing.Item {
                let (referenced, exclusive) = (Int64(clamping: referenced), Int64(clamping: exclusive))
                return Listing.Item(
                    name: name, cells: [shown, binarySize(referenced), binarySize(exclusive)],
                    json: [
                        "name": .string(name), "referenced": .number(JSONNumber(referenced)),
                        "exclusive": .number(JSONNumber(exclusive)),
                        "source": .string(usage.areQuotas ? "quota" : "extents"),
                    ])
            }
            var items = usage.chains.map {
                item($0.name.description, truncation.shown($0.name), $0.referenced, $0.exclusive)
            }
            items += usage.trees.map { tree in
                let path = tree.path.description
                var item = item(path, path, tree.referenced, tree.exclusive)
                item.json["containerd"] = .string(tree.containerd)
                item.json["snapshot"] = tree.record.map { .string($0.key.text) } ?? .null
                return item
            }
            try Listing(
                header: ["CHAIN", "REFERENCED", "EXCLUSIVE"], items: items, width: truncation.width
            ).write(listing, to: context.output)
        }
    }

    struct Check: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "check", abstract: "Look whether the store is as it should be.",
            discussion: """
                Names, flags, leftovers, and by the file system's records whether a chain was changed after it was made: \
                no file is read. Ends with 0 if nothing is wrong (any more), else with 1. What is in the store and not of \
                its making is named and never removed.

                With --deep, every chain of the images given is made again from its layers and compared, byte for byte.

                Examples:

                  varve store check --repair
                  varve store check --deep --layout ./images
                """)

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Flag(help: "Compare chains with the layers that they are made of; needs --image or --layout.")
        var deep = false

        @Option(
            help: ArgumentHelp(
                "PATH[:TAG], an image whose chains are compared; may be repeated.", valueName: "image"),
            completion: .names(.image))
        var image: [PathArgument] = []

        @Option(
            help: ArgumentHelp(
                "An OCI image layout whose images are all compared; may be repeated.", valueName: "path"),
            completion: .directory)
        var layout: [PathArgument] = []

        @Flag(help: "Remove what is wrong and of the store's making.")
        var repair = false

        @OptionGroup var listing: ListingOptions

        func validate() throws {
            if deep, image.isEmpty, layout.isEmpty {
                throw ValidationError("--deep compares with layers; say whose with --image or --layout")
            }
            if !deep, !image.isEmpty || !layout.isEmpty {
                throw ValidationError("--image and --layout say what --deep compares with; give --deep too")
            }
        }

        func execute(_ context: CommandContext) throws {
            let store = try context.openStore()
            let report = try StoreCheck(store, repairs: repair).report(
                comparingWith: deep ? try images(context) : nil, cancellation: context.cancellation)
            if deep {
                context.logger.info("compared \(report.compared.count) chains with their layers")
                if report.uncompared > 0 {
                    context.logger.warning(
                        "\(report.uncompared) chains belong to none of these images, and were not compared")
                }
            }
            let items = report.findings.map { finding in
                let path = finding.path.isEmpty ? "." : finding.path.string ?? "\(finding.path)"
                let done =
                    finding.repair ?? finding.remedy?.shellWords ?? "varve store check --repair removes it"
                return Listing.Item(
                    name: path, cells: [path, finding.problem, done],
                    json: [
                        "path": .string(path), "problem": .string(finding.problem),
                        "repaired": .bool(finding.isRepaired),
                        "repair": finding.repair.map { .string($0) } ?? .null,
                        "remedy": finding.remedy.map { .string($0.shellWords) } ?? .null,
                    ])
            }
            if listing.format == .json || listing.quiet {
                try Listing(header: nil, items: items).write(listing, to: context.output)
            } else {
                for item in items {
                    let words = item.cells.map { BytePath.escape($0.utf8) }
                    try context.output.show(words.joined(separator: ": ") + "\n")
                }
            }
            let left = report.left
            if left > 0 {
                throw VarveError(
                    .failed,
                    "the store \"\(store.path)\" has \(left == 1 ? "a problem" : "\(left) problems")")
            }
        }

        private func images(_ context: CommandContext) throws -> [ImageSelection] {
            try image.map { try ImageLayout.everyImage(of: $0.path, context) }
                + layout.map {
                    try ImageLayout(opening: $0.path, cancellation: context.cancellation).selection(of: nil)
                }
        }
    }

    struct Collect: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "gc", abstract: "Delete the chains that nothing needs.",
            discussion: """
                Kept are the chains that bundles and snapshots descend from, those that running commands work with, and \
                those that the options name. Prints what was deleted. Other commands may use the store meanwhile.

                With --free, chains go one after another, the oldest first, until that much is free in the store's file system: none \
                where it is already. If all that nothing needs is not enough, the exit code is 7.

                --policy takes from the table gc of config.toml what the options do not say, as varve-gc.timer does once a day.

                Examples:

                  varve store gc --dry-run
                  varve store gc --keep-image ./images:debian --older-than 7d --sync
                  varve store gc --free 20G
                """)

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Option(
            help: ArgumentHelp(
                "PATH[:TAG], an image whose chains stay; may be repeated.", valueName: "image"),
            completion: .names(.image))
        var keepImage: [PathArgument] = []

        @Option(help: ArgumentHelp("Keep what is younger, such as 12h, 7d or 4w.", valueName: "age"))
        var olderThan: DurationArgument?

        @Option(
            help: ArgumentHelp(
                "Delete the oldest only, until this many bytes are free, such as 20G.", valueName: "size"))
        var free: SizeArgument?

        @Flag(help: "Do what the configuration says.")
        var policy = false

        @Flag(help: "Delete nothing; print what would be, and the bytes that it would free.")
        var dryRun = false

        @Flag(help: "Wait until the file system has given the space back.")
        var sync = false

        @OptionGroup var listing: ListingOptions

        func execute(_ context: CommandContext) throws {
            let store = try context.openStore()
            let policy = try policy ? self.configured(context) : ConfigurationFile.CollectionPolicy()
            var options = GarbageCollection.Options()
            for image in keepImage.map(\.path) + policy.keptImages {
                try ImageLayout.everyImage(of: image, context).forEach {
                    options.keptChains.formUnion($0.chainIDs)
                }
            }
            options.madeBefore = (olderThan ?? policy.olderThan)?.limit
            options.wantedFree = (free ?? policy.free)?.bytes
            options.isDryRun = dryRun
            options.waitsForSpace = sync
            let report = try GarbageCollection(store, options: options, cancellation: context.cancellation)
                .run()
            var items = report.chains.map { chain in
                Listing.Item(
                    name: "\(chain)", cells: [], json: ["name": .string("\(chain)"), "kind": "chain"])
            }
            items += report.images.map { source in
                Listing.Item(name: source, cells: [], json: ["name": .string(source), "kind": "image"])
            }
            items += report.refreshed.map { name in
                Listing.Item(
                    name: "\(name)", cells: [], json: ["name": .string("\(name)"), "kind": "refreshed"])
            }
            if listing.format == .json {
                // Only a dry run counts what goes before it goes.
                let bytes = report.exclusiveBytes.map { JSONValue.number(JSONNumber(Int64(clamping: $0))) }
                try context.output.write(
                    JSONValue.object([
                        "dryRun": .bool(dryRun), "exclusive": bytes ?? .null,
                        "blobs": .number(JSONNumber(report.blobs.freed)),
                        "delete": .array(items.map { .object($0.json) }),
                    ]).serialized() + [UInt8(ascii: "\n")])
            } else {
                try Listing(header: nil, items: items).write(listing, to: context.output)
                if dryRun, !listing.quiet, let bytes = report.exclusiveBytes.map({ Int64(clamping: $0) }) {
                    try context.output.write("would free \(bytes) bytes (\(binarySize(bytes)))\n")
                }
            }
            context.logger.info(
                "\(dryRun ? "would delete" : "deleted") \(report.chains.count) chains, kept \(report.kept)")
            if !report.isSpaceBack {
                context.logger.warning(
                    "not all space has come back yet: something has files open in what was deleted")
            }
            if !report.blobs.removed.isEmpty {
                context.logger.info(
                    "\(dryRun ? "would remove" : "removed") \(report.blobs.removed.count) blobs of \(report.blobs.freed) bytes of images that were brought from elsewhere"
                )
            }
            for name in report.inUse {
                context.logger.info("the chain \(name) is in use, and was kept")
            }
            if let wanted = options.wantedFree, let free = report.free, free < wanted {
                throw VarveError(
                    .noSpace,
                    "\(binarySize(free)) \(dryRun ? "would be" : "are") free in the store \"\(store.path)\", and not \(binarySize(wanted)): nothing else can be deleted",
                    subject: store.path, remedy: .freeSpace(on: report.mountPoint))
            }
        }

        private func configured(_ context: CommandContext) throws -> ConfigurationFile.CollectionPolicy {
            if let policy = try ConfigurationFile.load(context.environment).collection { return policy }
            let file = context.environment.hostConfiguration ?? "config.toml"
            throw CommandError(
                "no configuration says what --policy is",
                remedy: "write a table [gc] into \"\(file)\", for example with: older-than = \"7d\"")
        }
    }
}

extension ImageLayout {
    /// The images for all platforms that `PATH[:TAG]` names.
    static func everyImage(of path: BytePath, _ context: CommandContext) throws -> ImageSelection {
        let reference = try ImageReference.locating(path)
        return try ImageLayout(opening: reference.path, cancellation: context.cancellation).selection(
            of: reference)
    }
}
