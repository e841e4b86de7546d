import VarveSystem
import SystemPackage

/// Finds directories of the tree. Everything is anchored at the root's descriptor; a symbolic link of the image may
/// lead anywhere in the tree, and never out of it (`RESOLVE_IN_ROOT`, openat2(2)).
struct TreeResolver {
    let root: FileDescriptor
    /// Root's ids, which directories get that no entry describes.
    let owner: (uid: UInt32, gid: UInt32)

    /// Opens the directory at `path`; nil if nothing is there, or, with `orNoDirectory`, something else.
    func open(
        _ path: BytePath, entry: BytePath, orNoDirectory: Bool = false
    ) throws(LayerError) -> OwnedDescriptor? {
        do throws(Errno) {
            return try root.open(path.isEmpty ? .current : path, [.directory], resolve: .inRoot)
        } catch .noSuchFileOrDirectory {
            return nil
        } catch .notDirectory {
            if orNoDirectory { return nil }
            throw .invalidEntry(path: entry, reason: "what should be its directory is not one")
        } catch .tooManySymbolicLinkLevels {
            throw .invalidEntry(
                path: entry, reason: "the symbolic links on the way to it go round in a circle")
        } catch .fileNameTooLong {
            throw .invalidEntry(path: entry, reason: "its path is too long")
        } catch {
            throw .system(operation: "open the directory", path: path, errno: error)
        }
    }

    /// Opens what the symbolic link at `path` leads to, if that is a directory.
    func openIfDirectory(_ path: BytePath) throws(LayerError) -> OwnedDescriptor? {
        do throws(Errno) {
            return try root.open(path, [.directory], resolve: .inRoot)
        } catch  where error.isAbsence {
            return nil
        } catch .fileNameTooLong {
            return nil
        } catch {
            throw .system(operation: "open the directory", path: path, errno: error)
        }
    }

    /// The path of a directory that was found at `path`, with no symbolic link in it: as long as the directory is in
    /// the tree, this leads to it. `path` itself where that cannot be told.
    func truePath(of directory: FileDescriptor, at path: BytePath) throws(LayerError) -> BytePath {
        if path.isEmpty { return path }
        do throws(Errno) {
            _ = try root.open(path, [.directory, .path], resolve: [.beneath, .noSymlinks])
            return path
        } catch .tooManySymbolicLinkLevels {
            // By way of a link.
        } catch {
            return path
        }
        // What /proc shows of an open directory is its path in this mount name space (proc_pid_fd(5)).
        guard let above = try? root.path(),
            let full = try? directory.path()
        else { return path }
        if full == above { return .empty }
        let prefix = above.appending(BytePath("."))
        let base = prefix.bytes.dropLast()
        guard full.hasPrefix(base), full.count > base.count else { return path }
        return full.dropFirst(base.count)
    }

    /// Opens the directory at `path` and makes what is missing on the way: mode 0755, owned by the image's root, and dated at the
    /// epoch, since no archive says better and the same layer must give the same tree.
    ///
    /// A symbolic link that leads to nothing is followed to where it points, below the root, as a container would. What is no
    /// directory, there or on the way, gives way to one, as with umoci since 0.5.
    ///
    /// - Parameters:
    ///   - willMake: called before each directory that is made; throws to stop.
    ///   - didMake: gets the inode number of each directory that was made.
    func openCreating(
        _ path: BytePath, entry: BytePath, willMake: () throws -> Void = {},
        didMake: (UInt64) throws -> Void = { _ in }
    ) throws -> OwnedDescriptor {
        if let found = try open(path, entry: entry, orNoDirectory: true) { return found }
        var walk = try PathWalk(path, in: root)
        while let name = try walk.next() {
            let status = try walk.status(of: name)
            if let status, status.isSymbolicLink {
                guard try walk.follow(name) else {
                    throw LayerError.invalidEntry(
                        path: entry, reason: "the symbolic links on the way to it go round in a circle")
                }
                continue
            }
            let isNew = status?.isDirectory != true
            if isNew {
                // By way of a link's target; no layer could say that name, so the tree could not be packed again.
                guard !name.hasPrefix(Whiteout.prefix) else {
                    throw LayerError.invalidEntry(
                        path: entry,
                        reason: "a symbolic link leads it to \"\(name)\", which is the name of a whiteout")
                }
                // PATH_MAX of limits.h holds the closing NUL.
                guard walk.length + name.count < 4096 else {
                    throw LayerError.invalidEntry(path: entry, reason: "its path is too long")
                }
                try willMake()
                try make(name, in: walk.directory.fd, replacing: status != nil, walk.path(of: name))
            }
            try walk.enter(name)
            if isNew, let made = try walk.status(of: .current) { try didMake(made.inode) }
        }
        return walk.end()
    }

    private func make(
        _ name: BytePath, in directory: FileDescriptor, replacing: Bool, _ path: BytePath
    ) throws(LayerError) {
        try attempt("make the directory", path) { () throws(Errno) in
            try directory.keepingTimes { () throws(Errno) in
                if replacing { try directory.unlink(name) }
                try directory.makeDirectory(name, mode: 0o755)
                try directory.changeOwner(of: name, uid: owner.uid, gid: owner.gid)
                for attribute in try directory.extendedAttributeNames(of: name)
                where PosixACL.isACL(attribute) {
                    // Inherited from the directory's default ACL.
                    try directory.removeExtendedAttribute(attribute, of: name)
                }
                try directory.changeMode(of: name, to: 0o755)
                try directory.setTimes(of: name, access: .epoch, modification: .epoch)
            }
        }
    }
}
