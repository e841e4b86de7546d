import Glibc
import VarveLayers
import VarveSystem
import SystemPackage

/// The directories and empty files of a root file system that a container's mounts need and that are not there: made before it runs,
/// and taken away after it, so that nothing of them is a change of the bundle.
///
/// A runtime would make them too, and leave them. A directory that gets or loses such a name keeps its times.
final class MountPoints {
    private struct Made {
        var parent: SharedDescriptor
        var name: BytePath
        var inode: UInt64
        var isDirectory: Bool
    }

    private let root: SharedDescriptor
    private var made: [Made] = []
    /// As many as are made; each keeps a directory open.
    private static let limit = 256

    init(in root: SharedDescriptor) { self.root = root }

    /// Makes what is missing of `path` in the tree. A symbolic link to what is not there is followed, below the root.
    ///
    /// - Parameter mode: that of the directory.
    func make(_ path: BytePath, isDirectory: Bool, mode: UInt32) throws(LayerError) {
        var walk = try PathWalk(path, in: root.fd, resolve: .noCrossing)
        while let name = try walk.next() {
            if let status = try walk.status(of: name) {
                if status.isSymbolicLink {
                    try walk.followOrThrow(name)
                    continue
                }
            } else {
                let (isDirectory, mode) = walk.isAtEnd ? (isDirectory, mode) : (true, 0o755)
                do throws(Errno) {
                    try add(name, in: walk.directory.fd, isDirectory: isDirectory, mode: mode)
                } catch {
                    throw .system(operation: "make", path: walk.path(of: name), errno: error)
                }
            }
            if walk.isAtEnd { return }
            try walk.enter(name)
        }
    }

    private func add(_ name: BytePath, in directory: FileDescriptor, isDirectory: Bool, mode: UInt32)
        throws(Errno)
    {
        guard made.count < Self.limit else { throw .tooManyOpenFiles }
        let parent = SharedDescriptor(try directory.openDirectory(.current))
        var inode: UInt64 = 0
        try parent.fd.keepingTimes { () throws(Errno) in
            if isDirectory {
                try parent.fd.makeDirectory(name, mode: 0o700)
                racePoint("mount-point")
                let opened: OwnedDescriptor
                do throws(Errno) { opened = try parent.fd.openDirectory(name) } catch {
                    try? parent.fd.removeDirectory(name)
                    throw error
                }
                let status = try opened.fd.status()
                // Somebody who works in the tree may have given the name to another directory.
                guard status.uid == geteuid(), status.permissions & 0o077 == 0,
                    try opened.fd.entries().isEmpty
                else {
                    throw .wasReplaced
                }
                try opened.fd.changeMode(to: mode)
                inode = status.inode
            } else {
                let opened = try parent.fd.open(
                    name, [.writeOnly, .create, .exclusive, .noFollow], mode: 0o644)
                inode = try opened.fd.status().inode
            }
        }
        made.append(Made(parent: parent, name: name, inode: inode, isDirectory: isDirectory))
    }

    /// Takes away what was made, the last first. What the container put something into stays.
    func remove() {
        for point in made.reversed() {
            guard let status = try? point.parent.fd.statusIfPresent(of: point.name),
                status.inode == point.inode,
                point.isDirectory ? status.isDirectory : status.isRegular && status.size == 0
            else { continue }
            try? point.parent.fd.keepingTimes { () throws(Errno) in
                if point.isDirectory {
                    try point.parent.fd.removeDirectory(point.name)
                } else {
                    try point.parent.fd.unlink(point.name)
                }
            }
        }
        made = []
    }

    deinit { remove() }
}
