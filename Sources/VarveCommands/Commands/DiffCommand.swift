import ArgumentParser
import VarveLayers
import VarveOCI
import VarveStore
import VarveSystem

struct DiffCommand: PlainCommand {
    static let about = CommandConfiguration(
        commandName: "diff",
        abstract: "Show what changed in a bundle, or between two subvolumes.",
        usage: """
            varve diff [--format <format>] [-z] [--source <source>] [--paranoid] <bundle>
            varve diff [--format <format>] [-z] [--source <source>] <old> <new>
            varve diff [--format <format>] [-z] <image> <image>
            """,
        discussion: """
            One line a path: A for added, M for modified, D for deleted, a space, and the path relative to the root of \
            the tree, which is itself shown as a dot. Lines are sorted by bytes. A renamed directory is a D of the old \
            and an A for everything in the new one; what lay below a deleted directory is not listed. Control bytes and \
            backslash are shown as \\xHH.

            Of two images, LAYOUT:TAG, their chains are compared; one that the store has not is made, as by an unpack.

            OLD and NEW are any two subvolumes of one btrfs, or names of snapshots or chains of the store. Of bundles, \
            snapshots and chains, the trees in rootfs/ are compared.

            Examples:

              varve diff /var/lib/varve/bundles/web
              varve diff monday tuesday
              varve diff ./images:12 ./images:13
              varve diff -z /srv/data/.snapshots/1 /srv/data | xargs -0 -n1 echo
            """)

    enum Format: String, ChoiceArgument {
        case text, json
    }

    @OptionGroup(visibility: .private) var global: GlobalOptions

    @Option(help: "How changes are shown.")
    var format = Format.text

    @Flag(name: .customShort("z"), help: "End each line with NUL, and escape nothing.")
    var terminated = false

    @Option(help: "What changes are found by, auto by default; the result is the same.")
    var source: SourceArgument?

    @Option(help: "How the bundle is stored; auto by default.")
    var driver: DriverArgument?

    @Flag(help: "Of a bundle that is a plain directory, read every file.")
    var paranoid = false

    @Argument(
        help: ArgumentHelp("A bundle, or two subvolumes.", valueName: "tree"), completion: .names(.tree))
    var trees: [PathArgument]

    func validate() throws {
        guard trees.count <= 2 else {
            throw ValidationError(
                "diff takes one bundle or two subvolumes, and \(trees.count) paths are given")
        }
        if terminated, format == .json {
            throw ValidationError("-z and --format json exclude each other; give one of them")
        }
    }

    func execute(_ context: CommandContext) throws {
        guard let first = trees.first, let last = trees.last else { return }
        let cancellation = context.cancellation
        let source = source?.source ?? .auto
        let delta: DeltaResult
        if trees.count == 1 {
            delta = try context.driver(driver, of: first.path).freeze(
                RepackContext(
                    bundle: first.path, source: source, readsAll: paranoid, cancellation: cancellation)
            )
            .delta { try cancellation.check() }.requireAll()
        } else if let images = try images(first.path, last.path, cancellation) {
            delta = try ChainComparison(
                in: try context.openStore(), logger: context.logger, cancellation: cancellation,
                progress: context.showProgress("unpacking")
            ).delta(from: images.old, to: images.new, source: source)
        } else {
            delta = try SubvolumeComparison(
                store: try context.openStoreIfPresent(of: trees.map(\.path)), logger: context.logger
            ).delta(from: first.path, to: last.path, source: source) { try cancellation.check() }
        }
        let format: ChangeFormat = self.format == .json ? .json : terminated ? .terminated : .text
        try format.write(delta.changes, to: context.output)
    }

    /// Both sides as images of layouts; nil if one is none.
    private func images(_ old: BytePath, _ new: BytePath, _ cancellation: Cancellation) throws -> (
        old: ResolvedImage, new: ResolvedImage
    )? {
        guard ImageReference.namesLayout(old), ImageReference.namesLayout(new) else { return nil }
        return (
            try ImageLayout.resolve(
                try ImageReference.locating(old), cancellation: cancellation),
            try ImageLayout.resolve(
                try ImageReference.locating(new), cancellation: cancellation)
        )
    }
}

extension DiffCommand {
    mutating func take(_ words: inout PlainWords) throws {
        global = try GlobalOptions.plain(&words)
        format = try words.value(of: "--format") ?? .text
        terminated = try words.has("-z")
        source = try words.value(of: "--source")
        driver = try words.value(of: "--driver")
        paranoid = try words.has("--paranoid")
        trees = try words.arguments()
    }
}
