import VarveFormats
import VarveBtrfs
import VarveLayers
import VarveOCI
import VarveSystem
import SystemPackage

/// The store of this product: a read-only subvolume for each layer prefix. A bundle is a snapshot of one, or what one was published from.
public struct BtrfsDriver: StorageDriver {
    package let store: SnapshotStore
    /// `btrfs`.
    public var name: String { "btrfs" }

    package init(store: SnapshotStore) { self.store = store }

    /// Begins on top of the longest prefix of the layers that the store has as a chain.
    public func beginUnpack(_ context: UnpackContext) throws -> UnpackTransaction {
        try driverErrors { .cumulative(DriverUnpack(try BtrfsUnpack(store: store, context: context))) }
    }

    /// Takes a read-only snapshot of the bundle; of one that lies on another file system, or is none of btrfs, a copy.
    public func freeze(_ context: RepackContext) throws -> any FrozenBundle {
        try driverErrors { DriverBundle(try open(context)) }
    }

    private func open(_ context: RepackContext) throws -> any FrozenBundle {
        if let bundle = try? OpenBundle(context.bundle),
            bundle.kind == .copy || bundle.kind == .btrfs && !store.isOnSameFileSystem(bundle)
        {
            return try CopiedFrozenBundle(store: store, bundle, context)
        }
        let bundle = try store.openBundle(context.bundle)
        return try FullFileSystem.naming(context.bundle, "take a snapshot of") {
            try BtrfsFrozenBundle(store: store, bundle: bundle, context)
        }
    }
}

/// The suffix that a chain's name has for these options.
func chainVariant(_ options: ApplyOptions) -> String {
    options.owners.variant + (options.keepDirlinks ? "-dirlinks" : "")
        // A chain of which something was left out is no answer to who wants to know of it.
        + (options.refusesOddAttributes ? "-strict" : "")
}

/// An unpack into a btrfs store.
///
/// Layers are applied to one writable subvolume in `work/`; after each that ends a prefix worth a chain
/// (`ChainPolicy`), a read-only snapshot of it is published. In the end that subvolume is the bundle.
private final class BtrfsUnpack: CumulativeUnpack {
    private let store: SnapshotStore
    private let context: UnpackContext
    private let names: [ChainName]
    private let place: BundlePlace
    private let builder: ChainBuilder
    /// The layers after which a chain is published, the lowest first.
    private let chainEnds: [Int]
    /// Layers below this one are in place.
    private var next = 0
    let layersInPlace: Int

    init(store: SnapshotStore, context: UnpackContext) throws {
        self.store = store
        self.context = context
        names = context.chainIDs.map { ChainName($0, variant: chainVariant(context.options)) }
        place = try BundlePlace(context.bundle, store: store)
        let base = try store.chains.findLongest(of: names)
        layersInPlace = base?.layers ?? 0
        next = layersInPlace
        builder = ChainBuilder(
            in: store, for: context.bundle, on: base?.chain, owners: context.options.owners)
        // A containerd asks for each prefix by its name, and fetches the layers of one that is not there.
        let hasMissing = layersInPlace < names.count
        let isServed =
            try hasMissing && context.chains == .auto && !ContainerdFolder(of: store).places().isEmpty
        chainEnds = (isServed ? .all : context.chains).prefixes(of: context.image, above: layersInPlace)
    }

    func target(forLayer index: Int, whileWaiting: () throws -> Void) throws -> ExtractionTarget? {
        if index < next { return nil }
        if !builder.hasClaim {
            let end = chainEnds.first { $0 >= index } ?? index
            try builder.claim(names[end], whileWaiting: whileWaiting)
            // What somebody else published meanwhile: this chain, or part of the way to it.
            for known in (index...end).reversed() {
                guard let chain = try store.chains.find(names[known]) else { continue }
                builder.restart(on: chain)
                next = known + 1
                return nil
            }
        }
        return ExtractionTarget(root: try builder.tree(), isBottom: index == 0)
    }

    func didExtract(layer index: Int) throws {
        guard chainEnds.contains(index) else { return }
        let layer = context.archiveSizes[index].map {
            ChainLayer(context.image.layers[index], diffID: context.diffIDs[index], archiveSize: $0)
        }
        try builder.publish(names[index], layer: layer)
    }

    func rootfs() throws -> SharedDescriptor {
        // No layers at all: an empty root file system.
        guard let base = builder.parent else { return try builder.tree() }
        return SharedDescriptor(
            try attempt("open", base.name.path) { () throws(Errno) in
                try base.subvolume.fd.openDirectory(StoreLayout.rootfs)
            })
    }

    func finish(files: [BundleFile]) throws {
        let base = builder.parent
        var bundle = try builder.takeTree()
        let opened = try bundle.open(for: context.bundle)
        let manifest = context.image.manifestDescriptor.digest
        let records = ChainRecords(base.map { .chain($0.name) } ?? .empty, for: manifest)
        try attempt("write the name of its chain to", context.bundle) { () throws(Errno) in
            try opened.fd.setExtendedAttribute(
                ExtendedAttribute(name: StoreLayout.chainAttribute, value: records.encoded))
            if let attribute = StoreOfBundle.attribute(of: store.directory.fd) {
                try opened.fd.setExtendedAttribute(attribute)
            }
        }
        for file in files {
            try attempt("write", context.bundle.appending(file.name)) { () throws(Errno) in
                let made = try opened.fd.open(
                    file.name, [.writeOnly, .create, .exclusive, .noFollow], mode: 0o644)
                try made.fd.writeFull(file.contents)
                // About a millisecond each: a bundle that is seen must not lose them with the power.
                try made.fd.synchronize()
                try made.close()
            }
        }
        try context.cancellation.check()
        try place.put(&bundle, of: base?.info, mode: context.bundleMode)
    }
}
