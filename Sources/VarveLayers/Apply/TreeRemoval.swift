package import VarveSystem
package import SystemPackage

/// Deletes trees, entry by entry, each anchored at its directory.
package enum TreeRemoval {
    /// Deletes everything in `directory` that is not in `written`, however deep; a directory stays if it is in it or holds
    /// something that is. Returns whether anything may have stayed. The time of a directory in which something stayed is left
    /// as it was. Directories that `written` knows as settled are not listed, and all that stay are settled afterwards:
    /// however many calls there are, each directory that stays is listed once.
    ///
    /// The depth of the tree costs open descriptors, not stack.
    ///
    /// - Parameter isDiscarded: nothing of the tree is of use any more: where permissions or flags (chattr(1)) forbid to list
    ///   or delete something, they are taken away, as far as the caller may do that. Mounts are not entered then.
    static func removeContents(
        of directory: FileDescriptor, path: BytePath, isDiscarded: Bool = false,
        keeping written: WrittenNames? = nil
    ) throws(LayerError) -> Bool {
        final class Frame {
            let descriptor: OwnedDescriptor
            let status: FileStatus
            let path: BytePath
            let name: BytePath
            /// Empty for one that is settled.
            var entries: [DirectoryEntry]
            let isSettled: Bool
            var keptSomething = false

            init(
                _ descriptor: consuming OwnedDescriptor, path: BytePath, name: BytePath,
                keeping written: WrittenNames?
            ) throws(Errno) {
                status = try descriptor.fd.status()
                isSettled = written?.isSettled(status.inode) == true
                entries = isSettled ? [] : try descriptor.fd.entries()
                self.descriptor = descriptor
                self.path = path
                self.name = name
            }
        }
        func enter(_ parent: FileDescriptor, _ name: BytePath, _ path: BytePath) throws(LayerError) -> Frame {
            func frame() throws(Errno) -> Frame {
                try Frame(
                    try parent.open(name, [.directory, .noFollow], resolve: isDiscarded ? .noCrossing : []),
                    path: path, name: name, keeping: written)
            }
            return try attempt("list the directory", path) { () throws(Errno) in
                do throws(Errno) {
                    return try frame()
                } catch .permissionDenied where isDiscarded {
                    try parent.changeMode(of: name, to: 0o700)
                    return try frame()
                }
            }
        }
        /// Takes a name away, and what forbids that.
        func delete(
            _ operation: String, _ name: BytePath, in parent: FileDescriptor, _ path: BytePath,
            _ body: () throws(Errno) -> Void
        ) throws(LayerError) {
            try attempt(operation, path) { () throws(Errno) in
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

        var stack = [try enter(directory, .current, path)]
        while let frame = stack.last {
            let fd = frame.descriptor.fd
            guard let entry = frame.entries.popLast() else {
                stack.removeLast()
                guard let parent = stack.last else {
                    if frame.isSettled { return true }
                    written?.settle(frame.status.inode)
                    if frame.keptSomething { try restoreTimes(frame.descriptor.fd, frame.status, frame.path) }
                    return frame.keptSomething
                }
                let isWritten = written?.contains(frame.name, in: parent.status.inode) == true
                if !isWritten, !frame.keptSomething {
                    if isDiscarded {
                        let parent = parent.descriptor.fd
                        try delete("remove the directory", frame.name, in: parent, frame.path) {
                            () throws(Errno) in
                            try parent.removeDirectory(frame.name)
                        }
                        continue
                    }
                    if try removeIfEmpty(
                        frame.name, in: parent.descriptor.fd, frame.path, mayHoldFiles: frame.isSettled)
                    {
                        continue
                    }
                }
                parent.keptSomething = true
                if !frame.isSettled {
                    written?.settle(frame.status.inode)
                    try restoreTimes(frame.descriptor.fd, frame.status, frame.path)
                }
                continue
            }
            let entryPath = frame.path.appending(entry.name)
            let isDirectory =
                if let type = entry.type {
                    type == .directory
                } else {
                    try attempt("look at", entryPath) { () throws(Errno) in
                        try fd.status(of: entry.name).isDirectory
                    }
                }
            if isDirectory {
                stack.append(try enter(fd, entry.name, entryPath))
            } else if written?.contains(entry.name, in: frame.status.inode) == true {
                frame.keptSomething = true
            } else {
                try delete("remove", entry.name, in: fd, entryPath) { () throws(Errno) in
                    try fd.unlink(entry.name)
                }
            }
        }
        return false
    }

    /// Deletes `name` in `directory`, a directory, with all that is in it, whatever its permissions and flags are. What lies
    /// behind a mount stays: that is an error.
    package static func removeTree(_ name: BytePath, in directory: FileDescriptor, path: BytePath)
        throws(LayerError)
    {
        func open() throws(Errno) -> OwnedDescriptor {
            try directory.open(name, [.directory, .noFollow], resolve: .noCrossing)
        }
        let opened = try attempt("open the directory", path) { () throws(Errno) in
            do throws(Errno) {
                return try open()
            } catch .permissionDenied {
                try directory.changeMode(of: name, to: 0o700)
                return try open()
            }
        }
        try empty(opened.fd, path: path)
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
    package static func empty(_ directory: FileDescriptor, path: BytePath) throws(LayerError) {
        _ = try removeContents(of: directory, path: path, isDiscarded: true)
    }

    /// Deletes `name` in `directory`, with all that is in it.
    static func remove(
        _ name: BytePath, isDirectory: Bool, in directory: FileDescriptor, path: BytePath
    ) throws(LayerError) {
        if isDirectory {
            let opened = try attempt("open the directory", path) { () throws(Errno) in
                try directory.openDirectory(name)
            }
            _ = try removeContents(of: opened.fd, path: path)
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
        _ name: BytePath, in directory: FileDescriptor, _ path: BytePath, mayHoldFiles: Bool
    ) throws(LayerError) -> Bool {
        try attempt("remove the directory", path) { () throws(Errno) in
            do throws(Errno) {
                try directory.removeDirectory(name)
                return true
            } catch .directoryNotEmpty where mayHoldFiles {
                return false
            }
        }
    }

    private static func restoreTimes(
        _ fd: FileDescriptor, _ status: FileStatus, _ path: BytePath
    ) throws(LayerError) {
        try attempt("set the times of", path) { () throws(Errno) in
            try fd.setTimes(access: status.accessTime, modification: status.modificationTime)
        }
    }
}
