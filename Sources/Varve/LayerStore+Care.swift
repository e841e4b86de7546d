import VarveBtrfs
import BtrfsSendStream
public import Logging
public import VarveOCI
public import VarveStore
public import VarveSystem

/// The chains of a btrfs store, and the care for it.
extension LayerStore {
    /// A chain of a store: the tree of a layer prefix, as a read-only subvolume.
    public struct Chain: Sendable, Hashable, CustomStringConvertible {
        /// The ChainID, with what the options of the unpack add to it.
        public var name: ChainName
        /// When it was made.
        public var created: Timestamp

        init(name: ChainName, created: Timestamp) {
            self.name = name
            self.created = created
        }

        /// Its name.
        public var description: String { name.description }
    }

    /// The chains of the store, by name. Needs a btrfs store.
    public func chains() async throws -> [Chain] {
        try await run("list chains") { store, _ in
            try store.chains.all().map { chain in
                Chain(name: chain.name, created: chain.info.originTime)
            }
        }
    }

    /// Deletes chains. Bundles and chains that were made from them stay whole. One that cannot be deleted does not keep the
    /// others; the first error is thrown at the end. Needs a btrfs store.
    ///
    /// - Throws: `VarveError`: `notFound` if there is no such chain, `failed` if another call or process works with it, or has it
    ///   mounted or as its root directory.
    public func removeChains(
        _ names: [ChainName], progress: @escaping ProgressHandler = { _ in }
    ) async throws {
        try await run("remove chains") { [self] store, work in
            try forEach(names, work, progress) { try store.chains.remove($0) }
        }
    }

    /// What the chains take on disk, by name, in bytes, and whether the figures are those of quota groups or of the extents
    /// of files (Docs/commands.md). Needs a btrfs store, and root.
    public func usage() async throws -> (chains: [ChainUsage], areQuotas: Bool) {
        try await run("measure chains") { store, _ in
            let usage = try store.usage()
            return (usage.chains, usage.areQuotas)
        }
    }

    /// Under which names stores have the layer prefixes of an image, the shortest prefix first. Needs a btrfs store.
    ///
    /// - Parameters:
    ///   - image: `PATH[:TAG]`.
    ///   - platform: which image of a multi-platform index; by default this host's.
    ///   - stacker: the directory where stacker keeps its trees, to ask whether it holds them.
    public func layerNames(
        of image: BytePath, platform: Platform? = nil, stacker: BytePath? = nil
    ) async throws -> [LayerName] {
        try await run("hold chains") { store, work in
            try LayerName.all(
                of: work.place.resolve(image, platform: platform), in: store, stacker: stacker)
        }
    }

    /// Deletes the chains that nothing needs. Other calls and processes may use the store meanwhile. Needs a btrfs store, and
    /// root.
    ///
    /// - Parameters:
    ///   - images: images, `PATH[:TAG]`, whose chains stay, for all platforms.
    ///   - age: chains that are younger stay. Nil: age does not count.
    ///   - isDryRun: nothing is deleted; the report says what would be, and the bytes that it would free.
    ///   - waitsForSpace: the call ends when the file system has given the space back.
    ///   - progress: told how many are deleted, of those that nothing needs.
    public func collectGarbage(
        keeping images: [BytePath] = [], keepingYoungerThan age: Duration? = nil, isDryRun: Bool = false,
        waitsForSpace: Bool = false, progress: @escaping ProgressHandler = { _ in }
    ) async throws -> GarbageCollection.Report {
        try await run("collect garbage") { store, work in
            var options = GarbageCollection.Options()
            for image in images {
                try work.place.everyImage(image).forEach { options.keptChains.formUnion($0.chainIDs) }
            }
            if let age {
                let now = Timestamp.now()
                options.madeBefore = Timestamp(
                    seconds: now.seconds - max(0, age.components.seconds), nanoseconds: now.nanoseconds)
            }
            options.isDryRun = isDryRun
            options.waitsForSpace = waitsForSpace
            return try GarbageCollection(
                store, options: options, cancellation: work.cancellation, progress: paced(progress)
            ).run()
        }
    }

