import VarveFormats
import ArgumentParser
import VarveOCI
import VarveStore
import VarveSystem

extension StoreCommands {
    struct Names: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "names",
            abstract: "Show under which names stores have the layer prefixes of an image.",
            discussion: """
                One line for each prefix, the shortest first: how many layers it has, its chain, which is its OCI ChainID, \
                whether the store holds it, and the name that stacker's btrfs store gives it. With --stacker, also whether \
                that directory holds it.

                Examples:

                  varve store names --image ./debian:12
                  varve store names --no-trunc --image ./debian:12 --stacker roots
                """)

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Option(
            help: ArgumentHelp("PATH[:TAG], an OCI image layout and a tag in it.", valueName: "image"),
            completion: .names(.image))
        var image: PathArgument

        @Option(
            help: ArgumentHelp(
                "OS/ARCH[/VARIANT] of an image for several; this host's by default.", valueName: "platform"))
        var platform: PlatformArgument?

        @Option(
            help: ArgumentHelp("The directory where stacker keeps its trees.", valueName: "path"),
            completion: .directory)
        var stacker: PathArgument?

        @OptionGroup var listing: ListingOptions
        @OptionGroup var truncation: TruncationOptions

        func execute(_ context: CommandContext) throws {
            let image = try ImageLayout.resolve(
                try ImageReference.locating(image.path), platform: platform?.platform,
                cancellation: context.cancellation)
            let store = try context.openStoreIfPresent()
            let names = try LayerName.all(of: image, in: store, stacker: stacker?.path)
            let items = names.map { name in
                var item = Listing.Item(
                    name: name.chain.description,
                    cells: [
                        "\(name.layers)", truncation.shown(name.chain), name.isPresent ? "yes" : "no",
                        truncation.shown(name.stackerName),
                    ],
                    json: [
                        "layers": .number(JSONNumber(name.layers)), "name": .string(name.chain.description),
                        "chainID": .string(name.chain.chainID.description),
                        "isPresent": .bool(name.isPresent), "stackerName": .string(name.stackerName),
                    ])
                if let isThere = name.isInStacker {
                    item.cells.append(isThere ? "yes" : "no")
                    item.json["isInStacker"] = .bool(isThere)
                }
                return item
            }
            var header = ["LAYERS", "CHAIN", "PRESENT", "STACKER"]
            if stacker != nil { header.append("PRESENT") }
            try Listing(header: header, items: items, width: truncation.width).write(
                listing, to: context.output)
        }
    }
}
