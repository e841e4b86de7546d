import Logging
import VarveOCI
import VarveStore
import VarveSystem

/// Opens what a call works with, so that its waits for locks end when the call is cancelled.
extension WorkPlace {
    /// Opens a store, and deletes what calls of processes that are gone left in it.
    func openStore(_ path: BytePath, _ logger: Logger) throws -> SnapshotStore {
        let store = try SnapshotStore.open(at: path, logger: logger, cancellation: cancellation)
        store.sweeper.sweep()
        return store
    }

    func createStore(_ path: BytePath, _ logger: Logger) throws -> SnapshotStore {
        let store = try SnapshotStore.initialize(at: path, logger: logger, cancellation: cancellation)
        // There may have been a store already.
        store.sweeper.sweep()
        return store
    }

    /// A store that is open already, for this call.
    func bound(_ store: SnapshotStore) -> SnapshotStore { store.bound(to: cancellation) }

    /// A store that was opened in this call, for other calls.
    func unbound(_ store: SnapshotStore) -> SnapshotStore { store.bound(to: Cancellation()) }

    func openLayout(_ path: BytePath) throws -> ImageLayout {
        try ImageLayout(opening: path, cancellation: cancellation)
    }

    /// The image that `PATH[:TAG]` names.
    func resolve(_ image: BytePath, platform: Platform? = nil) throws -> ResolvedImage {
        try ImageLayout.resolve(
            try ImageReference.locating(image), platform: platform, cancellation: cancellation)
    }

    /// The images for all platforms that `PATH[:TAG]` names.
    func everyImage(_ image: BytePath) throws -> ImageSelection {
        let reference = try ImageReference.locating(image)
        return try openLayout(reference.path).selection(of: reference)
    }
}
