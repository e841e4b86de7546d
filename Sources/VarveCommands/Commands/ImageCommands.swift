import VarveFormats
import ArgumentParser
import Varve
import Logging
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage

struct InitCommand: ExecutableCommand {
    static let about = CommandConfiguration(
        commandName: "init", abstract: "Make an empty image layout.")

    @OptionGroup(visibility: .private) var global: GlobalOptions

    @Option(help: ArgumentHelp("The directory to make.", valueName: "path"), completion: .directory)
    var layout: PathArgument

    func execute(_ context: CommandContext) throws {
        // umoci takes no directory that is there, be it empty.
        if context.program == .umoci,
            (try? FileDescriptor.workingDirectory.status(of: layout.path)) != nil
        {
            throw VarveError(
                .failed, "cannot make an image layout at \(layout.path): the path exists already")
        }
        try StoreGround.checkLayout(layout.path)
        _ = try ImageLayout.create(at: layout.path)
        context.inform(
            "made the image layout \(layout.path)", umoci: ["created new OCI image: \(layout.path)"])
    }
}

struct NewCommand: ExecutableCommand {
    static let about = CommandConfiguration(
        commandName: "new", abstract: "Make an image with no layers.")

    @OptionGroup(visibility: .private) var global: GlobalOptions

    @Option(
        help: ArgumentHelp("PATH[:TAG], the layout and the tag of the new image.", valueName: "image"),
        completion: .names(.image))
    var image: PathArgument

    func execute(_ context: CommandContext) throws {
        let created = try context.environment.sourceDate() ?? .now()
        let reference = try ImageReference.locating(image.path)
        let tag = try reference.tagToChange()
        let made = try ImageLayout(opening: reference.path, cancellation: context.cancellation).newImage(
            tag: tag, created: created)
        context.inform(
            "made the image \(made.digest) and tagged it \"\(reference.tag)\"",
            umoci: [
                "new image manifest created: \(made.digest)",
                "created new tag for image manifest: \(reference.tag)",
            ])
    }
}

struct TagCommand: ExecutableCommand {
    static let about = CommandConfiguration(
        commandName: "tag", abstract: "Give an image one more tag.",
        discussion: "Example: varve tag --image ./debian:12 bookworm")

    @OptionGroup(visibility: .private) var global: GlobalOptions

    @Option(
        help: ArgumentHelp("PATH[:TAG], an OCI image layout and a tag in it.", valueName: "image"),
        completion: .names(.image))
    var image: PathArgument

    @Argument(help: ArgumentHelp("The new tag.", valueName: "new-tag"))
    var newTag: TextArgument

    func execute(_ context: CommandContext) throws {
        let reference = try ImageReference.locating(image.path)
        let layout = try ImageLayout(opening: reference.path, cancellation: context.cancellation)
        try layout.tag(newTag.text, try layout.descriptor(of: reference))
        context.inform(
            "\(reference) has the tag \"\(newTag.text)\" too",
            umoci: [
                "created new tag: \(GoQuoting.quote(newTag.text)) -> \(GoQuoting.quote(reference.tag))"
            ])
    }
}

struct RemoveTagCommand: ExecutableCommand {
    static let about = CommandConfiguration(
        commandName: "rm", abstract: "Remove a tag.",
        discussion: "The blobs of its image stay until varve gc finds that no other tag leads to them.",
        aliases: ["remove"])

    @OptionGroup(visibility: .private) var global: GlobalOptions

    @Option(
        help: ArgumentHelp("PATH[:TAG], an OCI image layout and a tag in it.", valueName: "image"),
        completion: .names(.image))
    var image: PathArgument

    func execute(_ context: CommandContext) throws {
        let reference = try ImageReference.locating(image.path)
        let layout = try ImageLayout(opening: reference.path, cancellation: context.cancellation)
        // To umoci a tag that is not there is one that is removed.
        if try layout.removeTag(reference.tagToChange()) || context.program == .umoci {
            return context.inform(
                "removed the tag \"\(reference.tag)\"", umoci: ["removed tag: \(reference.tag)"])
        }
        throw try Images.isNotThere(reference, in: layout)
    }
}

struct ListTagsCommand: ExecutableCommand {
    static let about = CommandConfiguration(
        commandName: "ls", abstract: "List the tags of an image layout.", aliases: ["list"])

    @OptionGroup(visibility: .private) var global: GlobalOptions

    @Option(help: ArgumentHelp("The image layout.", valueName: "path"), completion: .directory)
    var layout: PathArgument

    @OptionGroup var listing: ListingOptions

    func execute(_ context: CommandContext) throws {
        let layout = try ImageLayout(opening: layout.path, cancellation: context.cancellation)
        let items: [Listing.Item]
        if listing.format == .json {
            items = try TaggedImage.all(in: layout).map {
                Listing.Item(name: $0.tag, cells: [], json: $0.json)
            }
        } else {
            items = try layout.listTags().map { Listing.Item(name: $0, cells: [$0], json: [:]) }
        }
        try Listing(header: nil, items: items).write(listing, to: context.output)
    }
}

struct StatCommand: ExecutableCommand {
    static let about = CommandConfiguration(
        commandName: "stat", abstract: "Show the manifest, the configuration and the history of an image.")

    @OptionGroup(visibility: .private) var global: GlobalOptions

    @Option(
        help: ArgumentHelp("PATH[:TAG], an OCI image layout and a tag in it.", valueName: "image"),
        completion: .names(.image))
    var image: PathArgument

    @Flag(help: "As one JSON document; the same as --format json.")
    var json = false

    @Option(help: "How the image is shown.")
    var format = DiffCommand.Format.text

    func execute(_ context: CommandContext) throws {
        let stat = try ImageStat(try ImageReference.locating(image.path))
        if json || format == .json {
            try stat.writeJSON { (text) throws(OutputError) in try context.output.write(text) }
            return try context.output.write("\n")
        }
        try StatText.write(stat) { (text) throws(OutputError) in try context.output.write(text) }
    }
}

struct CollectCommand: ExecutableCommand {
    static let about = CommandConfiguration(
        commandName: "gc", abstract: "Remove the blobs of a layout that no tag leads to.",
        discussion: """
            The blobs of images that a bundle or a snapshot of the store came from stay, so that it can still be \
            repacked. For bundles that are plain directories nothing is kept: tag their image until they are repacked.
            """)

    @OptionGroup(visibility: .private) var global: GlobalOptions

    @Option(help: ArgumentHelp("The image layout.", valueName: "path"), completion: .directory)
    var layout: PathArgument

    func execute(_ context: CommandContext) throws {
        let layout = try ImageLayout(opening: layout.path, cancellation: context.cancellation)
        // umoci knows of no store, and a script that calls it expects every such blob to go.
        let kept =
            context.program == .umoci ? [] : try context.openStoreIfPresent()?.neededManifests() ?? []
        let report = try layout.collectGarbage(keeping: kept)
        for blob in report.removed { context.logger.debug("removed the blob \(blob.digest)") }
        context.inform(
            "removed \(report.removed.count) blobs of \(report.freed) bytes from \"\(layout.path)\", kept \(report.kept)",
            umoci: [])
    }
}
