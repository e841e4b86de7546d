package import VarveOCI
package import VarveSystem

/// What was written down of a tree: every attribute that a delta compares, and the digest of each file's content.
///
/// It is the old side of a delta where no snapshot is. It comes from a scan of the tree that has just been extracted
/// (`scan`), or from an mtree file that another tool left (`RecordedTree.init(mtree:…)`), which tells less.
public struct RecordedTree: Sendable {
    /// One name. A file with several has a node for each.
    struct Node: Sendable {
        var name: BytePath
        var status: FileStatus
        /// Of a symbolic link.
        var target = BytePath.empty
        /// In byte order of their names.
        var attributes: [ExtendedAttribute] = []
        /// Of a regular file.
        var digest: Digest?
        /// Of a directory, in byte order of their names.
        var children: [Int] = []
        /// Which other names the file had is not known.
        var hasUnknownLinks = false
    }

    /// How much is known of the files.
    enum Knowledge: Sendable {
        /// All. A file with the same inode number and change time is the same file unchanged, if that time lies before
        /// this moment: nothing that was changed later can bear it.
        case everything(trustedBefore: Timestamp)
        /// What an mtree file tells, which was written at this time: times to the second, no device numbers, the
        /// attributes of regular files and directories alone.
        case mtree(written: Timestamp)
    }

    /// The root first, then in the order in which they were met.
    var nodes: [Node]
    var knowledge: Knowledge

    init(root: Node, knowledge: Knowledge) {
        nodes = [root]
        self.knowledge = knowledge
    }

    /// Nil if there is no root.
    init?(_ nodes: [Node], knowledge: Knowledge) {
        if nodes.isEmpty { return nil }
        self.nodes = nodes
        self.knowledge = knowledge
    }

    static let root = 0

    /// Files in the tree, directories and the root among them.
    package var count: Int { nodes.count }

    /// The latest change time in the tree.
    package var latestChange: Timestamp {
        nodes.reduce(Timestamp(seconds: .min)) { max($0, $1.status.changeTime) }
    }

    /// From now on the change times of this record are believed if they lie before `moment`.
    package mutating func trustChangeTimes(before moment: Timestamp) {
        knowledge = .everything(trustedBefore: moment)
    }

    mutating func append(_ node: Node, to directory: Int) -> Int {
        nodes.append(node)
        nodes[directory].children.append(nodes.count - 1)
        return nodes.count - 1
    }

    /// The node of `name` in a directory.
    func find(_ name: BytePath, in directory: Int) -> Int? {
        if name == .current { return directory }
        let children = nodes[directory].children
        var (low, high) = (0, children.count)
        while low < high {
            let middle = (low + high) / 2
            if nodes[children[middle]].name < name { low = middle + 1 } else { high = middle }
        }
        return low < children.count && nodes[children[low]].name == name ? children[low] : nil
    }

    /// The digest of a file that is as it was recorded; nil where that is not sure.
    package func digestOfUnchanged() -> @Sendable (FileStatus) -> Digest? {
        guard case .everything(let trusted) = knowledge else { return { _ in nil } }
        var known: [UInt64: (status: FileStatus, digest: Digest)] = [:]
        for node in nodes {
            if let digest = node.digest { known[node.status.inode] = (node.status, digest) }
        }
        return { [known] now in
            guard let (was, digest) = known[now.inode], was.size == now.size, was.mode == now.mode,
                was.modificationTime == now.modificationTime, was.changeTime == now.changeTime,
                now.changeTime < trusted
            else { return nil }
            return digest
        }
    }
}
