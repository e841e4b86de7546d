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
        try layout.change { layout in try repack(bundle, with: layout, tag: tag) }
    }

    private func repack(_ bundle: BytePath, with layout: ImageLayout, tag: String) throws -> Result {
        let metadata = try Self.metadata(of: bundle)
        if options.refreshesBundle { try Self.checkWritable(bundle) }
        if let manifest = metadata.path.last?.digest, !layout.holdsBlob(manifest) {
            throw StoreError(
                .notFound,
                "\"\(layout.path)\" must be the layout that the bundle \"\(bundle)\" came from, and does not hold its image \(manifest)",
                subject: layout.path, remedy: .name("that layout, or copy the image into this one")
            )
        }
        let image = try layout.image(at: metadata.path)
        let frozen = try driver.freeze(
            RepackContext(
                bundle: bundle, image: image, tag: tag, source: options.source, readsAll: options.readsAll,
                refreshes: options.refreshesBundle, cancellation: cancellation))
        let delta = try frozen.delta { try cancellation.check() }
        let mask = PathMask(
            options.maskedPaths
                + (options.masksVolumes ? image.config.execution.volumePaths.map { BytePath($0) } : []))
        let changes = delta.changes.filter { !mask.covers($0.path) }
        progress(.changes(count: changes.count))
        try cancellation.check()

        let apply = metadata.apply
        let created = options.history?.created ?? options.sourceDate ?? options.now ?? .now()
        func refresh(_ manifest: Descriptor, _ chainID: ChainID?) throws {
            var refreshed = metadata
            refreshed.path = [manifest.annotated(Descriptor.referenceNameKey, tag)]
            try frozen.refresh(
                manifest: manifest.digest, chainID: chainID, options: apply,
                files: [BundleFile(name: BundleMetadata.fileName, contents: refreshed.encoded)])
        }
        guard !changes.isEmpty else {
            var manifest = image.manifestDescriptor
            if options.isAsUmoci {
                var mutation = try ImageMutation(image)
                if var entry = history(created, image) {
                    entry.isEmptyLayer = true
                    mutation.append(history: entry)
                }
                manifest = try mutation.commit(to: layout)
            }
            try layout.tag(tag, manifest)
            if options.isAsUmoci, options.refreshesBundle { try refresh(manifest, image.chainIDs.last) }
            try frozen.didRepack(manifest, tag: tag)
            return Result(
                layer: nil, manifest: manifest, changes: 0, source: delta.source, isPublished: true)
        }
        let (layer, diffID, isPackedWhole) = try write(
            changes, of: frozen, owners: apply.owners, like: image, into: layout)
        let chainIDs = ChainID.prefixes(of: image.diffIDs + [diffID])
        guard let chainID = chainIDs.last else { throw StoreError(.failed, "the new image has no layers") }
        // Kernels send wrong streams now and then: what comes of one is the layer, and nothing else may have its name.
        let isWhole = isPackedWhole && changes.count == delta.changes.count && delta.source != .stream
        let isAdopted = try isWhole && frozen.adopt(chainIDs: chainIDs, options: apply)
        let isPublished =
            try isAdopted
            || frozen.publish(chainIDs: chainIDs, options: apply) { target in
                // Without the limits of an unpack: it is no more than what was read from the bundle just now.
                try LayerExtraction(from: layout, options: apply, cancellation: cancellation)
                    .apply(layer, diffID: diffID, to: target)
            }
        try cancellation.check()
        let manifest = try image.appendingLayer(
            layer, diffID: diffID, history: history(created, image),
            created: options.isAsUmoci ? nil : created)
        try layout.tag(tag, manifest)
        if options.refreshesBundle { try refresh(manifest, chainID) }
        try frozen.didRepack(manifest, tag: tag)
        return Result(
            layer: layer, manifest: manifest, changes: changes.count, source: delta.source,
            isPublished: isPublished)
    }

    /// A refresh ends with new files in the bundle, after the image is tagged: what forbids them is looked for first.
    private static func checkWritable(_ bundle: BytePath) throws(StoreError) {
        do throws(Errno) {
            try FileDescriptor.workingDirectory.checkWritable(bundle)
        } catch .readOnlyFileSystem {
            throw StoreError(
                .failed,
                "the bundle \"\(bundle)\" is read-only and cannot be refreshed", subject: bundle,
                remedy: .makeWritable(bundle)
            )
        } catch {
            throw StoreError.system("refresh the bundle", bundle, error)
        }
    }

    /// What changed in a bundle since it was unpacked.
    package func delta(of bundle: BytePath) throws -> DeltaResult {
        try driver.freeze(
            RepackContext(
                bundle: bundle, source: options.source, readsAll: options.readsAll, cancellation: cancellation
            )
        ).delta {
            try cancellation.check()
        }
    }

    package static func metadata(of bundle: BytePath) throws -> BundleMetadata {
        let file = bundle.appending(BundleMetadata.fileName)
        let bytes: [UInt8]
        do throws(Errno) {
            bytes = try FileDescriptor.workingDirectory.readFile(file, limit: BundleMetadata.limit)
        } catch .noSuchFileOrDirectory {
            throw StoreError(
                .notFound,
                "\"\(bundle)\" is no bundle, or not any more: it has no \(BundleMetadata.fileName)",
                subject: bundle, remedy: .unpack(to: bundle, driver: nil)
            )
        } catch {
            throw StoreError.system("read", file, error)
        }
        return try BundleMetadata(parsing: bytes, of: file)
    }

    private func history(_ created: Timestamp, _ image: ResolvedImage) -> HistoryEntry? {
        guard let history = options.history else { return nil }
        return HistoryEntry(
            created: RFC3339.format(created), createdBy: history.createdBy ?? "varve repack",
            author: history.author ?? image.config.author, comment: history.comment)
    }

    /// The layer's blob, stored: tar, hashed for the DiffID, compressed, hashed again.
    private func write(
        _ changes: [Change], of frozen: any FrozenBundle, owners: OwnerMapping, like image: ResolvedImage,
        into layout: ImageLayout
    ) throws -> (Descriptor, DiffID, isWhole: Bool) {
        var written: Int64 = 0
        var isWhole = false
        let (layer, diffID) = try NewLayer.write(
            into: layout, options.compression ?? image.usualCompression, threads: options.threads
        ) { sink in
            var pack = PackOptions(latestTime: options.sourceDate, owners: owners)
            pack.hasWholeSeconds = options.isAsUmoci
            isWhole = try LayerPacker(root: frozen.root.fd, options: pack).pack(changes, to: TarWriter(sink))
            { count in
                try cancellation.check()
                written += Int64(count)
                if count > 0 { progress(.written(bytes: written)) }
            }
        }
        return (layer, diffID, isWhole)
    }
}

/// Paths that are left out of a layer, with all that is below them.
struct PathMask {
    private let prefixes: [[BytePath]]

    init(_ paths: [BytePath]) {
        prefixes = paths.map(\.cleaned.components)
    }

    func covers(_ path: BytePath) -> Bool {
        if prefixes.isEmpty { return false }
        let components = path == .current ? [] : path.components
        return prefixes.contains { components.starts(with: $0) }
    }
}
