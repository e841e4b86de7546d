public import Layers
public import Logging
public import OCI
public import Store
public import SystemCalls
import Synchronization
import SystemPackage

/// A store of OCI image layers for a build orchestrator: open it, unpack images into bundles, see what a build step
/// changed, repack.
///
///     let store = try await LayerStore.open("/var/lib/varve")
///     try await store.unpack("images/debian:12", into: "/var/lib/varve-builds/one")
///     // … run something in /var/lib/varve-builds/one/rootfs …
///     for change in try await store.delta(of: "/var/lib/varve-builds/one").changes { print(change.kind, change.path) }
///     try await store.repack("/var/lib/varve-builds/one", into: "images/debian:12-tools")
///
/// Every call throws errors whose `description` is one sentence for a person, and leaves nothing half done, also when
/// its task is cancelled. Calls may run at the same time, in one process and in several.
public struct LayerStore: Sendable {
    private let driver: any StorageDriver
    /// The btrfs store; nil with a driver of the caller's own.
    private let store: SnapshotStore?
    private let logger: Logger

    /// Opens the btrfs store in a directory. Throws `StoreError`, kind `notFound`, if there is none.
    public static func open(_ path: BytePath, logger: Logger = Logger(label: "varve")) async throws
        -> LayerStore
    {
        try await blocking { _ in
            let store = try SnapshotStore.open(at: path, logger: logger)
            return LayerStore(driver: BtrfsDriver(store: store), store: store, logger: logger)
        }
    }

    /// Makes a btrfs store in a directory on btrfs, or opens the one that is there.
    public static func create(_ path: BytePath, logger: Logger = Logger(label: "varve")) async throws
        -> LayerStore
    {
        try await blocking { _ in
            let store = try SnapshotStore.initialize(at: path, logger: logger)
            return LayerStore(driver: BtrfsDriver(store: store), store: store, logger: logger)
        }
    }

    /// Works through a driver of the caller's own instead of btrfs.
    public init(driver: any StorageDriver, logger: Logger = Logger(label: "varve")) {
        self.init(driver: driver, store: nil, logger: logger)
    }

    private init(driver: any StorageDriver, store: SnapshotStore?, logger: Logger) {
        self.driver = driver
        self.store = store
        self.logger = logger
    }

    /// Unpacks an image (`PATH[:TAG]`, an OCI image layout) so that `bundle`, which is yet to be made, is a bundle of it.
    /// Layers that the store has are not read.
    ///
    /// - Parameters:
    ///   - platform: which image of a multi-platform index; by default this host's.
    ///   - progress: called from a thread of the operation, often: return at once.
    @discardableResult
    public func unpack(
        _ image: BytePath, platform: Platform? = nil, into bundle: BytePath,
        options: Unpacking.Options = Unpacking.Options(), progress: @escaping ProgressHandler = { _ in }
    ) async throws -> Unpacking.Result {
        try await blocking { [driver] cancellation in
            let resolved = try ImageLayout.resolve(try ImageReference.locating(image), platform: platform)
            return try Unpacking(
                driver: driver, options: options, cancellation: cancellation, progress: progress
            )
            .unpack(resolved, into: bundle)
        }
    }

    /// The exact changes in a bundle since it was unpacked, in byte order of their paths.
    public func delta(of bundle: BytePath, source: DeltaSource = .auto) async throws -> DeltaResult {
        try await blocking { [driver] cancellation in
            try driver.freeze(
                RepackContext(bundle: bundle, source: source, cancellation: cancellation)
            ).delta {
                try cancellation.check()
            }
        }
    }

    /// The exact changes between any two subvolumes of one btrfs, in byte order of their paths.
    ///
    /// A side is the path of a subvolume's root directory, or the name of a snapshot or a chain of this store. The
    /// changes come when all are known: a hard link met last may add a path that sorts first.
    /// - Parameter progress: called with the number of entries looked at so far, now and then, by any thread.
    public func delta(
        from old: BytePath, to new: BytePath, source: DeltaSource = .auto,
        progress: @escaping @Sendable (_ entries: Int) -> Void = { _ in }
    ) -> AsyncThrowingStream<Change, any Error> {
        AsyncThrowingStream { continuation in
            let task = Task { [store, logger] in
                do {
                    let result = try await blocking { cancellation in
                        let entries = EntryCounter(progress)
                        return try SubvolumeComparison(store: store, logger: logger).delta(
                            from: old, to: new, source: source
                        ) {
                            try cancellation.check()
                            entries.count()
                        }
                    }
                    for change in result.changes { continuation.yield(change) }
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
            continuation.onTermination = { _ in task.cancel() }
        }
    }

    /// Adds one layer with the changes of a bundle to the image that it came from, and tags the result. `image` is the
    /// same layout, with the tag that the new image is to have.
    @discardableResult
    public func repack(
        _ bundle: BytePath, into image: BytePath, options: Repacking.Options? = nil,
        progress: @escaping ProgressHandler = { _ in }
    ) async throws -> Repacking.Result {
        try await blocking { [driver] cancellation in
            let reference = try ImageReference.locating(image)
            let layout = try ImageLayout(opening: reference.path)
            return try Repacking(
                driver: driver, options: options ?? Repacking.Options(now: .now()),
                cancellation: cancellation,
                progress: progress
            ).repack(bundle, into: layout, tag: reference.tag)
        }
    }

    /// Keeps a bundle as it is now under a name. Needs a btrfs store.
    public func createSnapshot(of bundle: BytePath, name: String) async throws {
        let store = try btrfsStore("keep snapshots")
        try await blocking { _ in try store.createSnapshot(of: bundle, name: name) }
    }

    /// Makes a bundle of a snapshot. Needs a btrfs store.
    public func restoreSnapshot(_ name: String, to bundle: BytePath) async throws {
        let store = try btrfsStore("restore snapshots")
        try await blocking { _ in try store.restoreSnapshot(name, to: bundle) }
    }

    /// Deletes a bundle, with the subvolumes nested in it. Needs a btrfs store.
    public func removeBundle(_ bundle: BytePath) async throws {
        let store = try btrfsStore("remove bundles")
        try await blocking { _ in try store.removeBundle(bundle) }
    }

    /// Counts entries for a progress handler that need not hear of each.
    private final class EntryCounter: Sendable {
        private let value = Atomic<Int>(0)
        private let progress: @Sendable (Int) -> Void
        init(_ progress: @escaping @Sendable (Int) -> Void) { self.progress = progress }
        func count() {
            let count = value.add(1, ordering: .relaxed).newValue
            if count % 1024 == 0 { progress(count) }
        }
    }

    private func btrfsStore(_ what: String) throws(StoreError) -> SnapshotStore {
        guard let store else {
            throw StoreError(.unsupported, "the driver \"\(driver.name)\" cannot \(what); use a btrfs store")
        }
        return store
    }
}
