package import VarveSystem
package import SystemPackage

/// Deletes trees, entry by entry, each anchored at its directory.
package enum TreeRemoval {
    /// Deletes everything in `directory` that is not in `written`, however deep; a directory stays if it is in it or holds
    /// something that is. Returns whether anything may have stayed. The time of a directory in which something stayed is left
    /// as it was. Directories that `written` knows as settled are not listed, and all that stay are settled afterwards:
    /// however many calls there are, each directory that stays is listed once.
    ///
    /// The depth of the tree costs neither stack nor open descriptors (`DirectoryDescent`).
    ///
    /// - Parameters:
    ///   - isDiscarded: nothing of the tree is of use any more: where permissions or flags (chattr(1)) forbid to list or delete
    ///     something, they are taken away, as far as the caller may do that. Mounts are not entered then.
    ///   - removeSubvolume: see `SubvolumeRemoval`. Without it a nested subvolume is emptied as any directory is.
    ///   - cancellation: asked at each entry. Whoever works in the tree meanwhile can make a deletion go on for ever.
    /// - Throws: `LayerError.cancelled` when the caller asked to stop; what is left stays.
    static func removeContents(
        of directory: FileDescriptor, path: BytePath, isDiscarded: Bool = false,
        keeping written: WrittenNames? = nil, removeSubvolume: SubvolumeRemoval? = nil,
        cancellation: Cancellation? = nil
    ) throws(LayerError) -> Bool {
        struct Frame {
            /// Empty for one that is settled.
            var entries: [DirectoryEntry]
            let isSettled: Bool
            var keptSomething = false
        }
        let way = try attempt("list the directory", path) { () throws(Errno) in
            try DirectoryDescent(
                SharedDescriptor(
                    try accessible(isDiscarded ? directory : nil, .current) { () throws(Errno) in
                        try directory.open(
                            .current, [.directory, .noFollow], resolve: isDiscarded ? .noCrossing : [])
                    }), resolve: isDiscarded ? .noCrossing : [])
        }
        func frame() throws(LayerError) -> Frame {
            let isSettled = written?.isSettled(way.status.inode) == true
            if isSettled { return Frame(entries: [], isSettled: true) }
            let entries = try attempt("list the directory", path.appending(way.path)) { () throws(Errno) in
                try way.current.fd.entries()
            }
            return Frame(entries: entries, isSettled: false)
        }
        /// Takes a name in the current directory away, and what forbids that.
        func delete(_ operation: String, _ name: BytePath, _ body: () throws(Errno) -> Void)
            throws(LayerError)
        {
            let parent = way.current.fd
            try attempt(operation, path.appending(way.path).appending(name)) { () throws(Errno) in
                do throws(Errno) {
                    try body()
                } catch .permissionDenied where isDiscarded {
                    try parent.changeMode(to: 0o700)
                    try body()
                } catch .notPermitted where isDiscarded {
                    // Both stay as they are where they cannot be changed: the error says what is wrong.
                    let isParentFree = (try? parent.clearProtection()) ?? false
                    let isFree = (try? parent.clearProtection(of: name)) ?? false
                    guard isParentFree || isFree else { throw .notPermitted }
                    try body()
                }
            }
        }

        var frames = [try frame()]
        while let top = frames.indices.last {
            if cancellation?.isCancelled == true { throw .cancelled }
            let fd = way.current.fd
            if let entry = frames[top].entries.popLast() {
                let name = entry.name
                let isDirectory =
                    if let type = entry.type {
                        type == .directory
                    } else {
                        try attempt("look at", path.appending(way.path).appending(name)) {
                            () throws(Errno) in try fd.status(of: name).isDirectory
                        }
                    }
                if isDirectory {
                    if try remove(name, in: fd, path.appending(way.path).appending(name), removeSubvolume) {
                        continue
                    }
                    try attempt("list the directory", path.appending(way.path).appending(name)) {
                        () throws(Errno) in
                        try accessible(isDiscarded ? fd : nil, name) { () throws(Errno) in try way.enter(name)
                        }
                    }
                    frames.append(try frame())
                } else if written?.contains(name, in: way.status.inode) == true {
                    frames[top].keptSomething = true
                } else {
                    try delete("remove", name) { () throws(Errno) in try fd.unlink(name) }
                }
                continue
            }

            let frame = frames.removeLast()
            let (left, status) = (way.current, way.status)
            let name = try attempt("go back from", path.appending(way.path)) { () throws(Errno) in
                try accessible(isDiscarded ? left.fd : nil, .current) { () throws(Errno) in try way.leave() }
            }
            guard let name else {
                if frame.isSettled { return true }
                written?.settle(status.inode)
                if frame.keptSomething { try restoreTimes(left.fd, status, path) }
                return frame.keptSomething
            }
            // Made only for a message: deep down, the path is long.
            func leftPath() -> BytePath { path.appending(way.path).appending(name) }
            let parent = way.current.fd
            let isWritten = written?.contains(name, in: way.status.inode) == true
            if !isWritten, !frame.keptSomething {
                if isDiscarded {
                    try delete("remove the directory", name) { () throws(Errno) in
                        try parent.removeDirectory(name)
                    }
                    continue
                }
                if try removeIfEmpty(name, in: parent, leftPath(), mayHoldFiles: frame.isSettled) { continue }
            }
            frames[top - 1].keptSomething = true
            if !frame.isSettled {
                written?.settle(status.inode)
                try restoreTimes(left.fd, status, leftPath())
            }
        }
        return false
    }

    /// Deletes `name` in `parent` if it is a subvolume; says whether it was one.
    private static func remove(
        _ name: BytePath, in parent: FileDescriptor, _ path: @autoclosure () -> BytePath,
        _ removeSubvolume: SubvolumeRemoval?
    ) throws(LayerError) -> Bool {
        guard let removeSubvolume else { return false }
        do throws(Errno) {
            return try removeSubvolume(parent, name)
        } catch .canceled {
            throw .cancelled
        } catch {
            throw .system(operation: "delete the subvolume", path: path(), errno: error)
        }
    }

    /// Opens something that is discarded, after its permissions have been changed if they forbid it.
    ///
    /// - Parameters:
    ///   - parent: in which the directory lies; nil where permissions stay as they are.
    ///   - name: of the directory.
    private static func accessible<T: ~Copyable>(
        _ parent: FileDescriptor?, _ name: BytePath, _ body: () throws(Errno) -> T
    ) throws(Errno) -> T {
        do throws(Errno) {
            return try body()
        } catch {
            guard error == .permissionDenied, let parent else { throw error }
            try parent.changeMode(of: name, to: 0o700)
            return try body()
        }
    }

    /// Deletes a subvolume, given its parent and its name, with those nested in it. False, and nothing is done, for a directory that
    /// is none. Throws `canceled` if it was ended before it was done.
    package typealias SubvolumeRemoval = (FileDescriptor, BytePath) throws(Errno) -> Bool

    /// Deletes `name` in `directory`, a directory, with all that is in it, whatever its permissions and flags are. What lies
    /// behind a mount stays: that is an error.
    ///
    /// - Parameters:
    ///   - removeSubvolume: see `SubvolumeRemoval`.
    ///   - cancellation: see `removeContents`.
    package static func removeTree(
        _ name: BytePath, in directory: FileDescriptor, path: BytePath, cancellation: Cancellation? = nil,
        removeSubvolume: SubvolumeRemoval? = nil
    ) throws(LayerError) {
        if try remove(name, in: directory, path, removeSubvolume) { return }
        let opened = try attempt("open the directory", path) { () throws(Errno) in
            try accessible(directory, name) { () throws(Errno) in
                try directory.open(name, [.directory, .noFollow], resolve: .noCrossing)
            }
        }
        _ = try removeContents(
            of: opened.fd, path: path, isDiscarded: true, removeSubvolume: removeSubvolume,
            cancellation: cancellation)
        try attempt("remove the directory", path) { () throws(Errno) in
            do throws(Errno) {
                try directory.removeDirectory(name)
            } catch .notPermitted {
                guard try opened.fd.clearProtection() else { throw .notPermitted }
                try directory.removeDirectory(name)
            }
        }
    }

    /// Deletes all that is in `directory`, whatever its permissions and flags are. What lies behind a mount stays: that is an
    /// error.
    package static func empty(
        _ directory: FileDescriptor, path: BytePath, cancellation: Cancellation? = nil
    ) throws(LayerError) {
        _ = try removeContents(of: directory, path: path, isDiscarded: true, cancellation: cancellation)
    }

    /// Deletes `name` in `directory`, with all that is in it.
    ///
    /// - Parameter cancellation: see `removeContents`.
    static func remove(
        _ name: BytePath, isDirectory: Bool, in directory: FileDescriptor, path: BytePath,
        cancellation: Cancellation
    ) throws(LayerError) {
        if isDirectory {
            let opened = try attempt("open the directory", path) { () throws(Errno) in
                try directory.openDirectory(name)
            }
            _ = try removeContents(of: opened.fd, path: path, cancellation: cancellation)
            try attempt("remove the directory", path) { () throws(Errno) in
                try directory.removeDirectory(name)
            }
        } else {
            try attempt("remove", path) { () throws(Errno) in try directory.unlink(name) }
        }
    }

    /// Removes a directory that is empty; says whether it was. One that may not be empty is asked for by trying.
    @discardableResult
    static func removeIfEmpty(
        _ name: BytePath, in directory: FileDescriptor, _ path: @autoclosure () -> BytePath,
        mayHoldFiles: Bool
    ) throws(LayerError) -> Bool {
        try attempt("remove the directory", path()) { () throws(Errno) in
            do throws(Errno) {
                try directory.removeDirectory(name)
                return true
            } catch .directoryNotEmpty where mayHoldFiles {
                return false
            }
        }
    }

    private static func restoreTimes(
        _ fd: FileDescriptor, _ status: FileStatus, _ path: @autoclosure () -> BytePath
    ) throws(LayerError) {
        try attempt("set the times of", path()) { () throws(Errno) in
            try fd.setTimes(access: status.accessTime, modification: status.modificationTime)
        }
    }
}
