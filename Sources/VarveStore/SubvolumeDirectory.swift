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

    func entries() throws(VarveError) -> [DirectoryEntry] {
        try attempt("list", store.appending(name)) { () throws(Errno) in try opened.fd.entries() }
    }

    /// A subvolume in it; nil if it is not there. A stub counts as not there: a snapshot of the subvolume in which the
    /// store lies has one in place of each subvolume of the store (a rollback by snapper or timeshift brings them back).
    func open(_ name: BytePath) throws(VarveError) -> SharedDescriptor? {
        try attempt("open in the store \(store)", name) { () throws(Errno) in
            do throws(Errno) {
                let found = SharedDescriptor(try opened.fd.openDirectory(name))
                return try found.fd.status().isSubvolumeStub ? nil : found
            } catch .noSuchFileOrDirectory {
                return nil
            }
        }
    }

    /// What stands under a name.
    enum Occupant {
        case subvolume(SharedDescriptor)
        /// A directory that is no subvolume, as `cp -a` of a store leaves it. No command uses it.
        case plainDirectory
        /// No directory at all.
        case file

        /// Why no command uses it; nil for a subvolume, which has to be looked at.
        var fault: ChainFault? {
            switch self {
            case .subvolume: nil
            case .plainDirectory: .plainDirectory
            case .file: .file
            }
        }
    }

    /// What stands under a name; nil for nothing and for a stub (`open`).
    func occupant(of name: BytePath) throws -> Occupant? {
        let opened: SharedDescriptor
        do throws(Errno) {
            opened = SharedDescriptor(try fd.openDirectory(name))
        } catch  where error.isAbsence {
            return nil
        } catch .notDirectory {
            return .file
        } catch .tooManySymbolicLinkLevels {
            return .file
        } catch {
            throw VarveError.system("open in the store \(store)", name, error)
        }
        if try opened.fd.isSubvolume() { return .subvolume(opened) }
        let isStub = try attempt("look at", name) { () throws(Errno) in
            try opened.fd.status().isSubvolumeStub
        }
        return isStub ? nil : .plainDirectory
    }

    /// The subvolume of that name; nil for anything else, and for nothing.
    func subvolume(_ name: BytePath) throws -> SharedDescriptor? {
        if case .subvolume(let found)? = try occupant(of: name) { found } else { nil }
    }

    /// Who has one of them in use, or something of one, through a mount or as a root directory. The first component of each one's place is the
    /// subvolume's name.
    ///
    /// - Parameter name: of the one whose users count; nil for all.
    func users(
        in nameSpaces: TreeUsers.NameSpaces, of name: BytePath? = nil, _ cancellation: Cancellation
    ) throws(Errno) -> [TreeUsers.User] {
        var roots: [TreeUsers.Root] = []
        if nameSpaces == .all {
            let names = if let name { [name] } else { try fd.entries().map(\.name) }
            for name in names {
                if let root = try TreeUsers.Root(name.appending(StoreLayout.rootfs), in: fd) {
                    roots.append(root)
                }
            }
        }
        let all = try TreeUsers(of: fd, in: nameSpaces, roots: roots, cancellation).all
        return name == nil ? all : all.filter { $0.place.first == name }
    }

    /// The names of those that somebody has in use (`users`).
    func namesInUse(_ cancellation: Cancellation) throws(VarveError) -> Set<BytePath> {
        Set(try allUsers(of: nil, cancellation).compactMap(\.place.first))
    }

    /// Throws if somebody has a subvolume in use (`users`): the kernel deletes it all the same, and what is mounted on it goes with it.
    ///
    /// - Parameter words: what it is, in a sentence.
    func requireUnused(
        _ name: BytePath, _ words: String, _ cancellation: Cancellation
    ) throws(VarveError) {
        guard let user = try allUsers(of: name, cancellation).first else { return }
        throw VarveError(.failed, "\(words) is in use: \(user.words)", subject: name, remedy: user.remedy)
    }

    private func allUsers(
        of entry: BytePath?, _ cancellation: Cancellation
    ) throws(VarveError) -> [TreeUsers.User] {
        try attempt("look for mounts of", store.appending(name)) { () throws(Errno) in
            try users(in: .all, of: entry, cancellation)
        }
    }

    /// Removes the stub of a subvolume under a name that is needed now (`open`).
    func removeStub(_ name: BytePath) throws(VarveError) {
        try attempt("make room in the store \(store) for", name) { () throws(Errno) in
            _ = try opened.fd.removeSubvolumeStub(name)
        }
    }

    /// Deletes a subvolume of a name that somebody else's may have by now, unless it is in use (`requireUnused`).
    ///
    /// - Returns: the numbers of the subvolumes that were deleted.
    @discardableResult
    func deleteUnused(_ name: BytePath, _ words: String, _ cancellation: Cancellation) throws -> [UInt64] {
        try requireUnused(name, words, cancellation)
        return try delete(name)
    }

    /// Deletes a subvolume. No others lie in it, so it goes with its name in one transaction, and what is half deleted is
    /// never seen.
    ///
    /// - Returns: the numbers of the subvolumes that were deleted.
    @discardableResult
    func delete(_ name: BytePath) throws -> [UInt64] { try Self.delete(name, in: opened.fd) }

    /// Deletes whatever has a name in it: a subvolume or its stub, a directory, a file. What is not there is no error.
    func deleteEntry(_ entry: BytePath) throws {
        let shown = store.appending(name).appending(entry)
        let status = try attempt("look at", shown) { () throws(Errno) in
            try fd.statusIfPresent(of: entry)
        }
        guard let status else { return }
        if status.isSubvolumeStub {
            try removeStub(entry)
        } else if status.isDirectory {
            try delete(entry)
        } else {
            try attempt("remove", shown) { () throws(Errno) in try fd.unlink(entry) }
        }
    }

    /// Deletes a subvolume in any directory.
    ///
    /// - Parameters: see `removeSubvolumeTree`.
    @discardableResult
    static func delete(
        _ name: BytePath, in directory: FileDescriptor, isHidden: Bool = false,
        cancellation: Cancellation? = nil
    ) throws -> [UInt64] {
        do throws(BtrfsError) {
            return try directory.removeSubvolumeTree(name, isHidden: isHidden, cancellation: cancellation)
        } catch {
            if error.errno == .noSuchFileOrDirectory {
                throw VarveError(.notFound, "\"\(name)\" is not there (any more)", subject: name)
            }
            guard error.errno == .invalidArgument, let other = try? directory.openDirectory(name),
                (try? other.fd.isSubvolume()) == false
            else { throw error }
            // A plain directory, as `cp -a` of a store leaves it. Subvolumes may lie in it.
            try PartialBundleRemoval.remove(name, in: directory, cancellation: cancellation)
            return []
        }
    }
}
