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
    /// - Parameters:
    ///   - directory: in which it would lie.
    ///   - rest: the way from there to it.
    /// - Returns: nil for any other place, and where that cannot be told: nothing is known of a store there.
    static func name(of rest: [BytePath], in directory: FileDescriptor) -> BytePath? {
        guard let path = try? directory.path(), path.isAbsolute else { return nil }
        var above: BytePath = "/"
        for name in path.components + rest {
            if closed.contains(name), isStore(above) { return name }
            above = above.appending(name)
        }
        return nil
    }

    private static func isStore(_ path: BytePath) -> Bool {
        guard let opened = opened(path) else { return false }
        return isStore(opened.fd)
    }

    /// Whether a directory is that of a store.
    static func isStore(_ directory: FileDescriptor) -> Bool {
        // Anybody can make what looks like a store of a directory such as /tmp: what others have put there is passed over.
        guard let description = try? directory.status(of: StoreLayout.description), description.isRegular,
            description.uid == 0 || description.uid == geteuid(),
            let chains = try? directory.status(of: StoreLayout.chains)
        else { return false }
        return chains.isDirectory
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
            isStore(missing.isEmpty ? place.parent : place)
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
