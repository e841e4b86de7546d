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
    /// As many links as Linux follows itself, path_resolution(7).
    private static let linkLimit = 40

    init(in root: SharedDescriptor) { self.root = root }

    /// Makes what is missing of `path` in the tree. A symbolic link to what is not there is followed, below the root.
    ///
    /// - Parameter mode: that of the directory.
    func make(_ path: BytePath, isDirectory: Bool, mode: UInt32) throws(Errno) {
        var pending = Array(path.cleaned.components.reversed())
        var way: [BytePath] = []
        var links = 0
        while let name = pending.popLast() {
            if name == ".." {
                _ = way.popLast()
                continue
            }
            if name == "." { continue }
            let parent = try open(way)
            guard let status = try parent.fd.statusIfPresent(of: name) else {
                let wantsDirectory = isDirectory || !pending.isEmpty
                try keepingTimes(of: parent) { () throws(Errno) in
                    if wantsDirectory {
                        try parent.fd.makeDirectory(name, mode: 0o755)
                        if pending.isEmpty { try parent.fd.changeMode(of: name, to: mode) }
                    } else {
                        try parent.fd.open(name, [.writeOnly, .create, .exclusive, .noFollow], mode: 0o644)
                            .close()
                    }
                }
                let inode = try parent.fd.status(of: name).inode
                made.append(Made(parent: parent, name: name, inode: inode, isDirectory: wantsDirectory))
                way.append(name)
                continue
            }
            guard status.isSymbolicLink else {
                way.append(name)
                continue
            }
            links += 1
            guard links <= Self.linkLimit else { throw .tooManySymbolicLinkLevels }
            let target = try parent.fd.readSymbolicLink(name)
            if target.isAbsolute { way.removeAll() }
            pending += target.components.reversed()
        }
    }

    /// Takes away what was made, the last first. What the container put something into stays.
    func remove() {
        for point in made.reversed() {
            guard let status = try? point.parent.fd.statusIfPresent(of: point.name),
                status.inode == point.inode,
                point.isDirectory ? status.isDirectory : status.isRegular && status.size == 0
            else { continue }
            try? keepingTimes(of: point.parent) { () throws(Errno) in
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

    private func open(_ way: [BytePath]) throws(Errno) -> SharedDescriptor {
        SharedDescriptor(
            try root.fd.open(
                way.isEmpty ? .current : BytePath(joining: way), [.directory],
                resolve: [.beneath, .noSymlinks, .noCrossing]))
    }

    private func keepingTimes(of directory: SharedDescriptor, _ body: () throws(Errno) -> Void) throws(Errno)
    {
        let before = try directory.fd.status()
        try body()
        try directory.fd.setTimes(access: before.accessTime, modification: before.modificationTime)
    }
}
