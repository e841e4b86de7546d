import ArgumentParser
import OCI
import Store
import SystemCalls
import SystemPackage

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
                  varve store names --image ./debian:12 --stacker roots
                """)

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Option(
            help: ArgumentHelp("PATH[:TAG], an OCI image layout and a tag in it.", valueName: "image"))
        var image: PathArgument

        @Option(
            help: ArgumentHelp(
                "OS/ARCH[/VARIANT] of an image for several; this host's by default.", valueName: "platform"))
        var platform: PlatformArgument?

        @Option(help: ArgumentHelp("The directory where stacker keeps its trees.", valueName: "path"))
        var stacker: PathArgument?

        @OptionGroup var listing: ListingOptions

        func execute(_ context: CommandContext) throws {
            let image = try ImageLayout.resolve(
                try ImageReference.locating(image.path), platform: platform?.platform)
            let store = try context.openStoreIfPresent()
            let others = try stacker.map { try open($0.path) }
            let olderNames = StackerName.prefixes(of: image.layers)
            let items = try image.chainIDs.enumerated().map { index, chainID in
                let name = ChainName(chainID)
                let isPresent = try store?.chain(name) != nil
                let older = olderNames[index]
                var item = Listing.Item(
                    name: name.description,
                    cells: ["\(index + 1)", name.description, isPresent ? "yes" : "no", older],
                    json: [
                        "layers": .number(JSONNumber(index + 1)), "name": .string(name.description),
                        "chainID": .string(chainID.description), "isPresent": .bool(isPresent),
                        "stackerName": .string(older),
                    ])
                if let others {
                    let isThere = (try? others.fd.status(of: BytePath(older)))?.isDirectory == true
                    item.cells.append(isThere ? "yes" : "no")
                    item.json["isInStacker"] = .bool(isThere)
                }
                return item
            }
            var header = ["LAYERS", "CHAIN", "PRESENT", "STACKER"]
            if others != nil { header.append("PRESENT") }
            try Listing(header: header, items: items).write(listing, to: context.output)
        }

        private func open(_ path: BytePath) throws(StoreError) -> SharedDescriptor {
            do throws(Errno) {
                return SharedDescriptor(try FileDescriptor.workingDirectory.open(path, [.directory]))
            } catch {
                throw StoreError.system("open the directory", path, error)
            }
        }
    }
}
