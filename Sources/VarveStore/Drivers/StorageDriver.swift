public import VarveOCI
public import VarveSystem
import SystemPackage

public import VarveLayers

/// What a driver is told of an unpack: the whole image, since a cumulative store needs the prefix of layers and a
/// stacking one each layer.
public struct UnpackContext: Sendable {
    /// Where the bundle is to be; nothing may be there but an empty directory.
    public var bundle: BytePath
    /// The image with its layout, which its layers are read from.
    public var image: ResolvedImage
    /// The DiffID of each layer, the bottom one first.
    public var diffIDs: [DiffID]
    /// The ChainID of each prefix: the last one names the whole image.
    public var chainIDs: [ChainID]
    /// How layers are applied.
    public var options: ApplyOptions
    /// For which prefixes a driver that keeps them is to keep a chain.
    public var chains = ChainPolicy.auto
    /// The permissions of the bundle's directory. The default keeps all other users out, whose processes could else run the
    /// set-ID files of the image.
    public var bundleMode = closedBundleMode
    /// Asks to stop. The engine looks at it between its own steps; a driver that waits for something looks too.
    public var cancellation = Cancellation()
    /// What came out of the layers' blobs; the engine writes it down before it says that a layer was extracted.
    package let archiveSizes = ArchiveSizes()

    /// 0700: nobody but the owner of the bundle can enter it.
    public static let closedBundleMode: UInt32 = 0o700

    /// A context with other DiffIDs and ChainIDs than those of the image: of a prefix of its layers.
    public init(
        bundle: BytePath, image: ResolvedImage, diffIDs: [DiffID], chainIDs: [ChainID],
        options: ApplyOptions = ApplyOptions(), chains: ChainPolicy = .auto,
        bundleMode: UInt32 = closedBundleMode, cancellation: Cancellation = Cancellation()
    ) {
        self.bundle = bundle
        self.image = image
        self.diffIDs = diffIDs
        self.chainIDs = chainIDs
        self.options = options
        self.chains = chains
        self.bundleMode = bundleMode
        self.cancellation = cancellation
    }

    /// What a driver is told of `image`.
    public init(
        bundle: BytePath, image: ResolvedImage, options: ApplyOptions = ApplyOptions(),
        chains: ChainPolicy = .auto, bundleMode: UInt32 = closedBundleMode,
        cancellation: Cancellation = Cancellation()
    ) {
        self.init(
            bundle: bundle, image: image, diffIDs: image.diffIDs, chainIDs: image.chainIDs, options: options,
            chains: chains, bundleMode: bundleMode, cancellation: cancellation)
    }
}

/// What a driver is told of a bundle that is compared or repacked.
public struct RepackContext: Sendable {
    /// Where the bundle is.
    public var bundle: BytePath
    /// The image that the bundle came from; nil where only the delta is asked for, which needs no layout.
    public var image: ResolvedImage?
    /// The tag that the new image is to have; nil where only the delta is asked for.
    public var tag: String?
    /// What the delta is to be found by, where the driver has a choice.
    public var source: DeltaSource
    /// Content is compared also where all else says that it is as it was.
    public var readsAll: Bool
    /// `FrozenBundle.refresh` is going to be called; a driver that cannot says so now.
    public var refreshes: Bool
    /// Asks to stop, as in an unpack.
    public var cancellation: Cancellation

    /// What a driver is told of a bundle; each argument is described at its property.
    public init(
        bundle: BytePath, image: ResolvedImage? = nil, tag: String? = nil, source: DeltaSource = .auto,
        readsAll: Bool = false, refreshes: Bool = false, cancellation: Cancellation = Cancellation()
    ) {
        self.bundle = bundle
        self.image = image
        self.tag = tag
        self.source = source
        self.readsAll = readsAll
        self.refreshes = refreshes
        self.cancellation = cancellation
    }
}

/// Where a layer is to be extracted on top of those below it.
public struct ExtractionTarget: Sendable {
    /// The directory that the layer's entries go into; the layers below are in it.
    public var root: SharedDescriptor
    /// Nothing lies below the layer in that directory.
    public var isBottom: Bool
    /// Takes the digest of each file as it is written; nil where nobody wants to know.
    public var digests: ContentDigests?

    /// Where a layer is to go; each argument is described at its property.
    public init(root: SharedDescriptor, isBottom: Bool, digests: ContentDigests? = nil) {
        self.root = root
        self.isBottom = isBottom
        self.digests = digests
    }
}

/// The directory of one layer alone.
public struct LayerDirectory: Sendable {
    /// The directory that the layer's entries go into.
    public var root: SharedDescriptor
    /// How the layer is kept there, and what its extraction finds out.
    public var layer: StandaloneLayer
    /// The layer is there already: nothing is extracted, and `root` is what the layers above it see.
    public var isInPlace: Bool

    /// The directory of a layer; each argument is described at its property.
    public init(root: SharedDescriptor, layer: StandaloneLayer, isInPlace: Bool = false) {
        self.root = root
        self.layer = layer
        self.isInPlace = isInPlace
    }
}

/// A file that goes into a bundle beside `rootfs/`.
public struct BundleFile: Sendable {
    /// The name of the file, without a directory.
    public var name: BytePath
    /// The bytes of the file.
    public var contents: [UInt8]

