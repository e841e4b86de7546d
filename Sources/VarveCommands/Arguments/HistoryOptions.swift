import VarveFormats
import ArgumentParser
import Logging
import VarveOCI
import VarveStore
import VarveSystem

/// What the history of a new image says of it: the flags that all commands share which make one of another.
struct HistoryOptions: ParsableArguments {
    @Flag(help: "Add no entry to the history of the image.")
    var noHistory = false

    @Option(
        name: .customLong("history.author"), parsing: .unconditional,
        help: ArgumentHelp("Who made the change; the author of the image by default.", valueName: "text"))
    var author: TextArgument?

    @Option(
        name: .customLong("history.comment"), parsing: .unconditional,
        help: ArgumentHelp("A comment on the change.", valueName: "text"))
    var comment: TextArgument?

    @Option(
        name: .customLong("history.created"), parsing: .unconditional,
        help: ArgumentHelp(
            "When it was made, as RFC 3339 has it: 2025-01-31T12:00:00Z.", valueName: "time"))
    var created: TimeArgument?

    @Option(
        name: .customLong("history.created_by"), parsing: .unconditional,
        help: ArgumentHelp("What made it; the name of the command by default.", valueName: "text"))
    var createdBy: TextArgument?

    func validate() throws {
        let isHistoryGiven = author != nil || comment != nil || created != nil || createdBy != nil
        if noHistory, isHistoryGiven {
            throw ValidationError("--no-history and --history.* exclude each other; leave one of them out")
        }
    }

    /// Nil if there is to be no entry.
    func history(madeBy command: String) -> Repacking.History? {
        if noHistory { return nil }
        var history = Repacking.History()
        history.author = author?.text
        history.comment = comment?.text
        history.created = created?.time
        history.createdBy = createdBy?.text ?? command
        return history
    }
}

extension CommandContext {
    /// For a layer that gets no entry in the history of its image.
    func warnOfMissingHistory() {
        logger.warning(
            program == .umoci
                ? "new layer has no history entry -- this will confuse many tools!"
                : "the new layer has no entry in the history of the image, by which many tools are confused")
    }
}

extension HistoryOptions: PlainArguments {
    mutating func take(_ words: inout PlainWords) throws {
        noHistory = try words.has("--no-history")
        author = try words.value(of: "--history.author")
        comment = try words.value(of: "--history.comment")
        created = try words.value(of: "--history.created")
        createdBy = try words.value(of: "--history.created_by")
        try validate()
    }
}

/// An image that a command makes of another, and the tag that it gets.
struct ChangedImageOptions: ParsableArguments {
    @Option(help: ArgumentHelp("PATH[:TAG], an OCI image layout and a tag in it.", valueName: "image"))
    var image: PathArgument

    @Option(
        help: ArgumentHelp(
            "The tag of the new image; that of --image, which then names the new one, by default.",
            valueName: "tag"))
    var tag: TextArgument?

    @OptionGroup var history: HistoryOptions

    func reference() throws -> ImageReference { try ImageReference.locating(image.path) }

    /// Changes the image, says so in its history, and tags what comes out.
    ///
    /// - Parameter change: returns the layer that was added, nil for a change of the configuration alone.
    func run(
        _ context: CommandContext, as command: String,
        change: (ResolvedImage, inout ImageMutation, _ sourceDate: Timestamp?) throws -> (Descriptor, DiffID)?
    ) throws {
        let isUmoci = context.program == .umoci
        let sourceDate = try context.environment.sourceDate()
        let reference = try reference()
        let newTag = try tag?.text ?? reference.tagToChange()
        try ImageReference.checkTag(newTag)
        let image = try ImageLayout.resolve(reference, cancellation: context.cancellation)
        try image.layout.change { layout in
            var mutation = try ImageMutation(image)
            let added = try change(image.within(layout), &mutation, sourceDate)
            let history = history.history(madeBy: "\(context.program.name) \(command)")
            let created = history?.created ?? sourceDate ?? .now()
            var entry = history.map { history in
                HistoryEntry(
                    created: RFC3339.format(created), createdBy: history.createdBy,
                    // umoci's insert names nobody.
                    author: history.author
                        ?? (isUmoci && command == "insert" ? nil : mutation.config["author"]?.string),
                    comment: history.comment)
            }
            if let (layer, diffID) = added {
                try mutation.append(layer: layer, diffID: diffID, history: entry)
                if !isUmoci { mutation.setCreated(created) }
                if entry == nil { context.warnOfMissingHistory() }
            } else if entry != nil {
                entry?.isEmptyLayer = true
                if let entry { mutation.append(history: entry) }
            }
            let manifest = try mutation.commit(to: layout)
            try context.cancellation.check()
            try layout.tag(newTag, manifest)
            context.inform(
                "made the image \(manifest.digest) and tagged it \"\(newTag)\"",
                umoci: [
                    "new image manifest created: \(manifest.digest)->\(manifest.digest)",
                    (command == "insert" ? "updated tag" : "created new tag")
                        + " for image manifest: \(newTag)",
                ])
        }
    }
}