    /// Looks whether the store is as it should be. Without images or layouts no file is read. Needs a btrfs store.
    ///
    /// - Parameters:
    ///   - repairs: what is wrong, and of the store's own making, is removed.
    ///   - images: images, `PATH[:TAG]`, whose chains are made again from their layers and compared, byte for byte.
    ///   - layouts: OCI image layouts, all images of which are compared in this way.
    public func check(
        repairs: Bool = false, comparingWith images: [BytePath] = [], layouts: [BytePath] = []
    ) async throws -> StoreCheck.Report {
        try await run("check a store") { store, work in
            let all =
                try images.map { try work.place.everyImage($0) }
                + layouts.map { try work.place.openLayout($0).selection(of: nil) }
            return try StoreCheck(store, repairs: repairs).report(
                comparingWith: images.isEmpty && layouts.isEmpty ? nil : all,
                cancellation: work.cancellation)
        }
    }

    /// Answers a request of another tool that has the store as its hook program (Docs/hooks.md). Needs a btrfs store.
    ///
    /// - Parameters:
    ///   - hook: what is asked, such as `unpack.ociv1.layer.try-skip`.
    ///   - bundle: the bundle of the tool.
    ///   - request: one JSON object.
    /// - Returns: one JSON object.
    /// - Throws: `VarveError`: `invalidInput` for a request that is not one of the protocol.
    public func answerHook(_ hook: String, bundle: BytePath, request: [UInt8]) async throws -> [UInt8] {
        try await run("be a hook program") { store, work in
            try BtrfsHook(store: store, cancellation: work.cancellation).answer(
                try HookName(named: hook), bundle: bundle, request: request
            ).bytes
        }
    }

    /// Does something for each, and tells how far it is. One that fails does not keep the others; the first error is thrown
    /// at the end. Cancelling ends it between two.
    func forEach<Item>(
        _ items: [Item], _ work: Work, _ progress: @escaping ProgressHandler, _ body: (Item) throws -> Void
    ) throws {
        let progress = paced(progress)
        var first: (any Error)?
        for (index, item) in items.enumerated() {
            try work.cancellation.check()
            do { try body(item) } catch { first = first ?? error }
            progress(.items(done: index + 1, count: items.count))
        }
        try work.cancellation.check()
        if let first { throw first }
    }
}

/// Stores in a btrfs of their own, in the image file `PATH.btrfs`: for hosts with no btrfs. Needs root.
extension LayerStore {
    /// Makes the image file and a btrfs in it, mounts it at a directory, `noatime`, and makes a store there. What an error
    /// leaves half done is taken away again.
    ///
    /// - Parameters:
    ///   - path: a directory that is empty, or yet to be made.
    ///   - size: of the image file, in bytes, at least 256 MiB; blocks are taken as they are used.
    ///   - workshop: the threads and the memory of this call and of all calls of the store.
    ///   - logger: takes warnings, and at debug level what is done.
    /// - Throws: `VarveError`: `usage` for a smaller size, `unsupported` without root or mkfs.btrfs(8).
    public static func createLoopback(
        _ path: BytePath, size: Int64, workshop: Workshop = .shared, logger: Logger = Logger(label: "varve")
    ) async throws -> LayerStore {
        try await workshop.run { place in
            let store = try LoopbackStore.create(
                at: path, size: size, logger: logger, cancellation: place.cancellation)
            return LayerStore(place.unbound(store), workshop, logger)
        }
    }

    /// Mounts a loopback store, after a reboot. Does nothing if it is mounted.
    ///
    /// - Throws: `VarveError`: `notFound` if there is no image file.
    public static func mountLoopback(_ path: BytePath, workshop: Workshop = .shared) async throws {
        try await workshop.run { _ in try LoopbackStore.mount(at: path) }
    }

    /// Unmounts a loopback store; the image file stays.
    ///
    /// - Throws: `VarveError`: `notFound` if no store is mounted there, `failed` if something has files open there. That may
    ///   be this process, as long as it has the store open.
    public static func unmountLoopback(_ path: BytePath, workshop: Workshop = .shared) async throws {
        try await workshop.run { _ in try LoopbackStore.unmount(path) }
    }
}
