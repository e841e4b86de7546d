import ArgumentParser
import VarveLayers
import Logging
import VarveOCI
import VarveStore
import VarveSystem

struct RepackCommand: PlainCommand {
    static let about = CommandConfiguration(
        commandName: "repack",
        abstract: "Add what changed in a bundle to its image, as one layer.",
        usage: "varve repack --image <image> [<options>] <bundle>",
        discussion: """
            IMAGE is the layout that holds the image that the bundle came from, and the tag that the new image gets; it \
            may be a new one. The same changes give the same layer. With SOURCE_DATE_EPOCH set, nothing in the image \
            bears a later time. If nothing changed, no layer is added.

            Examples:

              varve repack --image ./debian:12-mine /var/lib/varve/bundles/web
              varve repack --image ./debian:12 --mask-path /tmp /var/lib/varve/bundles/web
            """)

    @OptionGroup(visibility: .private) var global: GlobalOptions

    @Option(
        help: ArgumentHelp("PATH[:TAG], the layout and the tag of the new image.", valueName: "image"),
        completion: .names(.image))
    var image: PathArgument

    @Option(help: ArgumentHelp("Leave out this path and all below it; may be repeated.", valueName: "path"))
    var maskPath: [PathArgument] = []

    @Flag(help: "Pack the volumes of the image too.")
    var noMaskVolumes = false

    @Flag(help: "Count later changes of the bundle from now on.")
    var refreshBundle = false

    @OptionGroup var history: HistoryOptions

    @Option(help: "How the layer is compressed; auto is as the layers below it.")
    var compress = CompressionArgument.auto

    @Option(help: "What changes are found by, auto by default; the result is the same.")
    var source: SourceArgument?

    @Option(help: "How the bundle is stored; auto by default.")
    var driver: DriverArgument?

    @Flag(help: "Of a bundle that is a plain directory, read every file.")
    var paranoid = false

    @Argument(help: ArgumentHelp("The bundle.", valueName: "bundle"), completion: .names(.bundle))
    var bundle: PathArgument

    func execute(_ context: CommandContext) throws {
        let options = try repackOptions(
            of: context.program, sourceDate: try context.environment.sourceDate())
        let reference = try ImageReference.locating(image.path)
        let layout = try ImageLayout(opening: reference.path, cancellation: context.cancellation)
        let driver = try context.driver(driver, of: bundle.path)
        let result = try Repacking(
            driver: driver, options: options, cancellation: context.cancellation,
            progress: context.showProgress("repacking")
        ).repack(bundle.path, into: layout, tag: try reference.tagToChange())
        if noHistory, result.layer != nil { context.warnOfMissingHistory() }
        context.inform(
            result.layer.map {
                "repacked \"\(bundle.path)\" as \(reference): \(result.changes) changes, layer \($0.digest) of \($0.size) bytes"
            } ?? "nothing changed in \"\(bundle.path)\"; \(reference) is the image that it came from",
            umoci: ["computing filesystem diff ...", "... done"]
                + ["new image manifest created: \(result.manifest.digest)->\(result.manifest.digest)"]
                + ["created new tag for image manifest: \(reference.tag)"]
                + (refreshBundle ? ["computing filesystem manifest ...", "... done"] : []))
    }

    private var noHistory: Bool { history.noHistory }

    private func repackOptions(of program: Program, sourceDate: Timestamp?) throws -> Repacking.Options {
        var options = Repacking.Options(now: .now())
        options.sourceDate = sourceDate
        options.maskedPaths = maskPath.map(\.path)
        options.masksVolumes = !noMaskVolumes
        options.refreshesBundle = refreshBundle
        options.compression = compress.compression
        options.source = source?.source ?? .auto
        options.readsAll = paranoid
        options.isAsUmoci = program == .umoci
        options.history = history.history(madeBy: "\(program.name) repack")
        return options
    }
}

extension RepackCommand {
    mutating func take(_ words: inout PlainWords) throws {
        global = try GlobalOptions.plain(&words)
        image = try words.value(of: "--image") ?? { throw PlainWords.NotPlain() }()
        maskPath = try words.values(of: "--mask-path")
        noMaskVolumes = try words.has("--no-mask-volumes")
        refreshBundle = try words.has("--refresh-bundle")
        history = try HistoryOptions.plain(&words)
        compress = try words.value(of: "--compress") ?? .auto
        source = try words.value(of: "--source")
        driver = try words.value(of: "--driver")
        paranoid = try words.has("--paranoid")
        bundle = try words.argument()
    }
}
