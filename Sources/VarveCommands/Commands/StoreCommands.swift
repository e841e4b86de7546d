import VarveFormats
import ArgumentParser
import VarveBtrfs
import BtrfsSendStream
import SystemPackage
import Logging
import VarveOCI
import VarveStore
import VarveSystem

struct StoreCommands: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "store",
        abstract: "Make and look after a store.",
        subcommands: [
            Initialize.self, Mount.self, Unmount.self, Status.self, List.self, Names.self, DiskUsage.self,
            Check.self, Collect.self, Remove.self, Resize.self, Destroy.self,
        ])

    func run() throws { throw MissingCommand(command: Self.self) }

    struct Initialize: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "init",
            abstract: "Make a store.",
            discussion: """
                PATH is a directory on btrfs, or one that is yet to be made there; by default it is where a store is \
                looked for. With --loopback, the store lies in a btrfs of its own, in the image file PATH.btrfs, which \
                is mounted at PATH: for hosts with no btrfs. --at-boot brings that back after a reboot: by a mount unit, or \
                on a host without systemd by a line in /etc/fstab. --compress has btrfs compress what is written to it.

                With --for, root makes the store of another user, who needs no privileges to use it: on a btrfs that is mounted with \
                user_subvol_rm_allowed.

                Examples:

                  varve store init /srv/varve
                  varve store init --for alice /srv/varve/alice
                  varve store init --loopback 20G --at-boot
                  varve store init --loopback 20G --compress zstd:1
                """)

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Option(
            help: ArgumentHelp(
                "Make an image file of this size, such as 20G; blocks are taken as they are used.",
                valueName: "size"))
        var loopback: SizeArgument?

        @Flag(help: "Mount it at each boot; with --loopback.")
        var atBoot = false

        @Option(
            help: ArgumentHelp(
                "zstd, or zstd:1 to zstd:15: compress what is written to it; with --loopback.",
                valueName: "method"))
        var compress: StoreCompressionArgument?

        @Option(
            name: .customLong("for"),
            help: ArgumentHelp("Whose store it is to be; for root.", valueName: "user"))
        var owner: TextArgument?

        @Argument(help: ArgumentHelp("Where the store is to be.", valueName: "path"), completion: .directory)
        var path: PathArgument?

        func validate() throws {
            if owner != nil, path == nil {
                throw ValidationError("--for needs the path of the user's store")
            }
            if loopback != nil, owner != nil {
                throw ValidationError(
                    "--for is for a directory on a btrfs that is there, and --loopback for a file system of root's; give one of them"
                )
            }
            if loopback != nil { return }
            if atBoot {
                throw ValidationError("--at-boot is for stores in an image file; give --loopback too")
            }
            if compress != nil {
                throw ValidationError(
                    "--compress is for stores in an image file, whose file system is their own; give --loopback too, or mount the btrfs with compress=zstd"
                )
            }
        }

        func execute(_ context: CommandContext) throws {
            let path = try context.storePath(path)
            if let owner {
                try SnapshotStore.initialize(
                    at: path, for: try account(owner.text), logger: context.logger,
                    cancellation: context.cancellation)
            } else if let loopback {
                _ = try LoopbackStore.create(
                    at: path, size: loopback.bytes, compression: compress?.compression,
                    logger: context.logger, cancellation: context.cancellation)
                if atBoot { try BootMount(of: path, logger: context.logger).install() }
            } else {
                try SnapshotStore.initialize(
                    at: path, logger: context.logger, cancellation: context.cancellation
                ).sweeper.sweep()
            }
            context.logger.info("the store is in \"\(path)\"")
        }

        private func account(_ name: String) throws -> HostAccount {
            let found: HostAccount?
            do throws(Errno) { found = try HostAccount.find(name) } catch {
                throw VarveError(.failed, "cannot look up the user \"\(name)\": \(error)")
            }
            guard let found else {
                throw VarveError(
                    .notFound, "this host has no user \"\(BytePath.escape(name.utf8))\"",
                    subject: BytePath(name), remedy: .name("one that it has"))
            }
            return found
        }
    }

    struct Mount: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "mount", abstract: "Bring a loopback store back after a reboot.",
            discussion: "With --at-boot, every boot does that from now on.")

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Flag(help: "Mount it at each boot.")
        var atBoot = false

        @Argument(help: ArgumentHelp("Where the store is.", valueName: "path"), completion: .directory)
        var path: PathArgument?

        func execute(_ context: CommandContext) throws {
            let path = try context.storePath(path)
            try LoopbackStore.mount(at: path)
            if atBoot { try BootMount(of: path, logger: context.logger).install() }
        }
    }

    struct Unmount: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "unmount", abstract: "Unmount a loopback store; its image file stays.",
            discussion: "With --forget, no boot brings it back any more, also where it is not mounted.")

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Flag(help: "Take away what --at-boot made.")
        var forget = false

        @Argument(help: ArgumentHelp("Where the store is.", valueName: "path"), completion: .directory)
        var path: PathArgument?

        func execute(_ context: CommandContext) throws {
            let path = try context.storePath(path)
            guard forget else { return try LoopbackStore.unmount(path) }
            do {
                try LoopbackStore.unmount(path)
            } catch let error as VarveError where error.code == .notFound {
                context.logger.info("\(error.reason)")
            }
            if try !BootMount(of: path, logger: context.logger).remove() {
                context.logger.info("no boot would have brought the store \"\(path)\" back")
            }
        }
    }

    struct List: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "ls",
            abstract: "List the chains of the store: one for each layer prefix unpacked so far.",
            discussion: """
                A chain that is not used is built anew where it is needed; STATE says why. Behind it stand the IDs of the containerds \
                that have snapshots of the chain.
                """)

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @OptionGroup var listing: ListingOptions

        @OptionGroup var truncation: TruncationOptions

        @Flag(help: "Show which chain lies on which, with the images and the bundles of each.")
        var tree = false

        func validate() throws {
            if tree, listing.quiet {
                throw ValidationError("-q and --tree exclude each other; give one of them")
            }
        }

        func execute(_ context: CommandContext) throws {
            let store = try context.openStore()
            let containerds = try store.containerdsOfChains()
            let contents = try StoreContents(of: store, isBrief: listing.quiet)
            if tree, listing.format == .table { return try show(contents, context.output) }
            let items = contents.chains.map { item($0, containerds[$0.name] ?? []) }
            try Listing(
                header: ["CHAIN", "CREATED", "SIZE", "STATE", "IMAGES"], items: items, width: truncation.width
            ).write(listing, to: context.output)
        }

        private func item(_ chain: StoreContents.Chain, _ users: [String]) -> Listing.Item {
            let name = chain.name.description
            let info = chain.listed.info
            func size(_ bytes: UInt64?) -> JSONValue {
                bytes.map { .number(JSONNumber(Int64(clamping: $0))) } ?? .null
            }
            var json: JSONObject = [
                "name": .string(name), "chainID": .string(chain.name.chainID.description),
                "created": info.map { .string(RFC3339.format($0.originTime)) } ?? .null,
                "uuid": info.map { .string($0.uuid.description) } ?? .null,
                "below": chain.below.map { .string($0.description) } ?? .null,
                "referenced": size(chain.usage?.referenced), "exclusive": size(chain.usage?.exclusive),
                "images": .array(chain.images.map { .string($0) }),
                "bundles": .array(chain.bundles.map { .string($0.string ?? "\($0)") }),
            ]
            if let reason = chain.listed.reasonNotToUse { json["notUsed"] = .string(reason) }
            if !users.isEmpty { json["containerds"] = .array(users.map { .string($0) }) }
            var state = chain.listed.reasonNotToUse.map { "not used: \($0)" } ?? "used"
            if !users.isEmpty { state += "; containerd: " + users.joined(separator: ", ") }
            return Listing.Item(
                name: name,
                cells: [
                    truncation.shown(chain.name), info.map { truncation.shown($0.originTime) } ?? "<none>",
                    chain.usage.map { binarySize(Int64(clamping: $0.referenced)) } ?? "-", state,
                    chain.images.joined(separator: ", "),
                ], json: json)
        }

        private func show(_ contents: StoreContents, _ output: ResultWriter) throws {
            for (chain, depth) in contents.tree {
                let indent = String(repeating: "  ", count: min(depth, 100))
                var lines = [indent + truncation.shown(chain.name)]
                if let usage = chain.usage {
                    lines[0] += "  " + binarySize(Int64(clamping: usage.referenced))
                }
                if chain.listed.reasonNotToUse != nil { lines[0] += "  not used" }
                lines += chain.images.map { "\(indent)    image \(BytePath.escape($0.utf8))" }
                lines += chain.bundles.map { "\(indent)    bundle \($0)" }
                for line in lines {
                    try output.show((truncation.width.map { Table.cut(line, to: $0) } ?? line) + "\n")
                }
            }
        }
    }

    struct Remove: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "rm", abstract: "Delete a chain from the store.",
            discussion: "Bundles and chains that were made from it stay whole.")

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Argument(
            help: ArgumentHelp("The chain, as varve store ls names it.", valueName: "chain"),
            completion: .names(.chain))
        var chain: TextArgument

        func execute(_ context: CommandContext) throws {
            guard let name = ChainName(chain.text) ?? Digest(chain.text).map({ ChainName(ChainID($0)) })
            else {
                throw VarveError(
                    .usage, "\"\(chain.text)\" is not the name of a chain", subject: BytePath(chain.text),
                    remedy: .listChains)
            }
            try context.openStore().chains.remove(name)
        }
    }
}
