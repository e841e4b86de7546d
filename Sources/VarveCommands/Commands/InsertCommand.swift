import ArgumentParser
import VarveLayers
import VarveOCI
import VarveStore
import VarveSystem

struct InsertCommand: ExecutableCommand {
    static let about = CommandConfiguration(
        commandName: "insert",
        abstract: "Put files into an image, or delete one, as one layer.",
        usage: """
            varve insert --image <image> [--tag <tag>] [--opaque] [<options>] <source> <target>
            varve insert --image <image> [--tag <tag>] --whiteout [<options>] <target>
            """,
        discussion: """
            No bundle is made. The layers below keep what they hold: a secret is not removed by this.

            Examples:

              varve insert --image ./debian:12 ./nginx.conf /etc/nginx/nginx.conf
              varve insert --image ./debian:12 --opaque ./conf.d /etc/nginx/conf.d
              varve insert --image ./debian:12 --whiteout /usr/share/doc
            """)

    @OptionGroup(visibility: .private) var global: GlobalOptions

    @OptionGroup var change: ChangedImageOptions

    @Flag(help: "Delete the target.")
    var whiteout = false

    @Flag(help: "Hide what the layers below have in the target, a directory.")
    var opaque = false

    @Option(help: "How the layer is compressed; auto is as the layers below it.")
    var compress = CompressionArgument.auto

    @OptionGroup var owners: OwnerOptions

    @Argument(
        help: ArgumentHelp("The file or directory to put in, and its path in the image.", valueName: "path"))
    var paths: [PathArgument]

    func validate() throws {
        let wanted = whiteout ? 1 : 2
        guard paths.count == wanted else {
            throw ValidationError(
                whiteout
                    ? "insert --whiteout takes one path, the target, and \(paths.count) are given"
                    : "insert takes two paths, the source and the target, and \(paths.count) "
                        + (paths.count == 1 ? "is given" : "are given"))
        }
    }

    func execute(_ context: CommandContext) throws {
        context.tolerateMissingPermissions()
        try change.run(context, as: "insert") { image, _, sourceDate in
            var options = Inserting.Options(compression: compress.compression ?? image.usualCompression)
            options.pack.latestTime = sourceDate
            options.pack.owners = owners.mapping
            options.pack.hasWholeSeconds = context.program == .umoci
            let inserting = Inserting(
                into: image.layout, options: options, cancellation: context.cancellation)
            return whiteout
                ? try inserting.delete(paths[0].path)
                : try inserting.insert(paths[0].path, at: paths[1].path, isOpaque: opaque)
        }
    }
}
