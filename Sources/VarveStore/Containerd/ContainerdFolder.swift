import VarveSystem
import SystemPackage

/// What containerds have in a store, for those who serve none of them: `containerd/ID/` of each (`ContainerdPlace`).
package struct ContainerdFolder {
    private let store: SnapshotStore
    /// Nil if there is none.
    let directory: SharedDescriptor?

    package init(of store: SnapshotStore) throws {
        self.store = store
        directory = try attempt("open", store.path.appending(StoreLayout.containerd)) {
            () throws(Errno) -> SharedDescriptor? in
            do throws(Errno) {
                return SharedDescriptor(try store.directory.fd.openDirectory(StoreLayout.containerd))
            } catch .noSuchFileOrDirectory {
                return nil
            }
        }
    }

    /// What lies in `containerd/`, by name.
    func entries() throws(VarveError) -> [DirectoryEntry] {
        guard let directory else { return [] }
        return try attempt("list", store.path.appending(StoreLayout.containerd)) { () throws(Errno) in
            try directory.fd.entries()
        }.sorted { $0.name < $1.name }
    }

    /// What each of them has, by ID.
    package func places() throws -> [ContainerdPlace] {
        try entries().compactMap { entry in try entry.name.string.flatMap { try placeIfPresent($0) } }
    }

    /// What one of them has.
    ///
    /// - Throws: `VarveError`, `notFound` if there is nothing of that ID.
    package func place(_ id: String) throws -> ContainerdPlace {
        guard let place = try placeIfPresent(id) else {
            throw VarveError(
                .notFound,
                "the store \"\(store.path)\" has nothing of a containerd \"\(BytePath.excerpt(id.utf8))\"",
                subject: BytePath(id), remedy: .listContainerds)
        }
        return place
    }

    private func placeIfPresent(_ id: String) throws -> ContainerdPlace? {
        guard let directory, DaemonTrees.isValid(id) else { return nil }
        let own = try attempt("open", store.path.appending(StoreLayout.containerd).appending(BytePath(id))) {
            () throws(Errno) -> SharedDescriptor? in
            do throws(Errno) {
                return SharedDescriptor(try directory.fd.openDirectory(BytePath(id)))
            } catch .noSuchFileOrDirectory {
                return nil
            } catch .notDirectory {
                return nil
            } catch .tooManySymbolicLinkLevels {
                return nil
            }
        }
        return try own.map { try ContainerdPlace(id, $0, in: directory, of: store) }
    }
}

extension SnapshotStore {
    /// The IDs of the containerds that have snapshots of each chain.
    package func containerdsOfChains() throws -> [ChainName: [String]] {
        var result: [ChainName: [String]] = [:]
        for place in try ContainerdFolder(of: self).places() {
            let chains = Set(try place.state().records.compactMap(\.chain))
            for chain in chains { result[ChainName(chain), default: []].append(place.id) }
        }
        return result
    }
}
