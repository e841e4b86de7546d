import VarveFormats
import VarveArchive
public import VarveLayers
public import VarveOCI
public import VarveSystem
import SystemPackage

/// Writes what changed in a bundle as one new layer of a new image, through any driver.
public struct Repacking: Sendable {
    /// What the history of the new image says (image-spec config.md, "history").
    public struct History: Sendable {
        /// Who made the change.
        public var author: String?
        /// Words about the change.
        public var comment: String?
        /// When the change was made; nil for the time of the call, or `sourceDate`.
        public var created: Timestamp?
        /// The command that made the change; nil for the name of the call.
        public var createdBy: String?
        package init() {}
    }

    /// How a bundle is repacked.
    public struct Options: Sendable {
        /// Nil leaves the history as it is.
        public var history: History? = History()
        /// A repack in which nothing changed makes a new image too, whose history says so, and leaves when the image was
        /// made, as umoci does; and times in layers have whole seconds.
        package var isAsUmoci = false
        /// Paths of the image that are not packed, with everything below them.
        public var maskedPaths: [BytePath] = []
        /// The image's volumes are not packed either.
        public var masksVolumes = true
        /// Later deltas of the bundle count from now on.
        public var refreshesBundle = false
        /// Nil: as the image's other layers are.
        public var compression: LayerCompression?
        /// How many threads compress the layer.
        public var threads = 2
        /// What finds the changes, where the driver has a choice.
        public var source: DeltaSource = .auto
        /// Content is compared also where all else says that it is as it was.
        public var readsAll = false
        /// `SOURCE_DATE_EPOCH`: the latest time that anything in the image bears, and that of its creation.
        public var sourceDate: Timestamp?
        /// The time of creation where nothing else says it; nil for the time at which the image is made.
        package var now: Timestamp?
        /// What the command does without options.
        public init() {}

        package init(now: Timestamp?) { self.now = now }
    }

    /// The image that was made.
    public struct Result: Sendable {
        /// Nil if nothing had changed, so that no layer was added.
        public var layer: Descriptor?
        /// The descriptor of the new manifest.
        public var manifest: Descriptor
        /// How many paths had changed.
        public var changes: Int
        /// What found the changes.
        public var source: DeltaSource
        /// Whether the store holds the new chain, so that the next unpack reads no layer.
        public var isPublished: Bool

        package init(
            layer: Descriptor?, manifest: Descriptor, changes: Int, source: DeltaSource = .auto,
            isPublished: Bool = false
        ) {
            self.layer = layer
            self.manifest = manifest
            self.changes = changes
            self.source = source
            self.isPublished = isPublished
        }
    }

    private let driver: any StorageDriver
    private let options: Options
    private let cancellation: Cancellation
    private let progress: ProgressHandler

    package init(
        driver: any StorageDriver, options: Options, cancellation: Cancellation = Cancellation(),
        progress: @escaping ProgressHandler = { _ in }
    ) {
        self.driver = driver
        self.options = options
        self.cancellation = cancellation
        self.progress = progress
    }

    /// Repacks `bundle` into `layout`, which must hold the image that the bundle came from, as `tag`.
    /// An error leaves the layout as it was, unless the image was tagged already.
    package func repack(_ bundle: BytePath, into layout: ImageLayout, tag: String) throws -> Result {
        try FullFileSystem.naming(bundle, "repack") {
            try layout.change { layout in
                // Nobody collects what the image of the bundle has until the new one has its tag.
                try layout.beginWriting()
                return try repack(bundle, with: layout, tag: tag)
            }
        }
    }

    private func repack(_ bundle: BytePath, with layout: ImageLayout, tag: String) throws -> Result {
        let frozen = try freeze(bundle, layout, tag)
        let delta = try frozen.bundle.delta { try cancellation.check() }
        let changes = try packed(delta, of: frozen.image)
        progress(.changes(count: changes.count))
        try cancellation.check()
        if changes.isEmpty { return try tagUnchanged(frozen, delta) }
        let layer = try pack(changes, of: delta, frozen)
        let isPublished = try publish(layer, frozen)
        try cancellation.check()
        let manifest = try tagNew(layer, frozen)
        return Result(
            layer: layer.descriptor, manifest: manifest, changes: changes.count, source: delta.source,
            isPublished: isPublished)
    }

