public import VarveLayers
public import Logging
public import VarveOCI
public import VarveStore
public import VarveSystem
import SystemPackage

/// A store of OCI image layers for a build orchestrator: open it, unpack images into bundles, see what a build step
/// changed, repack.
///
///     let store = try await LayerStore.open("/var/lib/varve")
///     try await store.unpack("images/debian:12", into: "/var/lib/varve-builds/one")
///     // … run something in /var/lib/varve-builds/one/rootfs …
///     for change in try await store.delta(of: "/var/lib/varve-builds/one").changes { print(change) }
///     try await store.repack("/var/lib/varve-builds/one", into: "images/debian:12-tools")
///
/// Calls may run at the same time, in one process and in several. How many of a process do is said by its `Workshop`; the
/// others wait, and cost no thread.
///
/// Every call throws `VarveError`. Cancelling the task ends the call with `CancellationError`, wherever it is: while it waits
/// for a place or for a lock too. A call that throws leaves nothing half done.
///
/// Progress handlers are called at most 20 times a second, from a thread of the call. They return at once, and never wait
/// for another call.
public struct LayerStore: Sendable {
    let driver: any StorageDriver
    /// The btrfs store; nil with a driver of the caller's own.
    let store: SnapshotStore?
    let logger: Logger
    /// The threads and the memory of the calls.
    let workshop: Workshop

    /// Opens the btrfs store in a directory.
    ///
    /// - Parameters:
    ///   - path: the directory of the store.
    ///   - workshop: the threads and the memory of this call and of all calls of the store.
    ///   - logger: takes warnings, and at debug level what is done.
    /// - Throws: `VarveError`: `notFound` if there is no store, `unsupported` if it is not on btrfs or not the caller's.
    public static func open(
        _ path: BytePath, workshop: Workshop = .shared, logger: Logger = Logger(label: "varve")
    ) async throws -> LayerStore {
        try await workshop.run { place in
            LayerStore(try place.openStore(path, logger), workshop, logger)
        }
    }

    /// Makes a btrfs store in a directory on btrfs, or opens the one that is there.
    ///
    /// - Parameters:
    ///   - path: a directory that is empty, or yet to be made.
    ///   - workshop: the threads and the memory of this call and of all calls of the store.
    ///   - logger: takes warnings, and at debug level what is done.
    /// - Throws: `VarveError`: `unsupported` if it is not on btrfs.
    public static func create(
        _ path: BytePath, workshop: Workshop = .shared, logger: Logger = Logger(label: "varve")
    ) async throws -> LayerStore {
        try await workshop.run { place in
            LayerStore(try place.createStore(path, logger), workshop, logger)
        }
    }

    /// Works through a driver of the caller's own instead of btrfs.
    public init(
        driver: any StorageDriver, workshop: Workshop = .shared, logger: Logger = Logger(label: "varve")
    ) {
        self.driver = driver
        store = nil
        self.workshop = workshop
        self.logger = logger
    }

    init(_ store: SnapshotStore, _ workshop: Workshop, _ logger: Logger) {
        driver = BtrfsDriver(store: store)
        self.store = store
        self.workshop = workshop
        self.logger = logger
    }

    /// Unpacks an image so that `bundle` is a bundle of it. Layers that the store has are not read.
    ///
    /// - Parameters:
    ///   - image: `PATH[:TAG]`, an OCI image layout and a tag in it; `latest` by default.
    ///   - platform: which image of a multi-platform index; by default this host's.
    ///   - bundle: a directory that is yet to be made, or is empty.
    ///   - options: its memory and its helper threads are cut down to what the workshop has free.
    ///   - progress: told how far the call is.
    /// - Throws: `VarveError`: `notFound` if there is no such image, `invalidInput` if it is not valid, `failed` if there is
    ///   something in `bundle`.
    @discardableResult
    public func unpack(
        _ image: BytePath, platform: Platform? = nil, into bundle: BytePath,
        options: Unpacking.Options = Unpacking.Options(), progress: @escaping ProgressHandler = { _ in }
    ) async throws -> Unpacking.Result {
        try await run { work in
            try Unpacking(
                driver: work.driver, options: work.place.fitted(options), cancellation: work.cancellation,
                logger: logger, progress: paced(progress)
            )
            .unpack(try work.place.resolve(image, platform: platform), into: bundle)
        }
    }

