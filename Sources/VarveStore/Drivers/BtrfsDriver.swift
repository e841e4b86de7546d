import VarveBtrfs
import VarveLayers
import VarveOCI
import VarveSystem
import SystemPackage

/// The store of this product: a read-only subvolume for each layer prefix, snapshots of it as bundles.
public struct BtrfsDriver: StorageDriver {
    package let store: SnapshotStore
    public var name: String { "btrfs" }

    package init(store: SnapshotStore) { self.store = store }

    public func beginUnpack(_ context: UnpackContext) throws -> any UnpackTransaction {
        try BtrfsUnpack(store: store, context: context)
    }

    public func freeze(_ context: RepackContext) throws -> any FrozenBundle {
        if let copy = try? OpenBundle(context.bundle), copy.kind == .copy {
            return try CopiedFrozenBundle(store: store, copy, context)
        }
        return try BtrfsFrozenBundle(
            store: store, bundle: try store.openBundle(context.bundle), context)
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
/// (`ChainPolicy`), a read-only snapshot of it is published.
private final class BtrfsUnpack: UnpackTransaction {
    private let store: SnapshotStore
    private let context: UnpackContext
    private let names: [ChainName]
    private let place: BundlePlace
    /// The chain that the next layer goes on top of.
    private var base: OpenChain?
    private var work: WorkSubvolume?
    /// The layers after which a chain is published, the lowest first.
    private let chainEnds: [Int]
    /// Held from before the first layer of a chain that is built is applied until the chain is published.
    private var lock: FileLock?
    /// Layers below this one are in place.
    private var next = 0
    private(set) var layersInPlace = 0
    /// Compressed bytes of the layers that were applied to `work`.
    private var bytesApplied: Int64 = 0
    /// Deletes what was worked in before.
    private var deletion: WorkerThread?
    /// Compressed bytes of layers after which it pays to delete `work` early.
    private static let renewalSize: Int64 = 32 << 20

    init(store: SnapshotStore, context: UnpackContext) throws {
        self.store = store
        self.context = context
        names = context.chainIDs.map { ChainName($0, variant: chainVariant(context.options)) }
        place = try BundlePlace(context.bundle, store: store)
        for index in names.indices.reversed() {
            if let chain = try store.chain(names[index]) {
                base = chain
                layersInPlace = index + 1
                break
            }
        }
        next = layersInPlace
        chainEnds = context.chains.prefixes(of: context.image, above: layersInPlace)
    }

    func target(forLayer index: Int, whileWaiting: () throws -> Void) throws -> ExtractionTarget? {
        if index < next { return nil }
        if lock == nil {
            let end = chainEnds.first { $0 >= index } ?? index
            lock = try store.lockChain(names[end], whileWaiting: whileWaiting)
            // What somebody else published meanwhile: this chain, or part of the way to it.
            for known in (index...end).reversed() {
                guard let chain = try store.chain(names[known]) else { continue }
                if known == end { lock = nil }
                work = nil
                base = chain
                next = known + 1
                return nil
            }
        }
        if work == nil { work = try makeWork(onTopOf: base) }
        guard let rootfs = try workRootfs() else { return nil }
        return ExtractionTarget(root: rootfs, isBottom: index == 0)
    }

    private func makeWork(onTopOf base: OpenChain?) throws -> WorkSubvolume {
        try store.makeWork(for: context.bundle) { directory, name in
            if let base {
                try store.snapshot(of: base, to: directory, name)
                return
            }
            try store.makeEmptyTree(name, in: directory, owners: context.options.owners)
        }
    }

    private func workRootfs() throws -> SharedDescriptor? {
        guard let name = work?.name else { return nil }
        return SharedDescriptor(
            try attempt("open", name) { () throws(Errno) in
                try store.workDirectory.fd.openDirectory(name.appending(StoreLayout.rootfs))
            })
    }

    func didExtract(layer index: Int) throws {
        bytesApplied += context.image.layers[index].size
        guard chainEnds.contains(index), let source = work?.name else { return }
        base = try store.publish(names[index], snapshotOf: source, in: store.workDirectory.fd)
        lock = nil
        if index < names.count - 1, bytesApplied >= Self.renewalSize { try renewWork() }
    }

    /// Goes on in a snapshot of the chain just published, and deletes what was worked in so far on another thread. That
    /// takes a second for 60,000 files, because the kernel drops all that it knows of them, and at the end of the
    /// unpack nothing would be going on beside it.
    private func renewWork() throws {
        let renewed = try makeWork(onTopOf: base)
        guard let old = work.take() else { return }
        work = consume renewed
        bytesApplied = 0
        let handover = Handover(SharedWork(old))
        // One at a time: the threads of an unpack are counted.
        deletion?.join()
        // Where no thread can be had, it goes here.
        deletion = try? WorkerThread(name: "varve-delete", { _ = handover.take() })
    }

    func rootfs() throws -> SharedDescriptor {
        guard let base else {
            // No layers at all: an empty root file system.
            let empty = try makeWork(onTopOf: nil)
            work = consume empty
            guard let rootfs = try workRootfs() else {
                throw StoreError(.failed, "cannot make an empty bundle")
            }
            return rootfs
        }
        return SharedDescriptor(
            try attempt("open", base.name.path) { () throws(Errno) in
                try base.subvolume.fd.openDirectory(StoreLayout.rootfs)
            })
    }

    func finish(files: [BundleFile]) throws {
        if base != nil { work = nil }
        var bundle: WorkSubvolume
        if let empty = work.take() { bundle = empty } else { bundle = try makeWork(onTopOf: base) }
        let opened = try attempt("open", bundle.name) { [name = bundle.name] () throws(Errno) in
            try store.workDirectory.fd.openDirectory(name)
        }
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
        try place.put(&bundle, mode: context.bundleMode)
    }
}
