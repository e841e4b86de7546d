package import VarveOCI
package import VarveSystem
package import SystemPackage

extension RecordedTree {
    /// Records a tree as it is now.
    ///
    /// Names, attributes and times are read back rather than taken from what was asked for: change times, the times of
    /// directories and what the kernel adds by itself (inherited ACLs, security labels) are final only when the last
    /// layer is done.
    ///
    /// - Parameters:
    ///   - root: the root directory of the tree, open for reading; nothing may change in it meanwhile.
    ///   - known: the digest of a file's content, where it is known already; a file without one is read.
    ///   - onEntry: called for each entry; throws to stop.
    /// - Throws: `LayerError`, or what `onEntry` throws.
    package static func scan(
        _ root: FileDescriptor, known: (FileStatus) -> Digest? = { _ in nil },
        onEntry: () throws -> Void = {}
    ) throws -> RecordedTree {
        let tree = try ComparedTree(root: root)
        let hashing = FileHashing()
        func node(_ name: BytePath, _ status: FileStatus, _ side: NewSide, _ path: BytePath) throws -> Node {
            var node = Node(name: name, status: status)
            node.attributes = try side.attributes(path)
            if status.isSymbolicLink { node.target = try side.target(path) }
            if status.isRegular { node.digest = try known(status) ?? hashing.digest(of: side, path) }
            return node
        }

        let top = try tree.openRoot()
        let status = try tree.rootStatus()
        var record = RecordedTree(
            root: try node(
                .empty, status, NewSide(directory: top.fd, name: .current, status: status), .current),
            knowledge: .everything(trustedBefore: Timestamp(seconds: .min)))
        /// Directories that are still to be looked into, in the order of the tree. Those far down are opened by their path, so
        /// that the depth costs neither stack nor descriptors.
        var pending = [Pending(node: Self.root, name: .current, path: .empty, depth: 0, parent: top)]
        while let next = pending.popLast() {
            let directory =
                try next.parent.map { (parent) throws(LayerError) in
                    try tree.open(next.name, in: parent, path: next.path)
                } ?? tree.open(at: next.path)
            let entries = try tree.entries(of: directory, path: next.path)
            var below: [Pending] = []
            for entry in entries.sorted(by: { $0.name < $1.name }) {
                try onEntry()
                let path = next.path.appending(entry.name)
                guard let status = try tree.status(of: entry.name, in: directory, path: path) else {
                    continue
                }
                let side = NewSide(directory: directory.fd, name: entry.name, status: status)
                let made = record.append(try node(entry.name, status, side, path), to: next.node)
                if status.isDirectory {
                    below.append(
                        Pending(
                            node: made, name: entry.name, path: path, depth: next.depth + 1,
                            parent: next.depth < openDepth ? directory : nil))
                }
            }
            pending.append(contentsOf: below.reversed())
        }
        return record
    }

    /// As deep, directories stay open while others in them are to be looked into.
    private static let openDepth = 16

    private struct Pending {
        var node: Int
        var name: BytePath
        var path: BytePath
        var depth: Int
        /// Nil if it is not open any more.
        var parent: SharedDescriptor?
    }
}
