import ArgumentParser
import Logging
import VarveOCI
import VarveStore
import VarveSystem

/// `varve pull` and `varve push`.
struct PullCommand: ExecutableCommand {
    static let about = CommandConfiguration(
        commandName: "pull",
        abstract: "Bring an image from a registry, an archive or another tool.",
        discussion: """
            REF is docker://NAME[:TAG|@DIGEST], docker-archive:FILE[:NAME:TAG], oci-archive:FILE[:TAG], \
            docker-daemon:NAME:TAG, containers-storage:NAME[:TAG], oci:DIRECTORY[:TAG] or dir:DIRECTORY. skopeo reaches it, \
            with its own authentication (skopeo login). The image goes to LAYOUT, which is made if it is not there, else to the layout \
            that the store keeps for that. Layers that are there are not fetched. Prints what the image is called here.

            Examples:

              varve pull docker://debian:12 ./images:debian
              varve pull docker-archive:web.tar
            """)

    @OptionGroup(visibility: .private) var global: GlobalOptions

    @Option(help: .platform)
    var platform: PlatformArgument?

    @Argument(
        help: ArgumentHelp("The image, with its transport.", valueName: "ref"), completion: .names(.transport)
    )
    var source: PathArgument

    @Argument(
        help: ArgumentHelp("PATH[:TAG], an image layout and the tag of the image.", valueName: "image"),
        completion: .names(.image))
    var image: PathArgument?

    func execute(_ context: CommandContext) throws {
        let transfer = try ImageTransfer(
            of: try TransportReference.ofArgument(source.path), platform: platform?.platform,
            cancellation: context.cancellation, logger: context.logger,
            progress: context.showProgress("pulling"))
        let made: (image: ResolvedImage, name: ImageReference)
        if let image {
            made = try transfer.pull(as: try ImageReference.locating(image.path))
        } else {
            made = try transfer.pull(into: try context.openStore())
        }
        try context.output.show("\(made.name)\n")
        context.inform(
            "pulled \(made.name): \(made.image.layers.count) layers, manifest \(made.image.manifestDescriptor.digest)",
            umoci: [])
    }
}

struct PushCommand: ExecutableCommand {
    static let about = CommandConfiguration(
        commandName: "push",
        abstract: "Copy an image to a registry, an archive or another tool.",
        discussion: """
            REF is as for varve pull, without a digest. An image for several platforms is copied with all of them, unless --platform names \
            one. Prints the digest of what was pushed.

            Examples:

              varve push ./images:web docker://registry.example.com/web:12
              varve push ./images:web docker-archive:web.tar:web:12
            """)

    @OptionGroup(visibility: .private) var global: GlobalOptions

    @Option(
        help: ArgumentHelp("OS/ARCH[/VARIANT], the only image of several to copy.", valueName: "platform"))
    var platform: PlatformArgument?

    @Argument(
        help: ArgumentHelp("PATH[:TAG], an OCI image layout and a tag in it.", valueName: "image"),
        completion: .names(.image))
    var image: PathArgument

    @Argument(
        help: ArgumentHelp("Where the image goes, with the transport.", valueName: "ref"),
        completion: .names(.transport))
    var destination: PathArgument

    func execute(_ context: CommandContext) throws {
        let reference = try ImageReference.locating(image.path)
        let destination = try TransportReference.ofArgument(destination.path)
        let pushed = try ImagePush(
            to: destination, platform: platform?.platform, cancellation: context.cancellation,
            logger: context.logger, progress: context.showProgress("pushing")
        ).push(reference)
        try context.output.show("\(pushed.digest)\n")
        context.inform("pushed \(reference) to \(destination)", umoci: [])
    }
}

extension TransportReference {
    /// What is named on the command line: a transport must stand before it.
    fileprivate static func ofArgument(_ text: BytePath) throws -> TransportReference {
        if let reference = try TransportReference(parsing: text) { return reference }
        if case .elsewhere(let archive) = try? find(text) { return archive }
        throw CommandError(
            "\"\(BytePath.excerpt(text.bytes))\" has no transport before it",
            remedy:
                "write docker://NAME for an image in a registry, or docker-archive:, oci-archive:, docker-daemon:, containers-storage:, oci: or dir:"
        )
    }
}

extension ArgumentHelp {
    static let platform = ArgumentHelp(
        "OS/ARCH[/VARIANT] of an image for several; this host's by default.", valueName: "platform")
}
