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
    @Option(
        help: ArgumentHelp("PATH[:TAG], an OCI image layout and a tag in it.", valueName: "image"),
        completion: .names(.image))
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
        let createdBy = "\(context.program.name) \(command)"
        var options = ImageEditing.Options(
            tag: newTag, history: history.history(madeBy: createdBy), sourceDate: sourceDate)
        options.keepsCreated = isUmoci
        options.namesAuthor = !(isUmoci && command == "insert")
        let result = try ImageEditing(options, cancellation: context.cancellation).edit(
            image, tag: newTag, createdBy: createdBy
        ) { image, mutation in
            let added = try change(image, &mutation, sourceDate)
            if added != nil, options.history == nil { context.warnOfMissingHistory() }
            return added
        }
        context.inform(
            "made the image \(result.manifest.digest) and tagged it \"\(newTag)\"",
            umoci: [
                "new image manifest created: \(result.manifest.digest)->\(result.manifest.digest)",
                (command == "insert" ? "updated tag" : "created new tag") + " for image manifest: \(newTag)",
            ])
    }
}
