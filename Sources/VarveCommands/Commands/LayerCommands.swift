import ArgumentParser
import VarveFormats
import VarveOCI
import VarveStore
import VarveSystem

struct LayerCommands: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "layer", abstract: "Look into the layers of an image.", subcommands: [List.self])

    func run() throws { throw MissingCommand(command: Self.self) }

    struct List: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "ls", abstract: "List the layers of an image, or what one of them holds.",
            discussion: """
                Without N, a line for each layer, the bottom one first: how many entries it has, how many of them are whiteouts, what its \
                files have in bytes, and what its blob has. With N, which begins at 1, a line for each entry. The layers are read, and \
                their digests checked.

                Examples:

                  varve layer ls ./debian:12
                  varve layer ls ./debian:12 2
                """)

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Option(help: .platform)
        var platform: PlatformArgument?

        @Option(help: .maxSize)
        var maxSize: SizeArgument?

        @Option(help: .maxEntries)
        var maxEntries: CountArgument?

        @OptionGroup var listing: ListingOptions

        @OptionGroup var truncation: TruncationOptions

        @Argument(
            help: ArgumentHelp("PATH[:TAG], an OCI image layout and a tag in it.", valueName: "image"),
            completion: .names(.image))
        var image: PathArgument

        @Argument(help: ArgumentHelp("Which layer; 1 is the bottom one.", valueName: "n"))
        var number: CountArgument?

        func execute(_ context: CommandContext) throws {
            let image = try ImageLayout.resolve(
                try ImageReference.locating(image.path), platform: platform?.platform,
                cancellation: context.cancellation)
            let contents = LayerContents(
                of: image, limits: UnpackLimits(maxSize: maxSize, maxEntries: maxEntries),
                cancellation: context.cancellation)
            guard let number else { return try list(image, contents, context.output) }
            guard (1...max(1, image.layers.count)).contains(number.count), !image.layers.isEmpty else {
                throw CommandError(
                    "the image has \(image.layers.count) layers, and no layer \(number.count)",
                    code: .notFound)
            }
            try show(number.count - 1, contents, context.output)
        }

        private func list(
            _ image: ResolvedImage, _ contents: LayerContents, _ output: ResultWriter
        ) throws {
            let items = try image.layers.indices.map { index in
                let layer = image.layers[index]
                let name = layer.digest.description
                if listing.quiet { return Listing.Item(name: name, cells: [], json: [:]) }
                let summary = try contents.summary(of: index)
                return Listing.Item(
                    name: name,
                    cells: [
                        "\(index + 1)", truncation.shown(layer.digest), "\(summary.entries)",
                        "\(summary.whiteouts)", binarySize(summary.bytes), binarySize(layer.size),
                    ],
                    json: [
                        "name": .string(name), "layer": .number(JSONNumber(index + 1)),
                        "diffID": .string(image.diffIDs[index].description),
                        "mediaType": .string(layer.mediaType),
                        "entries": .number(JSONNumber(summary.entries)),
                        "whiteouts": .number(JSONNumber(summary.whiteouts)),
                        "bytes": .number(JSONNumber(summary.bytes)), "size": .number(JSONNumber(layer.size)),
                    ])
            }
            try Listing(
                header: ["LAYER", "DIGEST", "ENTRIES", "WHITEOUTS", "BYTES", "SIZE"], items: items,
                width: truncation.width
            ).write(listing, to: output)
        }

        /// Entry by entry: a layer may have very many.
        private func show(_ index: Int, _ contents: LayerContents, _ output: ResultWriter) throws {
            let isJSON = listing.format == .json
            var count = 0
            if isJSON { try output.write("[") }
            try contents.read(index) { entry in
                defer { count += 1 }
                if isJSON {
                    var json: JSONObject = ["kind": .string(entry.kind.rawValue)]
                    entry.path.put(into: &json, as: "path")
                    if entry.kind == .file { json["size"] = .number(JSONNumber(entry.size)) }
                    entry.target?.put(into: &json, as: "target")
                    try output.write(count == 0 ? "\n" : ",\n")
                    return try output.write(JSONValue.object(json).serialized())
                }
                let path = BytePath.escape(entry.path.bytes)
                if listing.quiet { return try output.show(path + "\n") }
                let kind = entry.kind.rawValue
                var line = kind + String(repeating: " ", count: max(1, 11 - kind.count))
                let size = entry.kind == .file ? binarySize(entry.size) : ""
                line += String(repeating: " ", count: max(0, 9 - size.count)) + size + " " + path
                if let target = entry.target { line += " -> " + BytePath.escape(target.bytes) }
                if let width = truncation.width, line.count > width { line = line.prefix(width - 1) + "…" }
                try output.show(line + "\n")
            }
            if isJSON { try output.write(count == 0 ? "]\n" : "\n]\n") }
        }
    }
}

extension BytePath {
    /// As a member of an object; base64 under another key where it is not UTF-8.
    fileprivate func put(into object: inout JSONObject, as key: String) {
        if let string {
            object[key] = .string(string)
        } else {
            object[key + "Base64"] = .string(String(decoding: Base64.encode(bytes), as: UTF8.self))
        }
    }
}
