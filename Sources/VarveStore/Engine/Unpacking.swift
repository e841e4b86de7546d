import VarveFormats
package import Logging
public import VarveLayers
package import VarveOCI
package import VarveSystem
import Synchronization
import SystemPackage

/// Unpacks images into bundles, through any driver.
public struct Unpacking: Sendable {
    /// How an image is unpacked.
    public struct Options: Sendable {
        /// How layers are applied: owners, and what becomes of links to directories.
        public var apply = ApplyOptions()
        /// Bytes of memory for layers that are being inflated, all together.
        public var memory = 40 << 20
        /// Threads beside those that one layer at a time takes. They inflate the next layers, or extract layers side by
        /// side. With 12 or more nothing gets faster; with none the result is the same.
        public var helpers = 12
        /// For which prefixes of the image a driver that keeps chains keeps one.
        public var chains = ChainPolicy.auto
        /// How large the image may be when it is unpacked.
        public var limits = UnpackLimits()
        /// The permissions of the bundle's directory: who can enter it can run the set-ID files of the image.
        public var bundleMode = UnpackContext.closedBundleMode
        /// The bundle gets an mtree file, which umoci needs to repack it.
        public var writesMtree = false
        /// What `config.json` calls the container.
        public var hostname = RuntimeConfig.hostname
        /// What the command does without options.
        public init() {}
    }

    /// How much of the image was there already.
    public struct Result: Sendable {
        /// Layers that were there already and were not read.
        public var layersInPlace: Int
        /// All layers of the image.
        public var layers: Int

        package init(layersInPlace: Int, layers: Int) {
            self.layersInPlace = layersInPlace
            self.layers = layers
        }
    }

    private let driver: any StorageDriver
    private let options: Options
    private let cancellation: Cancellation
    private let progress: ProgressHandler
    private let omissions: Omissions

    /// - Parameter logger: gets a warning for each layer of which something is left out, at the end; nil for none.
    package init(
        driver: any StorageDriver, options: Options = Options(), cancellation: Cancellation = Cancellation(),
        logger: Logger? = nil, progress: @escaping ProgressHandler = { _ in }
    ) {
        omissions = Omissions(logger)
        self.driver = driver
        self.options = options
        self.cancellation = cancellation
        self.progress = progress
    }

    /// Unpacks `image` so that `bundle` is a bundle of it. Layers that the driver has are not read.
    ///
    /// - Parameter fetch: brings the layers of an image whose layout need not hold them, and returns it. It is called only if one is needed.
    package func unpack(
        _ image: ResolvedImage, into bundle: BytePath, fetch: (() throws -> ResolvedImage)? = nil
    ) throws -> Result {
        defer { omissions.tell() }
        return try FullFileSystem.naming(bundle, "unpack to") {
            try unpackWhole(image, into: bundle, fetch)
        }
    }

    private func unpackWhole(
        _ image: ResolvedImage, into bundle: BytePath, _ fetch: (() throws -> ResolvedImage)?
    ) throws -> Result {
        try options.apply.owners.check()
        // Until the bundle is there, nothing else says that its image is needed to repack it.
        let reading = image.layout.beginReading()
        defer { extendLifetime(reading) }
        typealias Begun = (context: UnpackContext, transaction: UnpackTransaction)
        func begin(_ image: ResolvedImage) throws -> Begun {
            let context = UnpackContext(
                bundle: bundle, image: image, diffIDs: image.diffIDs, chainIDs: image.chainIDs,
                options: options.apply, chains: options.chains, bundleMode: options.bundleMode,
                cancellation: cancellation)
            return (context, try driver.beginUnpack(context))
        }
        var image = image
        var begun: Begun? = try begin(image)
        if let fetch, let inPlace = begun?.transaction.unpack.layersInPlace,
            image.layers.dropFirst(max(inPlace, 0)).contains(where: { !image.layout.holdsBlob($0.digest) })
        {
            // Nothing is held while the network is waited for: others may build the same.
            begun = nil
            image = try fetch()
            begun = try begin(image)
        }
        guard let (context, transaction) = begun else { preconditionFailure("an unpack was begun") }
        let unpack = transaction.unpack
        try extract(image, transaction, context.archiveSizes)
        var metadata = BundleMetadata(path: image.path, apply: options.apply)
        metadata.isOfHooks = driver is HooksDriver
        if let warning = RuntimeConfig.warning(of: image.config) { omissions.logger?.warning("\(warning)") }
        let configuration = try Self.runtimeConfiguration(
            image.config, rootfs: try unpack.rootfs(), owners: options.apply.owners,
            hostname: options.hostname)
        try cancellation.check()
        var files = [
            BundleFile(name: "config.json", contents: try unpack.runtimeConfiguration(configuration)),
            BundleFile(name: BundleMetadata.fileName, contents: metadata.encoded),
        ]
        if options.writesMtree {
            let record = try unpack.record { try cancellation.check() }
            files.append(
                BundleFile(
                    name: BundleMetadata.mtreeName(image.manifestDescriptor.digest), contents: record.mtree))
        }
        try unpack.finish(files: files)
        return Result(layersInPlace: unpack.layersInPlace, layers: image.layers.count)
    }

