import VarveSystem
package import SystemPackage

/// What a layer with exactly some changes does to a tree, without any layer: it shows whether a set of
/// changes is enough. Knows nothing of tar; each path is taken away and made again as it is in the new tree.
package enum OracleLayer {
    /// Turns `target`, a writable copy of the old tree, into what the layer with `changes` would make of it.
    /// The files come from `new`. What is not named keeps its mtime, also a directory in which something
    /// changes.
    package static func apply(_ changes: [OracleChange], from new: FileDescriptor, to target: FileDescriptor)
        throws
    {
        let source = try OracleTree(new, OracleOptions())
        let before = try OracleTree(target, OracleOptions())
        for change in changes {
            let isKept =
                change.kind == .modified && change.type == .directory
                && before.nodes[change.path]?.status.isDirectory == true
            // An added path too: a socket or the stub of a nested subvolume may lie there unseen.
            if !isKept { try remove(change.path, target) }
        }
        // A directory comes before what lies in it in the byte order of paths.
        var first = [UInt64: BytePath]()
        for change in changes.sorted(by: { $0.path < $1.path }) where change.kind != .deleted {
            guard let node = source.nodes[change.path] else { continue }
            if let other = first[node.status.inode] {
                let from = try place(other, target), to = try place(change.path, target)
                defer { withExtendedLifetime((from, to)) {} }
                try from.directory.fd.link(from.name, to: to.directory.fd, to.name)
                continue
            }
            if !node.status.isDirectory { first[node.status.inode] = change.path }
            try make(change.path, node, new, target)
        }
        // Last, as every change above moves the mtime of a directory.
        let named = Set(changes.filter { $0.kind != .deleted }.map(\.path))
        for (path, node) in source.nodes where node.status.isDirectory {
            guard let time = named.contains(path) ? node.status : before.nodes[path]?.status else { continue }
            let place = try place(path, target)
            defer { withExtendedLifetime(place) {} }
            guard (try? place.directory.fd.status(of: place.name).isDirectory) == true else { continue }
            try place.directory.fd.setTimes(
                of: place.name, access: time.accessTime, modification: time.modificationTime)
        }
    }

    private static func place(
        _ path: BytePath, _ root: FileDescriptor
    ) throws(Errno) -> (directory: SharedDescriptor, name: BytePath) {
        (SharedDescriptor(try OracleTree.openDirectory(root, path.parent)), path.lastComponent)
    }

    private static func remove(_ path: BytePath, _ root: FileDescriptor) throws {
        // Where a directory above it is replaced too, it went with that.
        guard let place = try? place(path, root) else { return }
        defer { withExtendedLifetime(place) {} }
        guard try place.directory.fd.statusIfPresent(of: place.name) != nil else { return }
        let own = SharedDescriptor(try root.open(.current, [.directory]))
        try HistoryReplay(root: own).apply(HistoryOperation(.rmtree, [path]))
    }

    private static func make(
        _ path: BytePath, _ node: OracleNode, _ new: FileDescriptor, _ root: FileDescriptor
    ) throws(Errno) {
        let to = try place(path, root), from = try place(path, new)
        defer { withExtendedLifetime((to, from)) {} }
        let fd = to.directory.fd, status = node.status
        if status.isDirectory {
            if try fd.statusIfPresent(of: to.name) == nil { try fd.makeDirectory(to.name, mode: 0o700) }
            for name in try fd.extendedAttributeNames(of: to.name) where !name.hasPrefix("btrfs.".utf8) {
                try fd.removeExtendedAttribute(name, of: to.name)
            }
        } else if let target = node.target {
            try fd.makeSymbolicLink(to.name, target: target)
        } else if status.isRegular {
            let content = try from.directory.fd.readFile(from.name, limit: 1 << 26)
            let file = try fd.open(to.name, [.writeOnly, .create, .exclusive, .noFollow], mode: 0o600)
            try file.fd.writeFull(content)
        } else {
            try fd.makeNode(to.name, mode: status.mode, major: status.deviceMajor, minor: status.deviceMinor)
            // A default ACL of the directory above was inherited.
            for name in try fd.extendedAttributeNames(of: to.name) {
                try fd.removeExtendedAttribute(name, of: to.name)
            }
        }
        if status.isRegular {
            for name in try fd.extendedAttributeNames(of: to.name) where !name.hasPrefix("btrfs.".utf8) {
                try fd.removeExtendedAttribute(name, of: to.name)
            }
        }
        try fd.changeOwner(of: to.name, uid: status.uid, gid: status.gid)
        if !status.isSymbolicLink { try fd.changeMode(of: to.name, to: status.permissions) }
        for attribute in node.attributes { try fd.setExtendedAttribute(attribute, of: to.name) }
        try fd.setTimes(of: to.name, access: status.accessTime, modification: status.modificationTime)
    }
}