    // MARK: The steps of a repack

    /// What is repacked, and where to.
    private struct Frozen {
        var bundle: any FrozenBundle
        var metadata: BundleMetadata
        /// The image that the bundle came from.
        var image: ResolvedImage
        var layout: ImageLayout
        var tag: String
        /// When the new image was made.
        var created: Timestamp
        /// How the layers below were applied.
        var apply: ApplyOptions { metadata.apply }
    }

    /// The new layer, stored.
    private struct Packed {
        var descriptor: Descriptor
        var diffID: DiffID
        /// Those of the new image.
        var chainIDs: [ChainID]
        /// Why the frozen tree is not what the layer gives; nil if it may be.
        var obstacle: AdoptionObstacle?
    }

    /// Holds the bundle still. Its image must be in the layout.
    private func freeze(_ bundle: BytePath, _ layout: ImageLayout, _ tag: String) throws -> Frozen {
        let metadata = try Self.metadata(of: bundle)
        try layout.checkFolderIsInside()
        if options.refreshesBundle { try RefreshObstacle(bundle).check() }
        if let manifest = metadata.path.last?.digest, !layout.holdsBlob(manifest) {
            throw VarveError(
                .notFound,
                "\"\(layout.path)\" must be the layout that the bundle \"\(bundle)\" came from, and does not hold its image \(manifest)",
                subject: layout.path, remedy: .name("that layout, or copy the image into this one")
            )
        }
        let original = try layout.image(at: metadata.path)
        racePoint("bundle-metadata")
        let frozen = try driver.freeze(
            RepackContext(
                bundle: bundle, image: original, tag: tag, source: options.source, readsAll: options.readsAll,
                refreshes: options.refreshesBundle, cancellation: cancellation))
        // It is locked now. How its owners are mapped was read before: another bundle may have got its path since.
        guard try Self.metadata(of: bundle).encoded == metadata.encoded else {
            throw VarveError(
                .failed,
                "another command has changed the bundle \"\(bundle)\" meanwhile; nothing was written",
                subject: bundle, remedy: .tryAgain)
        }
        return Frozen(
            bundle: frozen, metadata: metadata, image: try layout.whole(original), layout: layout, tag: tag,
            created: options.history?.created ?? options.sourceDate ?? options.now ?? .now())
    }

    /// The changes that become the layer: those that no path masks.
    private func packed(_ delta: DeltaResult, of image: ResolvedImage) throws -> [Change] {
        let mask = PathMask(
            options.maskedPaths
                + (options.masksVolumes ? image.config.execution.volumePaths.map { BytePath($0) } : []))
        return try delta.changes.filter { change in
            try cancellation.check()
            return !mask.covers(change.path)
        }
    }

    /// Nothing changed: the tag is given to the image that there is, or, for umoci, to one whose history says so.
    private func tagUnchanged(_ frozen: Frozen, _ delta: DeltaResult) throws -> Result {
        var manifest = frozen.image.manifestDescriptor.annotated(source: nil)
        if options.isAsUmoci {
            var mutation = try ImageMutation(frozen.image)
            if var entry = history(frozen.created, frozen.image) {
                entry.isEmptyLayer = true
                mutation.append(history: entry)
            }
            manifest = try mutation.commit(to: frozen.layout)
        }
        try frozen.layout.tag(frozen.tag, manifest)
        // What was masked is a change all the same, and is to count no more.
        if options.refreshesBundle, options.isAsUmoci || !delta.changes.isEmpty {
            try refresh(frozen, manifest, frozen.image.chainIDs.last)
        }
        try frozen.bundle.didRepack(manifest, tag: frozen.tag)
        return Result(layer: nil, manifest: manifest, changes: 0, source: delta.source, isPublished: true)
    }

