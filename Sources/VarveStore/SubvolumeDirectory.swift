import VarveBtrfs
import VarveLayers
import VarveSystem
import SystemPackage

/// A directory of a store that holds subvolumes of the store's own: `chains/`, `snapshots/`, `refreshed/` or `work/`.
package struct SubvolumeDirectory: Sendable {
    let opened: SharedDescriptor
    /// The path of the store, for messages.
    let store: BytePath
    /// Its name in the store.
    let name: BytePath

    var fd: FileDescriptor { opened.fd }

    func entries() throws(StoreError) -> [DirectoryEntry] {
        try attempt("list", store.appending(name)) { () throws(Errno) in try opened.fd.entries() }
    }

    /// A subvolume in it; nil if it is not there. A stub counts as not there: a snapshot of the subvolume in which the
    /// store lies has one in place of each subvolume of the store (a rollback by snapper or timeshift brings them back).
    func open(_ name: BytePath) throws(StoreError) -> SharedDescriptor? {
        try attempt("open in the store \(store)", name) { () throws(Errno) in
            do throws(Errno) {
                let found = SharedDescriptor(try opened.fd.openDirectory(name))
                return try found.fd.status().isSubvolumeStub ? nil : found
            } catch .noSuchFileOrDirectory {
                return nil
            }
        }
    }

    /// Removes the stub of a subvolume under a name that is needed now (`open`).
    func removeStub(_ name: BytePath) throws(StoreError) {
        try attempt("make room in the store \(store) for", name) { () throws(Errno) in
            _ = try opened.fd.removeSubvolumeStub(name)
        }
    }

    /// Deletes a subvolume. No others lie in it, so it goes with its name in one transaction, and what is half deleted is
    /// never seen.
    ///
    /// - Returns: the numbers of the subvolumes that were deleted.
    @discardableResult
    func delete(_ name: BytePath) throws -> [UInt64] { try Self.delete(name, in: opened.fd) }

    /// Deletes a subvolume in any directory.
    @discardableResult
    static func delete(_ name: BytePath, in directory: FileDescriptor) throws -> [UInt64] {
        do throws(BtrfsError) {
            return try directory.removeSubvolumeTree(name)
        } catch {
            if error.errno == .noSuchFileOrDirectory {
                throw StoreError(.notFound, "\"\(name)\" is not there (any more)", subject: name)
            }
            guard error.errno == .invalidArgument, let other = try? directory.openDirectory(name),
                (try? other.fd.isSubvolume()) == false
            else { throw error }
            // A plain directory, as `cp -a` of a store leaves it.
            try TreeRemoval.removeTree(name, in: directory, path: name)
            return []
        }
    }
}
