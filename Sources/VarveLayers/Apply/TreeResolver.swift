import VarveSystem
import SystemPackage

/// Finds directories of the tree. Everything is anchored at the root's descriptor; a symbolic link of the image may
/// lead anywhere in the tree, and never out of it (`RESOLVE_IN_ROOT`, openat2(2)).
struct TreeResolver {
    let root: FileDescriptor
    /// Root's ids, which directories get that no entry describes.
    let owner: (uid: UInt32, gid: UInt32)

    /// As many as Linux follows itself, path_resolution(7).
    private static let symbolicLinkLimit = 40

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
    /// directory, there or on the way, gives way to one, as with umoci since 0.5. Each component costs the same, however
    /// deep it lies.
    ///
    /// - Parameter willMake: called before each directory that is made; throws to stop.
    func openCreating(
        _ path: BytePath, entry: BytePath, willMake: () throws -> Void = {}
    ) throws -> OwnedDescriptor {
        if let found = try open(path, entry: entry, orNoDirectory: true) { return found }
        // Components still to walk, the next one last; and the true path so far, free of links.
        var pending = Array(path.components.reversed())
        var walked: [BytePath] = []
        // Bytes of `walked` with a slash for each.
        var length = 0
        var links = 0
        var directory = try openBelow(root, .current, .empty)
        while let name = pending.popLast() {
            if name == "." { continue }
            if name == ".." {
                // Above the root is the root. Elsewhere, what is above an open directory is the one that it was found in:
                // nobody moves directories of a tree that is being made.
                guard let left = walked.popLast() else { continue }
                length -= left.count + 1
                directory =
                    walked.isEmpty
                    ? try openBelow(root, .current, .empty) : try openBelow(directory.fd, "..", join(walked))
                continue
            }
            let status = try attempt("look at", join(walked + [name])) { () throws(Errno) in
                try directory.fd.statusIfPresent(of: name)
            }
            if let status, status.isSymbolicLink {
                links += 1
                guard links <= Self.symbolicLinkLimit else {
                    throw LayerError.invalidEntry(
                        path: entry, reason: "the symbolic links on the way to it go round in a circle")
                }
                let target = try attempt("read the link", join(walked + [name])) { () throws(Errno) in
                    try directory.fd.readSymbolicLink(name)
                }
                if target.isAbsolute {
                    walked.removeAll()
                    length = 0
                    directory = try openBelow(root, .current, .empty)
                }
                pending.append(contentsOf: target.components.reversed())
                continue
            }
            if status?.isDirectory != true {
                // By way of a link's target; no layer could say that name, so the tree could not be packed again.
                guard !name.hasPrefix(Whiteout.prefix) else {
                    throw LayerError.invalidEntry(
                        path: entry,
                        reason: "a symbolic link leads it to \"\(name)\", which is the name of a whiteout")
                }
                // PATH_MAX of limits.h holds the closing NUL.
                guard length + name.count < 4096 else {
                    throw LayerError.invalidEntry(path: entry, reason: "its path is too long")
                }
                try willMake()
                try make(name, in: directory.fd, replacing: status != nil, join(walked + [name]))
            }
            directory = try openBelow(directory.fd, name, join(walked + [name]))
            walked.append(name)
            length += name.count + 1
        }
        return directory
    }

    private func make(
        _ name: BytePath, in directory: FileDescriptor, replacing: Bool, _ path: @autoclosure () -> BytePath
    ) throws(LayerError) {
        try attempt("make the directory", path()) { () throws(Errno) in
            let before = try directory.status()
            if replacing { try directory.unlink(name) }
            try directory.makeDirectory(name, mode: 0o755)
            try directory.changeOwner(of: name, uid: owner.uid, gid: owner.gid)
            for attribute in try directory.extendedAttributeNames(of: name) where PosixACL.isACL(attribute) {
                // Inherited from the directory's default ACL.
                try directory.removeExtendedAttribute(attribute, of: name)
            }
            try directory.changeMode(of: name, to: 0o755)
            try directory.setTimes(of: name, access: .epoch, modification: .epoch)
            try directory.setTimes(access: before.accessTime, modification: before.modificationTime)
        }
    }

    private func openBelow(
        _ directory: FileDescriptor, _ name: BytePath, _ path: @autoclosure () -> BytePath
    ) throws(LayerError) -> OwnedDescriptor {
        try attempt("open the directory", path()) { () throws(Errno) in try directory.openDirectory(name) }
    }

    private func join(_ components: [BytePath]) -> BytePath { BytePath(joining: components) }
}