    /// Writes the layer: tar, hashed for the DiffID, compressed, hashed again.
    private func pack(_ changes: [Change], of delta: DeltaResult, _ frozen: Frozen) throws -> Packed {
        var written: Int64 = 0
        var isWhole = false
        let (layer, diffID) = try NewLayer.write(
            into: frozen.layout, options.compression ?? frozen.image.usualCompression,
            threads: options.threads
        ) { sink in
            var pack = PackOptions(latestTime: options.sourceDate, owners: frozen.apply.owners)
            pack.hasWholeSeconds = options.isAsUmoci
            let root = frozen.bundle.root
            isWhole = try LayerPacker(root: root.fd, options: pack).pack(changes, to: TarWriter(sink)) {
                count in
                try cancellation.check()
                written += Int64(count)
                if count > 0 { progress(.written(bytes: written)) }
            }
        }
        return Packed(
            descriptor: layer, diffID: diffID,
            chainIDs: ChainID.prefixes(of: frozen.image.diffIDs + [diffID]),
            obstacle: .ofLayer(isPackedWhole: isWhole, packed: changes.count, of: delta))
    }

    /// Puts the new image's tree into the store: the frozen tree itself where it may be that, else the layer on top of the chain
    /// below. False if the store cannot know it.
    private func publish(_ layer: Packed, _ frozen: Frozen) throws -> Bool {
        if layer.obstacle == nil,
            try frozen.bundle.adopt(chainIDs: layer.chainIDs, options: frozen.apply)
        {
            return true
        }
        return try frozen.bundle.publish(chainIDs: layer.chainIDs, options: frozen.apply) { target in
            // Without the limits of an unpack: it is no more than what was read from the bundle just now.
            try LayerExtraction(from: frozen.layout, options: frozen.apply, cancellation: cancellation)
                .apply(layer.descriptor, diffID: layer.diffID, to: target)
        }
    }

    /// Makes configuration and manifest, and tags the new image. A refresh of the bundle comes after that.
    private func tagNew(_ layer: Packed, _ frozen: Frozen) throws -> Descriptor {
        let manifest = try frozen.image.appendingLayer(
            layer.descriptor, diffID: layer.diffID, history: history(frozen.created, frozen.image),
            created: options.isAsUmoci ? nil : frozen.created)
        try frozen.layout.tag(frozen.tag, manifest)
        if options.refreshesBundle { try refresh(frozen, manifest, layer.chainIDs.last) }
        try frozen.bundle.didRepack(manifest, tag: frozen.tag)
        return manifest
    }

    /// From now on deltas of the bundle count from what was frozen, which is the image `manifest`.
    private func refresh(_ frozen: Frozen, _ manifest: Descriptor, _ chainID: ChainID?) throws {
        var refreshed = frozen.metadata
        refreshed.path = [manifest.annotated(Descriptor.referenceNameKey, frozen.tag)]
        try frozen.bundle.refresh(
            manifest: manifest.digest, chainID: chainID, options: frozen.apply,
            files: [BundleFile(name: BundleMetadata.fileName, contents: refreshed.encoded)])
    }

    /// What changed in a bundle since it was unpacked.
    package func delta(of bundle: BytePath) throws -> DeltaResult {
        try driver.freeze(
            RepackContext(
                bundle: bundle, source: options.source, readsAll: options.readsAll, cancellation: cancellation
            )
        ).delta {
            try cancellation.check()
        }.requireAll()
    }

    package static func metadata(of bundle: BytePath) throws -> BundleMetadata {
        let file = bundle.appending(BundleMetadata.fileName)
        let bytes: [UInt8]
        let directory: SharedDescriptor
        do throws(PlaceError) { directory = SharedDescriptor(try Place.directory(bundle, .safeLinks)) } catch
        {
            if error.errno == .noSuchFileOrDirectory { throw OpenBundle.isMissing(bundle) }
            throw VarveError(error, "open the bundle", bundle)
        }
        do throws(Errno) {
            bytes = try directory.fd.readFile(BundleMetadata.fileName, limit: BundleMetadata.limit)
        } catch .noSuchFileOrDirectory {
            throw VarveError(
                .notFound,
                "\"\(bundle)\" is no bundle, or not any more: it has no \(BundleMetadata.fileName)",
                subject: bundle, remedy: .unpack(to: bundle, driver: nil)
            )
        } catch {
            throw VarveError.system("read", file, error)
        }
        return try BundleMetadata(parsing: bytes, of: file)
    }

    private func history(_ created: Timestamp, _ image: ResolvedImage) -> HistoryEntry? {
        guard let history = options.history else { return nil }
        return HistoryEntry(
            created: RFC3339.format(created), createdBy: history.createdBy ?? "varve repack",
            author: history.author ?? image.config.author, comment: history.comment)
    }
}
