package import SystemPackage

/// A way down a tree that keeps few directories open, however deep it leads.
///
/// The directories nearest to the end stay open, and the first one. One between them is opened again when the way comes back to it, as
/// `..` of the directory below it, and only if it is the one that the way led through: where a directory was moved meanwhile, the way
/// back fails, and never leads out of the tree.
package final class DirectoryDescent {
    /// Directories that stay open beside the first one and the current one.
    package static let width = 16

    private struct Level {
        let name: BytePath
        let status: FileStatus
        /// Nil while it is closed.
        var descriptor: SharedDescriptor?
    }

    /// All but the current one, the first one first.
    private var above: [Level] = []
    private let resolve: Resolution
    /// In the directory above.
    private var name = BytePath.empty
    /// The directory that the way has reached.
    package private(set) var current: SharedDescriptor
    /// What the current directory was when it was entered.
    package private(set) var status: FileStatus

    /// - Parameters:
    ///   - directory: the first directory.
    ///   - resolve: how directories are opened, on the way down and back; with `.noCrossing` no mount is entered.
    package init(_ directory: SharedDescriptor, resolve: Resolution = []) throws(Errno) {
        self.resolve = resolve
        current = directory
        status = try directory.fd.status()
    }

    /// The path of the current directory below the first one; empty for that. It is made anew each time.
    package var path: BytePath {
        above.isEmpty ? .empty : BytePath(joining: above.dropFirst().map(\.name) + [name])
    }

    /// Opens the directory `name` in the current one, following no symbolic link; it is the current one then. An error leaves the way
    /// as it was.
    package func enter(_ name: BytePath) throws(Errno) {
        let opened = SharedDescriptor(
            try current.fd.open(name, [.directory, .noFollow], resolve: resolve))
        let status = try opened.fd.status()
        above.append(Level(name: self.name, status: self.status, descriptor: current))
        let farthest = above.count - Self.width
        if farthest > 0 { above[farthest].descriptor = nil }
        (self.name, self.current, self.status) = (name, opened, status)
    }

    /// Goes back to the directory above the current one; returns the name that the latter had in it, or nil, and does nothing, at the
    /// first one. An error leaves the way as it was.
    ///
    /// - Throws: `wasReplaced` if the directory does not lie any more in the one in which it was found.
    package func leave() throws(Errno) -> BytePath? {
        guard let level = above.last else { return nil }
        if let descriptor = level.descriptor {
            current = descriptor
        } else {
            racePoint("directory-above")
            let opened = SharedDescriptor(
                try current.fd.open("..", [.directory, .noFollow], resolve: resolve))
            guard try opened.fd.status().isSameFile(as: level.status) else { throw .wasReplaced }
            current = opened
        }
        defer { (name, status) = (level.name, level.status) }
        above.removeLast()
        return name
    }
}

extension FileDescriptor {
    /// The most bytes of a path that are given to the kernel at once; PATH_MAX is 4096.
    private static let pieceLimit = 3_800

    /// Opens what lies at `path` below this directory, without leaving it and without following a symbolic link on the way
    /// (`RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS`). The path may be longer than the kernel takes at once. This directory itself for the
    /// empty path.
    package func openBelow(_ path: BytePath, _ flags: OpenFlags, resolve: Resolution = []) throws(Errno)
        -> OwnedDescriptor
    {
        let resolve = resolve.union([.beneath, .noSymlinks])
        guard path.count > Self.pieceLimit else {
            return try open(path.isEmpty ? .current : path, flags, resolve: resolve)
        }
        var directory = SharedDescriptor(try open(.current, [.path, .directory]))
        var piece: [BytePath] = []
        var length = 0
        for component in path.components {
            if length + component.count > Self.pieceLimit {
                directory = SharedDescriptor(
                    try directory.fd.open(
                        BytePath(joining: piece), [.path, .directory, .noFollow], resolve: resolve))
                piece = []
                length = 0
            }
            piece.append(component)
            length += component.count + 1
        }
        return try directory.fd.open(BytePath(joining: piece), flags, resolve: resolve)
    }
}
