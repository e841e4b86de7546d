package import VarveSystem
package import SystemPackage

/// The way along a path in a tree, one component after the other, as a kernel whose root directory is the tree's would go it: a
/// symbolic link is followed below the root, and what lies above the root is the root. Each component costs the same, however
/// deep it lies.
///
/// Who walks says at each name what becomes of it: `enter` a directory, `follow` a link, or make what is missing and enter that.
package struct PathWalk: ~Copyable {
    /// As many links as Linux follows itself, path_resolution(7).
    private static let symbolicLinkLimit = 40

    /// The components of the way so far, with no symbolic link among them.
    private(set) var walked: [BytePath] = []
    /// Bytes of `walked`, with a slash for each.
    private(set) var length = 0
    /// What each directory of `walked` was when it was entered.
    private var entered: [FileStatus] = []
    /// The directory that `walked` leads to.
    package private(set) var directory: OwnedDescriptor
    private let root: FileDescriptor
    /// Components still to walk, the next one last.
    private var pending: [BytePath]
    private var links = 0
    private let resolve: Resolution

    /// - Parameter resolve: how each component is opened; with `.noCrossing` a mount on the way is an error.
    package init(_ path: BytePath, in root: FileDescriptor, resolve: Resolution = []) throws(LayerError) {
        self.root = root
        self.resolve = resolve
        pending = path.components.reversed()
        directory = try Self.open(.current, in: root, at: .empty, resolve)
    }

    /// The next name to look for in `directory`; nil at the end of the path.
    package mutating func next() throws(LayerError) -> BytePath? {
        while let name = pending.popLast() {
            if name == "." { continue }
            guard name == ".." else { return name }
            guard let left = walked.popLast() else { continue }
            length -= left.count + 1
            entered.removeLast()
            guard let above = entered.last else {
                directory = try Self.open(.current, in: root, at: .empty, resolve)
                continue
            }
            racePoint("walk-back")
            let path = BytePath(joining: walked)
            directory = try Self.open("..", in: directory.fd, at: path, resolve)
            // In a tree that somebody works in, a directory may have been moved since: the way back could lead out of the tree.
            let isSame = try attempt("go back to", path) { () throws(Errno) in
                try directory.fd.status().isSameFile(as: above)
            }
            guard isSame else { throw .system(operation: "go back to", path: path, errno: .wasReplaced) }
        }
        return nil
    }

    /// Whether nothing is to come behind the name that `next` gave.
    package var isAtEnd: Bool { pending.isEmpty }

    /// The path of `name` in `directory`.
    package func path(of name: BytePath) -> BytePath { BytePath(joining: walked + [name]) }

    /// What is under `name`; nil for nothing.
    package func status(of name: BytePath) throws(LayerError) -> FileStatus? {
        do throws(Errno) { return try directory.fd.statusIfPresent(of: name) } catch {
            throw .system(operation: "look at", path: path(of: name), errno: error)
        }
    }

    /// Goes into the directory `name`.
    package mutating func enter(_ name: BytePath) throws(LayerError) {
        directory = try Self.open(name, in: directory.fd, at: path(of: name), resolve)
        do throws(Errno) { entered.append(try directory.fd.status()) } catch {
            throw .system(operation: "look at", path: path(of: name), errno: error)
        }
        walked.append(name)
        length += name.count + 1
    }

    /// Follows the symbolic link `name`. False if that would be one link too many.
    package mutating func follow(_ name: BytePath) throws(LayerError) -> Bool {
        links += 1
        guard links <= Self.symbolicLinkLimit else { return false }
        let target = try attempt("read the link", path(of: name)) { () throws(Errno) in
            try directory.fd.readSymbolicLink(name)
        }
        if target.isAbsolute {
            walked.removeAll()
            entered.removeAll()
            length = 0
            directory = try Self.open(.current, in: root, at: .empty, resolve)
        }
        pending.append(contentsOf: target.components.reversed())
        return true
    }

    /// Follows the symbolic link `name`; one link too many is an error.
    package mutating func followOrThrow(_ name: BytePath) throws(LayerError) {
        guard try follow(name) else {
            throw .system(
                operation: "follow the symbolic link", path: path(of: name),
                errno: .tooManySymbolicLinkLevels)
        }
    }

    /// Where a path leads in a tree: every symbolic link is followed that is there. What is not there stays as it is written.
    package static func end(
        of path: BytePath, in root: FileDescriptor, resolve: Resolution = []
    ) throws(LayerError) -> BytePath {
        var walk = try PathWalk(path, in: root, resolve: resolve)
        while let name = try walk.next() {
            guard let status = try walk.status(of: name) else {
                return BytePath(joining: walk.remainder(from: name)).cleaned
            }
            if status.isSymbolicLink {
                try walk.followOrThrow(name)
            } else if walk.isAtEnd || !status.isDirectory {
                return BytePath(joining: walk.remainder(from: name)).cleaned
            } else {
                try walk.enter(name)
            }
        }
        return BytePath(joining: walk.walked)
    }

    /// The way so far, `name`, and all that is still to come, which nobody has looked at.
    func remainder(from name: BytePath) -> [BytePath] { walked + [name] + pending.reversed() }

    /// The directory that the path led to.
    consuming func end() -> OwnedDescriptor { directory }

    private static func open(
        _ name: BytePath, in directory: FileDescriptor, at path: @autoclosure () -> BytePath,
        _ resolve: Resolution
    ) throws(LayerError) -> OwnedDescriptor {
        do throws(Errno) { return try directory.open(name, [.directory, .noFollow], resolve: resolve) } catch
        {
            throw .system(operation: "open the directory", path: path(), errno: error)
        }
    }
}
