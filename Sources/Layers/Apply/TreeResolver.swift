import SystemCalls
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
        } catch .noSuchFileOrDirectory {
            return nil
        } catch .notDirectory {
            return nil
        } catch .tooManySymbolicLinkLevels {
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
        let proc = FileDescriptor.workingDirectory
        guard let above = try? proc.readSymbolicLink(BytePath("/proc/self/fd/\(root.rawValue)")),
            let full = try? proc.readSymbolicLink(BytePath("/proc/self/fd/\(directory.rawValue)"))
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
    /// A symbolic link that leads to nothing is followed to where it points, below the root, as a container would.
    func openCreating(_ path: BytePath, entry: BytePath) throws(LayerError) -> OwnedDescriptor {
        if let found = try open(path, entry: entry) { return found }
        // Components still to walk, the next one last; and the true path so far, free of links.
        var pending = Array(path.components.reversed())
        var walked: [BytePath] = []
        var links = 0
        while let name = pending.popLast() {
            if name == "." { continue }
            if name == ".." {
                _ = walked.popLast()
                continue
            }
            let here = join(walked)
            guard let directory = try openTrue(here, entry: entry) else {
                throw .system(operation: "open the directory", path: here, errno: .noSuchFileOrDirectory)
            }
            let status = try attempt("look at", here.appending(name)) { () throws(Errno) in
                try directory.fd.statusIfPresent(of: name)
            }
            guard let status else {
                // By way of a link's target; no layer could say that name, so the tree could not be packed again.
                guard !name.hasPrefix(Whiteout.prefix) else {
                    throw .invalidEntry(
                        path: entry,
                        reason: "a symbolic link leads it to \"\(name)\", which is the name of a whiteout")
                }
                try attempt("make the directory", here.appending(name)) { () throws(Errno) in
                    let before = try directory.fd.status()
                    try directory.fd.makeDirectory(name, mode: 0o755)
                    try directory.fd.changeOwner(of: name, uid: owner.uid, gid: owner.gid)
                    for attribute in try directory.fd.extendedAttributeNames(of: name)
                    where PosixACL.isACL(attribute) {
                        // Inherited from the directory's default ACL.
                        try directory.fd.removeExtendedAttribute(attribute, of: name)
                    }
                    try directory.fd.changeMode(of: name, to: 0o755)
                    try directory.fd.setTimes(of: name, access: .epoch, modification: .epoch)
                    try directory.fd.setTimes(
                        access: before.accessTime, modification: before.modificationTime)
                }
                walked.append(name)
                continue
            }
            if status.isSymbolicLink {
                links += 1
                guard links <= Self.symbolicLinkLimit else {
                    throw .invalidEntry(
                        path: entry, reason: "the symbolic links on the way to it go round in a circle")
                }
                let target = try attempt("read the link", here.appending(name)) { () throws(Errno) in
                    try directory.fd.readSymbolicLink(name)
                }
                if target.isAbsolute { walked.removeAll() }
                pending.append(contentsOf: target.components.reversed())
            } else if status.isDirectory {
                walked.append(name)
            } else {
                throw .invalidEntry(path: entry, reason: "what should be its directory is not one")
            }
        }
        let final = join(walked)
        guard let found = try openTrue(final, entry: entry) else {
            throw .system(operation: "open the directory", path: final, errno: .noSuchFileOrDirectory)
        }
        return found
    }

    private func join(_ components: [BytePath]) -> BytePath {
        components.reduce(.empty) { $0.appending($1) }
    }

    private func openTrue(_ path: BytePath, entry: BytePath) throws(LayerError) -> OwnedDescriptor? {
        do throws(Errno) {
            return try root.open(
                path.isEmpty ? .current : path, [.directory], resolve: [.beneath, .noSymlinks])
        } catch .noSuchFileOrDirectory {
            return nil
        } catch .fileNameTooLong {
            throw .invalidEntry(path: entry, reason: "its path is too long")
        } catch {
            throw .system(operation: "open the directory", path: path, errno: error)
        }
    }
}
