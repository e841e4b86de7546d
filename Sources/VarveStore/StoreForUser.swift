import Glibc
package import Logging
package import VarveSystem
import SystemPackage

/// A store that root makes for another user, who then needs no privileges to use it.
extension SnapshotStore {
    /// Makes a store in `path` that is `owner`'s: its directory, for them alone, and all that is in it. The place is root's until it is whole, and
    /// what is above it must be as for a store of root's own. A store of theirs that is there is left as it is. An error leaves nothing behind.
    ///
    /// - Throws: `VarveError`, `unsupported` for others than root, and where the owner could delete no subvolume.
    package static func initialize(
        at path: BytePath, for owner: HostAccount, logger: Logger,
        cancellation: Cancellation = Cancellation()
    ) throws {
        guard Privileges.isRoot else {
            throw VarveError(
                .unsupported, "only root may make a store for another user", subject: path,
                remedy: .runAsRoot)
        }
        guard owner.uid != 0 else {
            throw VarveError(
                .usage, "\(owner.name) is root, who needs no store to be made for", subject: path,
                remedy: .name("another user"))
        }
        if try isStore(at: path, of: owner) { return }
        var made = MadeDirectories()
        do {
            try initialize(at: path, for: owner, logger, cancellation, &made)
        } catch {
            made.remove()
            // Somebody else may have made it for them meanwhile.
            if (try? isStore(at: path, of: owner)) == true { return }
            throw error
        }
    }

    private static func initialize(
        at path: BytePath, for owner: HostAccount, _ logger: Logger, _ cancellation: Cancellation,
        _ made: inout MadeDirectories
    ) throws {
        let directory = try makeOwnDirectory(path, noting: &made)
        try requireRemovableSubvolumes(directory.fd, path)
        let (store, making) = try initialize(at: path, logger: logger, cancellation, &made)
        guard let making else {
            throw VarveError(
                .failed, "\"\(path)\" is a store of root's", subject: path,
                remedy: .follow(
                    "name another directory, or delete this store if a command that was ended has left it (varve store destroy)"
                ))
        }
        defer { extendLifetime(making) }
        racePoint("hand-over")
        do {
            try store.handOver(to: owner)
        } catch {
            store.dismantle()
            throw error
        }
        try store.warnOfClosedWay(for: owner)
    }

    /// False also where it cannot be told; then it cannot be made either.
    private static func isStore(at path: BytePath, of owner: HostAccount) throws(VarveError) -> Bool {
        guard let above = try? Place.directory(path.directory, .own),
            let found = try? above.fd.statusIfPresent(of: path.lastComponent), found.isDirectory,
            found.uid == owner.uid
        else { return false }
        let opened = try attempt("open", path) { () throws(Errno) in
            try above.fd.open(path.lastComponent, [.directory, .noFollow, .path])
        }
        let description = try attempt("look at", path) { () throws(Errno) in
            try opened.fd.statusIfPresent(of: StoreLayout.description)
        }
        if let description, description.isRegular, description.uid == owner.uid { return true }
        throw VarveError(
            .failed, "\"\(path)\" belongs to \(owner.name) already, and root makes nothing in it",
            subject: path,
            remedy: .follow("make the store as that user"))
    }

    private func handOver(to owner: HostAccount) throws {
        try attempt("hand over", path) { () throws(Errno) in
            for entry in try directory.fd.entries() {
                try directory.fd.changeOwner(of: entry.name, uid: owner.uid, gid: owner.gid)
            }
            // The last: until now nobody but root could change anything in it.
            try directory.fd.changeOwner(uid: owner.uid, gid: owner.gid)
            try directory.fd.synchronize()
        }
    }

    /// Takes away what `initialize` made in an empty directory.
    private func dismantle() {
        try? directory.fd.changeOwner(uid: 0, gid: 0)
        for name in StoreLayout.directories { try? directory.fd.removeDirectory(name) }
        try? directory.fd.unlink(StoreLayout.description)
    }

    /// A directory above the store that its owner may not enter keeps them from it.
    private func warnOfClosedWay(for owner: HostAccount) throws {
        let closed = try attempt("look above", path) { () throws(Errno) -> [(BytePath, UInt32)] in
            var current = try directory.fd.open("..", [.directory, .path])
            var result: [(BytePath, UInt32)] = []
            while true {
                let status = try current.fd.status()
                let shift = status.uid == owner.uid ? 6 : status.gid == owner.gid ? 3 : 0
                if status.permissions >> shift & 1 == 0 {
                    result.append((try current.fd.path(), status.permissions))
                }
                let above = try current.fd.open("..", [.directory, .path])
                if try above.fd.status().isSameFile(as: status) { return result }
                current = above
            }
        }
        for (directory, permissions) in closed {
            logger.warning(
                "\(owner.name) cannot reach the store, unless an access control list or another group of theirs lets them into \"\(directory)\" (mode \(String(permissions, radix: 8)))"
            )
        }
    }
}