    /// Unpacks the layers of `image` alone, so that `rootfs` is its root file system.
    package func unpackRootfs(_ image: ResolvedImage, into rootfs: BytePath) throws -> Result {
        defer { omissions.tell() }
        return try FullFileSystem.naming(rootfs, "unpack to") { try unpackLayers(image, into: rootfs) }
    }

    private func unpackLayers(_ image: ResolvedImage, into rootfs: BytePath) throws -> Result {
        try options.apply.owners.check()
        let context = UnpackContext(
            bundle: rootfs, image: image, diffIDs: image.diffIDs, chainIDs: image.chainIDs,
            options: options.apply, chains: options.chains, cancellation: cancellation)
        let transaction = try driver.beginUnpack(context)
        let unpack = transaction.unpack
        try extract(image, transaction, context.archiveSizes)
        try cancellation.check()
        try unpack.finish(files: [])
        return Result(layersInPlace: unpack.layersInPlace, layers: image.layers.count)
    }

    private func extract(_ image: ResolvedImage, _ transaction: UnpackTransaction, _ sizes: ArchiveSizes)
        throws
    {
        let layers = image.layers
        let first = min(max(transaction.unpack.layersInPlace, 0), layers.count)
        let planned = layers[first...].lazy.map(\.size).saturatingSum()
        progress(.planned(layersInPlace: first, layers: layers.count, bytes: planned))
        guard first < layers.count else { return }
        switch transaction {
        case .cumulative(let unpack): try extract(image, unpack, from: first, sizes)
        case .stacking(let unpack):
            try ParallelExtraction(
                layers: layers, diffIDs: image.diffIDs, layout: image.layout, options: options,
                cancellation: cancellation, omissions: omissions, progress: progress
            ).run(unpack, from: first)
        }
    }

    /// One layer after another, while the next ones are inflated.
    private func extract(
        _ image: ResolvedImage, _ unpack: any CumulativeUnpack, from first: Int, _ sizes: ArchiveSizes
    ) throws {
        let layers = image.layers
        let bytesRead = SharedCounter()
        var ahead = LayersAhead(
            image, memory: options.memory, helpers: options.helpers, bytesRead: bytesRead,
            cancellation: cancellation)
        let allowance = UnpackAllowance(options.limits)
        for index in first..<layers.count {
            try cancellation.check()
            let target = try unpack.target(forLayer: index) {
                progress(.layer(index: index, isWaiting: true))
                try cancellation.check()
            }
            guard let target else { continue }
            progress(.layer(index: index, isWaiting: false))
            let stream = try ahead.stream(ofLayer: index)
            let applier = LayerApplier(
                root: target.root.fd, isBottom: target.isBottom, options: options.apply,
                digests: target.digests, cancellation: cancellation)
            try stream.apply(with: applier, allowance) {
                try cancellation.check()
                progress(.read(bytes: bytesRead.count))
            }
            omissions.note(applier.omissions, of: layers[index], index)
            sizes[index] = stream.archive?.size
            try unpack.didExtract(layer: index)
        }
    }

    /// `config.json`, with users looked up in the passwd and group files of `rootfs`. Without one they are not known, and
    /// a user by name is an error.
    ///
    /// - Parameters:
    ///   - path: what the document calls the root file system.
    ///   - hostname: what it calls the container.
    package static func runtimeConfiguration(
        _ config: ImageConfig, rootfs: SharedDescriptor?, path: String = "rootfs", owners: OwnerMapping,
        hostname: String = RuntimeConfig.hostname
    ) throws -> [UInt8] {
        try owners.check()
        func account(_ file: BytePath) throws -> [UInt8]? {
            guard let rootfs else { return nil }
            do throws(Errno) {
                let opened = try rootfs.fd.openRegularFile(
                    file, resolve: [.inRoot, .noCrossing], followsLinks: true)
                return try opened.fd.readAll(limit: RuntimeConfig.accountFileLimit)
            } catch .improperLink {
                // What is mounted there may be a file of the host.
                throw LayerError.mounted(on: file, in: rootfs.fd)
            } catch {
                return nil
            }
        }
        var options = RuntimeConfig.Options()
        options.uidMappings = owners.uids
        options.gidMappings = owners.gids
        options.isRootless = owners.isRootless
        options.hostname = hostname
        let configuration = try RuntimeConfig.make(
            config, passwd: try account("etc/passwd"), group: try account("etc/group"), rootfs: path,
            options: options
        )
        return configuration.serialized(pretty: true)
    }
}

/// What was left out of the layers of an image, told when the unpack has ended, right before its result. It is told of an unpack that
/// failed too: chains of the layers may stay, and are not told of again.
final class Omissions: Sendable {
    let logger: Logger?
    private let noted = Mutex<[(index: Int, layer: Digest, sentences: [String])]>([])

    init(_ logger: Logger?) { self.logger = logger }

    /// - Parameter index: of the layer in the image.
    func note(_ sentences: [String], of layer: Descriptor, _ index: Int) {
        if !sentences.isEmpty { noted.withLock { $0.append((index, layer.digest, sentences)) } }
    }

    /// Warns, layer by layer from the lowest.
    func tell() {
        let all = noted.withLock { noted in
            defer { noted = [] }
            return noted.sorted { $0.index < $1.index }
        }
        for (_, layer, sentences) in all {
            for sentence in sentences { logger?.warning("the layer \(layer): \(sentence)") }
        }
    }
}
