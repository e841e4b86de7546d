import ArgumentParser
import VarveLayers
import Logging
import VarveOCI
import VarveStore
import VarveSystem

/// What a start of the program costs counts most here, where layers are in place. So the options that other commands have in
/// groups stand here by themselves: a group costs 0.1 ms or more.
struct UnpackCommand: PlainCommand, GlobalChoices {
    static let about = CommandConfiguration(
        commandName: "unpack",
        abstract: "Make a bundle of an image.",
        discussion: """
            The bundle is a directory with rootfs/ and config.json, as runc and crun take it. It must be yet to be made. \
            If it lies on the btrfs that holds the store, it is a snapshot, and layers that the store has are not read; \
            anywhere else it is a plain directory. With --mtree, umoci can repack it.

            Examples:

              varve unpack --image ./debian:12 /var/lib/varve/bundles/web
              varve unpack --image docker://debian:12 /var/lib/varve/bundles/web
              varve unpack --image ./multi:latest --platform linux/arm64 /var/lib/varve/bundles/web
              varve unpack --image ./debian:12 --uid-map 0:100000:65536 /srv/web
              varve --store ~/store unpack --image ./debian:12 --rootless ~/bundles/web
            """)

    @Option(help: .store(.private), completion: .directory) var store: PathArgument?
    @Option(help: .log(.private)) var log: LogLevelArgument?
    @Option(help: .logFormat(.private)) var logFormat: LogFormatArgument?
    @Option(help: .errorFormat(.private)) var errorFormat: ErrorFormatArgument?
    @Flag(help: .noProgress(.private)) var noProgress = false
    var global: Self { self }

    @Option(
        help: ArgumentHelp(
            "PATH[:TAG], an OCI image layout and a tag in it; or an image elsewhere, as for varve pull: docker://NAME, an archive.",
            valueName: "image"), completion: .names(.anyImage))
    var image: PathArgument

    @Option(
        help: ArgumentHelp(
            "OS/ARCH[/VARIANT] of an image for several; this host's by default.", valueName: "platform"))
    var platform: PlatformArgument?

    @Option(help: "How the bundle is stored; auto by default.")
    var driver: DriverArgument?

    @Flag(help: "Write an mtree file too, which umoci needs to repack the bundle.")
    var mtree = false

    @Flag(help: "Keep symbolic links to directories where a layer has a directory.")
    var keepDirlinks = false

    @Flag(help: .strictXattrs)
    var strictXattrs = false

    @Option(help: .uidMap)
    var uidMap: [IDMapArgument] = []

    @Option(help: .gidMap)
    var gidMap: [IDMapArgument] = []

    @Flag(help: .rootless)
    var rootless = false

    @Option(
        help: ArgumentHelp(
            "Which prefixes of the layers are kept for other images: all, those that others may have, or only the whole image; auto by default."
        ))
    var chains: ChainsArgument?

    @Option(
        help: ArgumentHelp(
            "Memory for layers that are inflated ahead, for example 40M, the default.", valueName: "size"))
    var memory: SizeArgument?

    @Option(help: .bundleMode)
    var bundleMode: ModeArgument?

    @Option(help: .maxSize)
    var maxSize: SizeArgument?

    @Option(help: .maxEntries)
    var maxEntries: CountArgument?

    @Argument(help: ArgumentHelp("The bundle to make.", valueName: "bundle"), completion: .directory)
    var bundle: PathArgument

    func execute(_ context: CommandContext) throws {
        let owners = OwnerMapping(uidMap: uidMap, gidMap: gidMap, rootless: rootless)
        try owners.checkPrivileges()
        let named = try context.image(image.path)
        // What is wrong with the image is said before anything is asked of the host.
        let inLayout: ResolvedImage? =
            if case .layout(let reference) = named {
                try ImageLayout.resolve(
                    reference, platform: platform?.platform, cancellation: context.cancellation)
            } else { nil }
        let (driver, warning) = try context.driver(driver, forNew: bundle.path)
        var options = Unpacking.Options()
        options.apply.keepDirlinks = keepDirlinks
        options.apply.owners = owners
        options.apply.refusesOddAttributes = strictXattrs
        if let chains { options.chains = chains.policy }
        if let memory { options.memory = memory.byteCount }
        options.limits = UnpackLimits(maxSize: maxSize, maxEntries: maxEntries)
        if let bundleMode { options.bundleMode = bundleMode.mode }
        options.hostname = context.program.hostname
        options.writesMtree = try mtree || context.writesMtreeAlways()
        let unpacking = Unpacking(
            driver: driver, options: options, cancellation: context.cancellation, logger: context.logger,
            progress: context.showProgress("unpacking"))
        let (result, resolved) =
            switch named {
            case .layout: (try inLayout.map { try unpacking.unpack($0, into: bundle.path) }, inLayout)
            case .elsewhere(let source): try unpackElsewhere(source, unpacking, context)
            }
        guard let result, let resolved else { return }
        if let warning { context.logger.warning("\(warning)") }
        context.inform(
            "unpacked \(named) to \"\(bundle.path)\": \(result.layers) layers, \(result.layersInPlace) of them in place already",
            umoci: ["unpacking bundle ...", "unpack rootfs: \(bundle.path.appending("rootfs"))"]
                + resolved.layers.dropFirst(result.layersInPlace).map { "unpack layer: \($0.digest)" }
                + ["... done", "computing filesystem manifest ...", "... done"]
                + ["unpacked image bundle: \(bundle.path)"])
    }

    private func unpackElsewhere(
        _ source: TransportReference, _ unpacking: Unpacking, _ context: CommandContext
    ) throws -> (Unpacking.Result?, ResolvedImage?) {
        let transfer = try ImageTransfer(
            of: source, platform: platform?.platform,
            sizeLimit: UnpackLimits(maxSize: maxSize, maxEntries: maxEntries).size,
            cancellation: context.cancellation, logger: context.logger,
            progress: context.showProgress("fetching"))
        return try unpacking.unpack(
            transfer, keepingIn: try context.openStoreIfPresent(of: [bundle.path]), into: bundle.path)
    }
}

extension CommandContext {
    /// What an image of the command line is. umoci knows layouts alone.
    fileprivate func image(_ text: BytePath) throws -> TransportReference.Named {
        program == .umoci ? .layout(try ImageReference.locating(text)) : try TransportReference.find(text)
    }
}

extension UnpackCommand {
    mutating func take(_ words: inout PlainWords) throws {
        store = try words.value(of: "--store")
        log = try words.value(of: "--log")
        logFormat = try words.value(of: "--log-format")
        errorFormat = try words.value(of: "--error-format")
        noProgress = try words.has("--no-progress")
        image = try words.value(of: "--image") ?? { throw PlainWords.NotPlain() }()
        platform = try words.value(of: "--platform")
        driver = try words.value(of: "--driver")
        mtree = try words.has("--mtree")
        keepDirlinks = try words.has("--keep-dirlinks")
        strictXattrs = try words.has("--strict-xattrs")
        uidMap = try words.values(of: "--uid-map")
        gidMap = try words.values(of: "--gid-map")
        rootless = try words.has("--rootless")
        chains = try words.value(of: "--chains")
        memory = try words.value(of: "--memory")
        bundleMode = try words.value(of: "--bundle-mode")
        maxSize = try words.value(of: "--max-size")
        maxEntries = try words.value(of: "--max-entries")
        bundle = try words.argument()
    }
}
