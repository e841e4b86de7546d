public import VarveStore
public import VarveSystem

/// Bundles and snapshots.
extension LayerStore {
    /// The bundles that lie on the file system of the store, by path, those of other stores there included. Needs a btrfs
    /// store, and root.
    ///
    /// - Throws: `VarveError`, code `unsupported`, for others than root.
    public func bundles() async throws -> [StoredBundle] {
        try await run("list bundles") { store, _ in try store.bundles() }
    }

    /// Deletes bundles. One that cannot be deleted does not keep the others; the first error is thrown at the end.
    ///
    /// - Parameters:
    ///   - bundles: the paths of the bundles.
    ///   - progress: told how many are deleted.
    public func removeBundles(
        _ bundles: [BytePath], progress: @escaping ProgressHandler = { _ in }
    ) async throws {
        try await run { [self] work in
            try forEach(bundles, work, progress) { bundle in
                try BundleRemoval.remove(
                    bundle, cancellation: work.cancellation, hooks: { driver as? HooksDriver }
                ) {
                    guard let store = work.store else {
                        throw VarveError(
                            .unsupported,
                            "the driver \"\(driver.name)\" cannot remove the bundle \"\(bundle)\"",
                            subject: bundle,
                            remedy: .useBtrfsStore
                        )
                    }
                    return store
                }
            }
        }
    }

    /// Keeps a bundle as it is now under a name, at once. Needs a btrfs store.
    ///
    /// - Throws: `VarveError`: `usage` for a name that no snapshot can have, `failed` if there is one of that name, or if another user
    ///   can have written which chain the bundle came from.
    public func createSnapshot(of bundle: BytePath, name: String) async throws {
        try await run("keep snapshots") { store, _ in try store.createSnapshot(of: bundle, name: name) }
    }

    /// The snapshots of the store, by name. Needs a btrfs store.
    public func snapshots() async throws -> [NamedSnapshot] {
        try await run("list snapshots") { store, _ in try store.snapshots() }
    }

    /// Makes a bundle of a snapshot, which stays. Needs a btrfs store.
    ///
    /// - Throws: `VarveError`: `notFound` if there is no snapshot of that name, `failed` if another user can have written which chain it came from.
    public func restoreSnapshot(_ name: String, to bundle: BytePath) async throws {
        try await run("restore snapshots") { store, _ in try store.restoreSnapshot(name, to: bundle) }
    }

    /// Deletes snapshots. One that cannot be deleted does not keep the others; the first error is thrown at the end. Needs a
    /// btrfs store.
    ///
    /// - Throws: `VarveError`: `notFound` if there is no snapshot of a name, `failed` for one that is mounted or the root directory of a process.
    public func removeSnapshots(
        _ names: [String], progress: @escaping ProgressHandler = { _ in }
    ) async throws {
        try await run("remove snapshots") { [self] store, work in
            try forEach(names, work, progress) { try store.removeSnapshot($0) }
        }
    }
}