    /// The exact changes in a bundle since it was unpacked, or last refreshed, in byte order of their paths.
    ///
    /// - Parameters:
    ///   - bundle: the path of the bundle.
    ///   - source: what the changes are found by, where the driver has a choice; the result is the same.
    ///   - readsAll: content is compared also where all else says that it is as it was.
    ///   - progress: called with the number of entries looked at so far.
    public func delta(
        of bundle: BytePath, source: DeltaSource = .auto, readsAll: Bool = false,
        progress: @escaping @Sendable (_ entries: Int) -> Void = { _ in }
    ) async throws -> DeltaResult {
        try await run { work in
            let entries = EntryCounter(progress)
            let cancellation = work.cancellation
            return try work.driver.freeze(
                RepackContext(bundle: bundle, source: source, readsAll: readsAll, cancellation: cancellation)
            ).delta {
                try cancellation.check()
                entries.count()
            }.requireAll()
        }
    }

    /// The exact changes between any two subvolumes of one btrfs, in byte order of their paths.
    ///
    /// A side is the path of a subvolume's root directory, or the name of a snapshot or a chain of this store. Of bundles,
    /// snapshots and chains, the trees in `rootfs/` are compared.
    ///
    /// - Parameters:
    ///   - old: the tree as it was.
    ///   - new: the tree as it is.
    ///   - source: what the changes are found by; the result is the same.
    ///   - progress: called with the number of entries looked at so far.
    /// - Throws: `VarveError`: `notFound` if there is no such side, `unsupported` where it is not on btrfs.
    public func delta(
        from old: BytePath, to new: BytePath, source: DeltaSource = .auto,
        progress: @escaping @Sendable (_ entries: Int) -> Void = { _ in }
    ) async throws -> DeltaResult {
        try await run { work in
            let entries = EntryCounter(progress)
            let cancellation = work.cancellation
            return try SubvolumeComparison(store: work.store, logger: logger).delta(
                from: old, to: new, source: source
            ) {
                try cancellation.check()
                entries.count()
            }
        }
    }

    /// Adds one layer with the changes of a bundle to the image that it came from, and tags the result.
    ///
    /// - Parameters:
    ///   - bundle: the path of the bundle.
    ///   - image: `PATH[:TAG]`, the layout that holds the image of the bundle, and the tag that the new image gets.
    ///   - options: threads that compress beyond two are cut down to what the workshop has free.
    ///   - progress: told how far the call is.
    /// - Throws: `VarveError`: `notFound` if there is no such bundle or layout, `usage` for what can be no tag.
    @discardableResult
    public func repack(
        _ bundle: BytePath, into image: BytePath, options: Repacking.Options = Repacking.Options(),
        progress: @escaping ProgressHandler = { _ in }
    ) async throws -> Repacking.Result {
        try await run { work in
            let reference = try ImageReference.locating(image)
            return try Repacking(
                driver: work.driver, options: work.place.fitted(options), cancellation: work.cancellation,
                progress: paced(progress)
            ).repack(
                bundle, into: try work.place.openLayout(reference.path), tag: try reference.tagToChange())
        }
    }

    /// What a call works with: its place, and the store in a form whose waits end when the call is cancelled.
    struct Work {
        var place: WorkPlace
        var driver: any StorageDriver
        var store: SnapshotStore?
        var cancellation: Cancellation { place.cancellation }
    }

    func run<T: Sendable>(_ call: @escaping @Sendable (Work) throws -> T) async throws -> T {
        try await workshop.run { [driver, store] place in
            guard let store else { return try call(Work(place: place, driver: driver, store: nil)) }
            let own = place.bound(store)
            return try call(Work(place: place, driver: BtrfsDriver(store: own), store: own))
        }
    }

    /// Runs a call that only a btrfs store can do.
    ///
    /// - Parameter what: what the driver cannot do, for the error.
    func run<T: Sendable>(
        _ what: String, _ call: @escaping @Sendable (SnapshotStore, Work) throws -> T
    ) async throws -> T {
        guard store != nil else {
            throw VarveError(
                .unsupported, "the driver \"\(driver.name)\" cannot \(what)", remedy: .useBtrfsStore)
        }
        return try await run { work in
            guard let store = work.store else {
                throw VarveError(.unsupported, "there is no btrfs store", remedy: .useBtrfsStore)
            }
            return try call(store, work)
        }
    }
}
