public import SystemCalls

/// Bundles and snapshots of a btrfs store.
extension LayerStore {
    /// Keeps a bundle as it is now under a name, at once. Needs a btrfs store.
    ///
    /// - Throws: `StoreError`: `usage` for a name that no snapshot can have, `failed` if there is one of that name.
    public func createSnapshot(of bundle: BytePath, name: String) async throws {
        try await run("keep snapshots") { store, _ in try store.createSnapshot(of: bundle, name: name) }
    }

    /// Makes a bundle of a snapshot, which stays. Needs a btrfs store.
    public func restoreSnapshot(_ name: String, to bundle: BytePath) async throws {
        try await run("restore snapshots") { store, _ in try store.restoreSnapshot(name, to: bundle) }
    }

    /// Deletes a bundle, with the subvolumes nested in it. Needs a btrfs store.
    public func removeBundle(_ bundle: BytePath) async throws {
        try await run("remove bundles") { store, _ in try store.removeBundle(bundle) }
    }
}