    /// A file that the engine has made for a bundle.
    public init(name: BytePath, contents: [UInt8]) {
        self.name = name
        self.contents = contents
    }
}

/// A store of layers, as the unpack and repack engine reaches it. The engine knows no other way to storage.
public protocol StorageDriver: Sendable {
    /// As `--driver` names it.
    var name: String { get }

    /// Begins an unpack: finds out what is there already (try-skip) and makes nothing visible.
    func beginUnpack(_ context: UnpackContext) throws -> UnpackTransaction

    /// Freezes a bundle and finds what changed in it since it was unpacked.
    func freeze(_ context: RepackContext) throws -> any FrozenBundle
}

/// An unpack that a driver has begun, by the way in which the driver keeps layers.
public enum UnpackTransaction {
    /// All layers go into one tree, one after another.
    case cumulative(any CumulativeUnpack)
    /// Each layer goes into a directory of its own; layers are extracted side by side.
    case stacking(any StackingUnpack)

    /// What both ways have.
    public var unpack: any BundleUnpack {
        switch self {
        case .cumulative(let unpack): unpack
        case .stacking(let unpack): unpack
        }
    }
}

/// One image on its way into a bundle. What is not finished leaves nothing behind when the value goes away.
///
/// A driver makes a `CumulativeUnpack` or a `StackingUnpack`.
public protocol BundleUnpack: AnyObject {
    /// How many layers, from the bottom, need not be read.
    var layersInPlace: Int { get }

    /// Layer `index` was applied whole and is what its DiffID says, or the driver said that it is in place; called in
    /// order.
    func didExtract(layer index: Int) throws

    /// The root file system as unpacked, to look up users in before the bundle is made.
    func rootfs() throws -> SharedDescriptor

    /// The root file system as unpacked, written down for an mtree file.
    func record(onEntry: () throws -> Void) throws -> RecordedTree

    /// The `config.json` that the bundle is to have in place of `proposed`.
    func runtimeConfiguration(_ proposed: [UInt8]) throws -> [UInt8]

    /// Puts the bundle in its place, with `files` beside `rootfs/`: the last step, all or nothing.
    func finish(files: [BundleFile]) throws
}

/// An unpack in which each layer is applied on top of those below it, in one tree.
public protocol CumulativeUnpack: BundleUnpack {
    /// Where layer `index` is to go, called in order; nil if it has come into place meanwhile by somebody else.
    /// `whileWaiting` is called now and then while somebody else is at it, and throws to give up.
    func target(forLayer index: Int, whileWaiting: () throws -> Void) throws -> ExtractionTarget?
}

/// An unpack in which each layer has a directory of its own. A layer that depends on what lies below it finds it in the
/// directories below.
public protocol StackingUnpack: BundleUnpack {
    /// The directories of the layers in place, the bottom one first.
    var lowerLayers: [LowerLayer] { get }

    /// The directory of layer `index`, empty unless the layer is in place. It is called in order, for all layers before any is
    /// extracted. `whileWaiting` is called now and then while somebody else is at it, and throws to give up.
    func directory(forLayer index: Int, whileWaiting: () throws -> Void) throws -> LayerDirectory
}

/// A bundle held still.
public protocol FrozenBundle: AnyObject {
    /// The root of the frozen tree, which does not change any more.
    var root: SharedDescriptor { get }

    /// What changed since the bundle was unpacked (or last refreshed), in path order.
    func delta(onEntry: @escaping @Sendable () throws -> Void) throws -> DeltaResult

    /// Puts the layer just packed into the store, as the chain `chainIDs.last` of an image whose layers below are
    /// those that the bundle came from. `layer` applies it to a directory. False if the store cannot know that.
    func publish(
        chainIDs: [ChainID], options: ApplyOptions, layer: (ExtractionTarget) throws -> Void
    ) throws -> Bool

    /// Puts the frozen tree itself into the store as the chain `chainIDs.last`, in place of the layer. It is asked only where the layer
    /// holds all that the frozen tree differs in from the layers below. False if the store cannot; `publish` is then asked.
    func adopt(chainIDs: [ChainID], options: ApplyOptions) throws -> Bool

    /// From now on deltas of the bundle count from this frozen state, which is the image `manifest` with the chain
    /// `chainID` (nil: it has no layers), and `files` replace those beside `rootfs/`. One of them is `umoci.json`, which names the image: a crash
    /// leaves both as they were, or both as they are to be.
    func refresh(manifest: Digest, chainID: ChainID?, options: ApplyOptions, files: [BundleFile]) throws

    /// The new image is stored and tagged: the last step of a repack.
    func didRepack(_ manifest: Descriptor, tag: String) throws
}

extension BundleUnpack {
    public func record(onEntry: () throws -> Void) throws -> RecordedTree {
        let root = try rootfs()
        return try RecordedTree.scan(root.fd, onEntry: onEntry)
    }

    public func runtimeConfiguration(_ proposed: [UInt8]) throws -> [UInt8] { proposed }
}

extension FrozenBundle {
    public func adopt(chainIDs: [ChainID], options: ApplyOptions) throws -> Bool { false }
    public func didRepack(_ manifest: Descriptor, tag: String) throws {}
}
