import VarveSystem
import SystemPackage

/// The name space that a receiver of a send stream would have at each moment, as far as the stream speaks of it.
///
/// Paths in a stream are valid only in the state that the commands before have led to: new inodes are made as
/// `oINO-GEN-IDX` in the root and moved later, whole directories move under way. So the commands are replayed on a tree
/// of names that is filled from the old snapshot where it is first looked at. Whatever does not fit (a name that is not
/// there, one that is there already) means that the stream cannot be trusted: kernels have send bugs.
final class StreamNamespace {
    enum Mismatch: Error, CustomStringConvertible {
        case missing(BytePath)
        case collision(BytePath)
        case malformed(String)
        case old(LayerError)

        var description: String {
            switch self {
            case .missing(let path): "it names \"\(path)\", which is not there at that point"
            case .collision(let path): "it makes \"\(path)\", which is there already"
            case .malformed(let what): what
            case .old(let error): "\(error)"
            }
        }
    }

    /// A directory entry of the receiver. Several may lead to one inode.
    private final class Node {
        let inode: UInt64
        /// Where the directory lies in the old snapshot, to look up what the stream has not touched; nil for a new one.
        let oldPath: BytePath?
        /// Names that were looked up or changed; nil for one that is not there (any more).
        var names: [BytePath: Node?] = [:]

        init(inode: UInt64, oldPath: BytePath?) {
            self.inode = inode
            self.oldPath = oldPath
        }
    }

    private let old: ComparedTree
    private let root: Node
    private var nodesByInode: [UInt64: Node] = [:]

    /// Every inode that a command changed in itself.
    private(set) var dirty: Set<UInt64> = []

    /// - Parameter subvolume: the root directory of the old snapshot.
    init(subvolume: FileDescriptor) throws(LayerError) {
        old = try ComparedTree(root: subvolume)
        let status = try attempt("look at", .current) { () throws(Errno) in try subvolume.status() }
        root = Node(inode: status.inode, oldPath: .empty)
    }

    /// A command changed the inode at `path`.
    func touch(_ path: BytePath) throws(Mismatch) { dirty.insert(try find(path).inode) }

    /// mkfile, mkdir, mknod, mkfifo, mksock, symlink.
    func make(_ path: BytePath, inode: UInt64) throws(Mismatch) {
        let node = Node(inode: inode, oldPath: nil)
        try insert(node, at: path)
        dirty.insert(inode)
    }

    func rename(_ from: BytePath, to: BytePath) throws(Mismatch) {
        let node = try remove(from)
        dirty.insert(node.inode)
        try insert(node, at: to)
    }

    func link(_ path: BytePath, target: BytePath) throws(Mismatch) {
        let node = try find(target)
        dirty.insert(node.inode)
        try insert(node, at: path)
    }

    func unlink(_ path: BytePath) throws(Mismatch) { dirty.insert(try remove(path).inode) }

    // MARK: Names

    private func find(_ path: BytePath) throws(Mismatch) -> Node {
        var node = root
        for name in path.components { node = try child(name, of: node, path) }
        return node
    }

    private func child(_ name: BytePath, of node: Node, _ path: BytePath) throws(Mismatch) -> Node {
        guard let found = try lookUp(name, in: node) else { throw .missing(path) }
        return found
    }

    private func lookUp(_ name: BytePath, in node: Node) throws(Mismatch) -> Node? {
        if let known = node.names[name] { return known }
        guard let oldPath = node.oldPath else { return nil }
        let path = oldPath.appending(name)
        let status: FileStatus?
        do throws(LayerError) {
            // Sockets do count here: the stream speaks of them.
            status = try old.anyStatus(at: path)
        } catch {
            throw .old(error)
        }
        guard let status else {
            node.names[name] = .some(nil)
            return nil
        }
        // Two names of one file are one inode: what is known of a directory must not exist twice.
        let found = nodesByInode[status.inode] ?? Node(inode: status.inode, oldPath: path)
        nodesByInode[status.inode] = found
        node.names[name] = found
        return found
    }

    private func parent(of path: BytePath) throws(Mismatch) -> (Node, BytePath) {
        let name = path.lastComponent
        guard !name.isEmpty else { throw .missing(path) }
        return (try find(path.parent), name)
    }

    private func insert(_ node: Node, at path: BytePath) throws(Mismatch) {
        let (directory, name) = try parent(of: path)
        if try lookUp(name, in: directory) != nil { throw .collision(path) }
        directory.names[name] = node
        dirty.insert(directory.inode)
    }

    private func remove(_ path: BytePath) throws(Mismatch) -> Node {
        let (directory, name) = try parent(of: path)
        guard let node = try lookUp(name, in: directory) else { throw .missing(path) }
        directory.names[name] = .some(nil)
        dirty.insert(directory.inode)
        return node
    }
}
