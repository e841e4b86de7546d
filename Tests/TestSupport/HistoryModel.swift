import VarveSystem

/// What the generator believes the tree to be, so that most of the operations it chooses are possible. The
/// real tree may differ (a move over a directory that is not empty fails there); nothing depends on it being
/// right.
struct HistoryModel {
    enum Kind {
        case directory, subvolume, regular, symbolicLink, special, socket
        var isDirectory: Bool { self == .directory || self == .subvolume }
    }

    struct Name {
        var parent: Int
        var name: BytePath
    }

    struct Node {
        var kind: Kind
        var names: [Name]
        /// In the order in which they were made: no iteration over a hash table may decide what is generated.
        var children: [(name: BytePath, node: Int)] = []
    }

    /// By number; those that are gone stay as nil. The root is 0.
    private(set) var nodes: [Node?] = [Node(kind: .directory, names: [])]

    func node(_ id: Int) -> Node? { nodes.indices.contains(id) ? nodes[id] : nil }

    func ids(_ isWanted: (Node) -> Bool) -> [Int] {
        nodes.indices.dropFirst().filter { id in nodes[id].map(isWanted) ?? false }
    }

    var directories: [Int] { [0] + ids { $0.kind.isDirectory } }

    func child(_ parent: Int, _ name: BytePath) -> Int? {
        node(parent)?.children.first { $0.name == name }?.node
    }

    /// The path by the name with that index; nil if the node or the name is gone.
    func path(_ id: Int, name index: Int = 0) -> BytePath? {
        if id == 0 { return .current }
        guard let node = node(id), node.names.indices.contains(index) else { return nil }
        return path(node.names[index])
    }

    func path(_ name: Name?) -> BytePath? {
        guard let name else { return nil }
        var parts = [name.name]
        var parent = name.parent
        while parent != 0 {
            guard let up = node(parent)?.names.first, parts.count < 5000 else { return nil }
            parts.append(up.name)
            parent = up.parent
        }
        return BytePath(parts.reversed().map { Array($0.bytes) }.joined(separator: [UInt8(ascii: "/")]))
    }

    /// The directory itself or one that it lies in.
    func isInside(_ directory: Int, _ ancestor: Int) -> Bool {
        var current = directory
        while current != 0 {
            if current == ancestor { return true }
            guard let up = node(current)?.names.first else { return false }
            current = up.parent
        }
        return ancestor == 0
    }

    /// The subvolume that a directory belongs to.
    func volume(of directory: Int) -> Int {
        var current = directory
        while current != 0, let node = node(current), node.kind != .subvolume {
            current = node.names.first?.parent ?? 0
        }
        return current
    }

    @discardableResult
    mutating func add(_ kind: Kind, _ name: Name) -> Int {
        nodes.append(Node(kind: kind, names: []))
        attach(nodes.count - 1, name)
        return nodes.count - 1
    }

    mutating func attach(_ id: Int, _ name: Name) {
        nodes[id]?.names.append(name)
        nodes[name.parent]?.children.append((name.name, id))
    }

    /// Takes a name away, and the node and everything below it when that was the last.
    mutating func remove(_ name: Name) {
        var pending = [name]
        while let next = pending.popLast() {
            guard let id = detach(next) else { continue }
            guard let node = node(id), node.names.isEmpty else { continue }
            pending += node.children.map { Name(parent: id, name: $0.name) }
            if node.children.isEmpty {
                nodes[id] = nil
            } else {
                // Visited again when its children are gone: it has no name by then, so it is only dropped
                // here.
                orphaned.append(id)
            }
        }
        for id in orphaned { nodes[id] = nil }
        orphaned = []
    }

    private var orphaned: [Int] = []

    /// A directory cannot come to lie in itself.
    private func mayHold(_ directory: Int, _ id: Int) -> Bool {
        node(id)?.kind.isDirectory != true || !isInside(directory, id)
    }

    @discardableResult
    private mutating func detach(_ name: Name) -> Int? {
        guard let id = child(name.parent, name.name) else { return nil }
        nodes[name.parent]?.children.removeAll { $0.name == name.name }
        nodes[id]?.names.removeAll { $0.parent == name.parent && $0.name == name.name }
        return id
    }

    mutating func rename(_ from: Name, _ to: Name) {
        guard let id = child(from.parent, from.name), mayHold(to.parent, id) else { return }
        if let other = child(to.parent, to.name) {
            // rename(2): two names of one file, and nothing happens.
            if other == id { return }
            // A directory that is not empty is not replaced.
            if node(other)?.children.isEmpty == false { return }
            remove(to)
        }
        detach(from)
        attach(id, to)
    }

    mutating func exchange(_ left: Name, _ right: Name) {
        guard let mine = child(left.parent, left.name), let theirs = child(right.parent, right.name),
            mayHold(left.parent, theirs), mayHold(right.parent, mine)
        else { return }
        detach(left)
        detach(right)
        attach(mine, right)
        attach(theirs, left)
    }
}
