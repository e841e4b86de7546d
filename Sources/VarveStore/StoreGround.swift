package import VarveSystem
import Glibc
import SystemPackage

/// What is for stores alone: their own directories, in which nothing of a user's is safe.
package enum StoreGround {
    /// In a store.
    private static let closed = Set(
        StoreLayout.directories + [
            StoreLayout.published, StoreLayout.pins, StoreLayout.images, StoreLayout.containerd,
        ])

    /// The name of a store's own directory that something would lie in, or be.
    ///
    /// - Returns: nil for any other place, and where that cannot be told: nothing is known of a store there.
    static func name(of rest: [BytePath], in directory: FileDescriptor) -> BytePath? {
        (try? foundName(of: rest, in: directory)) ?? nil
    }

    /// The same for what is to be deleted: what cannot be told is an error.
    ///
    /// The way up from the directory is gone by `..`, and what is on it compared by inode number, so it leads out of a bind mount as a path does.
    ///
    /// - Parameters:
    ///   - directory: in which it lies, or would.
    ///   - rest: the way from there to it.
    static func foundName(of rest: [BytePath], in directory: FileDescriptor) throws(Errno) -> BytePath? {
        if let name = rest.first, closed.contains(name), try belongsToStore(directory) { return name }
        var current = SharedDescriptor(try directory.open(.current, [.directory, .path]))
        while true {
            let above = SharedDescriptor(try current.fd.open("..", [.directory, .path]))
            let status = try current.fd.status()
            if try above.fd.status().isSameFile(as: status), try above.fd.mountID() == current.fd.mountID() {
                return nil
            }
            if try belongsToStore(above.fd) {
                for name in closed {
                    if try above.fd.statusIfPresent(of: name)?.isSameFile(as: status) == true { return name }
                }
            }
            current = above
        }
    }

    /// Whether a directory is that of a store, whoever has that. What others have put into somebody's directory makes none of it.
    private static func belongsToStore(_ directory: FileDescriptor) throws(Errno) -> Bool {
        guard let keeper = try keeper(of: directory) else { return false }
        if [0, geteuid()].contains(keeper) { return true }
        return try directory.status().uid == keeper
    }

    /// Whether a directory is that of a store of root's or the caller's.
    static func isStore(_ directory: FileDescriptor) -> Bool {
        // Anybody can make what looks like a store of a directory such as /tmp: what others have put there is passed over.
        // A file of root's, too, they can get hold of and move there.
        guard let keeper = (try? keeper(of: directory)) ?? nil, let status = try? directory.status(),
            status.mode & 0o1002 != 0o1002
        else { return false }
        return [0, geteuid()].contains(keeper)
    }

    /// Whose the description of a store is; nil for a directory that is none's.
    private static func keeper(of directory: FileDescriptor) throws(Errno) -> UInt32? {
        guard let description = try directory.statusIfPresent(of: StoreLayout.description),
            description.isRegular,
            try directory.statusIfPresent(of: StoreLayout.chains)?.isDirectory == true
        else { return nil }
        return description.uid
    }

    /// - Parameter noun: what was to be made, "bundle".
    static func refusal(_ path: BytePath, as noun: String, _ own: BytePath) -> VarveError {
        VarveError(
            .usage,
            "\"\(path)\" cannot be \(noun): it would lie in \(own)/ of a store, which is for the store alone",
            subject: path, remedy: .name("another place"))
    }

    /// Throws if an image layout that is yet to be made would lie in a store's own directories. That of the store's images itself may be made.
    ///
    /// Nobody is kept from anything by this: whoever may write to a store may do so in other ways.
    package static func checkLayout(_ path: BytePath) throws(VarveError) {
        var (there, missing): (BytePath, [BytePath]) = (path, [])
        var found = opened(there)
        while found == nil, !there.isEmpty {
            missing.insert(there.lastComponent, at: 0)
            there = there.parent
            found = opened(there)
        }
        // What is wrong with the way is said by who goes it.
        guard let found, let own = name(of: missing, in: found.fd) else { return }
        if own == StoreLayout.images, missing.isEmpty || missing == [own],
            let place = try? found.fd.path(), missing.isEmpty ? place.lastComponent == own : true,
            let store = opened(missing.isEmpty ? place.parent : place), isStore(store.fd)
        {
            return
        }
        throw refusal(path, as: "an image layout", own)
    }

    private static func opened(_ path: BytePath) -> SharedDescriptor? {
        do throws(Errno) {
            return SharedDescriptor(
                try FileDescriptor.workingDirectory.open(
                    path.isEmpty ? .current : path, [.directory, .path]))
        } catch {
            return nil
        }
    }
}
