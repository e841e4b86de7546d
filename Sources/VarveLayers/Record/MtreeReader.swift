import VarveFormats
import VarveArchive
import VarveOCI
package import VarveSystem
package import SystemPackage

extension RecordedTree {
    /// The tree that an mtree(5) file tells of, as umoci writes it.
    ///
    /// An mtree file does not say which names are one file. Where the files that were linked cannot be told by what it
    /// does say, the tree that it was made of is asked.
    ///
    /// - Parameters:
    ///   - written: when the file was written.
    ///   - root: the root directory of the tree as it is now.
    ///   - onEntry: is called for each line, and for each file that is looked at, and may throw to end it.
    /// - Throws: `RecordError` if the file is damaged, or `LayerError`.
    package init(
        mtree bytes: [UInt8], written: Timestamp, root: FileDescriptor, onEntry: () throws -> Void = {}
    ) throws {
        var reader = MtreeReader()
        var number = 0
        var continued: [UInt8] = []
        var rest = bytes[...]
        while let line = rest.removeLine() {
            number += 1
            try onEntry()
            if line.last == UInt8(ascii: "\\"), line.dropLast().last != UInt8(ascii: "\\") {
                continued.append(contentsOf: line.dropLast())
                continue
            }
            do throws(RecordError) {
                try reader.read(continued + line)
            } catch {
                throw RecordError("line \(number): \(error)")
            }
            continued.removeAll()
        }
        guard continued.isEmpty else { throw RecordError("its last line goes on, and there is no more") }
        guard var tree = reader.tree else { throw RecordError("it has no line for \".\"") }
        let names = tree.nodes.map(\.name)
        for index in tree.nodes.indices { tree.nodes[index].children.sort { names[$0] < names[$1] } }
        tree.knowledge = .mtree(written: written)
        try tree.findLinkGroups(in: try ComparedTree(root: root), written: written, onEntry)
        self = tree
    }

    /// Gives the names of one file one inode number, as far as that can be known.
    private mutating func findLinkGroups(
        in now: ComparedTree, written: Timestamp, _ onEntry: () throws -> Void
    ) throws {
        /// All that the names of one file have in common.
        struct Likeness: Hashable {
            var status: FileStatus
            var digest: Digest?
            var target: BytePath
            var attributes: [ExtendedAttribute]
        }
        var alike: [Likeness: [Int]] = [:]
        var next: UInt64 = 1
        for index in nodes.indices {
            let node = nodes[index]
            let (status, digest, target) = (node.status, node.digest, node.target)
            if status.linkCount > 1, !status.isDirectory {
                alike[
                    Likeness(
                        status: status, digest: digest, target: target, attributes: node.attributes),
                    default: []
                ].append(index)
            }
            nodes[index].status.inode = next
            next += 1
        }
        var parents: [Int]?
        // Files as they are now, by their inode number, where they are still those that were recorded.
        var unchanged: [UInt64: UInt64] = [:]
        for (like, indices) in alike.sorted(by: { ($0.value.first ?? 0) < ($1.value.first ?? 0) }) {
            if UInt64(indices.count) == like.status.linkCount {
                // Exactly as many names as each of them has links: they are one file.
                for index in indices { nodes[index].status.inode = nodes[indices[0]].status.inode }
                continue
            }
            let known = parents ?? self.parents
            parents = known
            for index in indices {
                try onEntry()
                guard let path = path(of: index, known), let status = try now.status(at: path),
                    status.changeTime <= written,
                    status.linkCount == like.status.linkCount
                else {
                    nodes[index].hasUnknownLinks = true
                    continue
                }
                // Linking and unlinking change the change time: its names are those that it had.
                let inode = unchanged[status.inode] ?? nodes[index].status.inode
                unchanged[status.inode] = inode
                nodes[index].status.inode = inode
            }
        }
    }

    /// The directory of each node.
    private var parents: [Int] {
        var result = [Int](repeating: Self.root, count: nodes.count)
        for index in nodes.indices {
            for child in nodes[index].children { result[child] = index }
        }
        return result
    }

    /// Nil for one that is longer than any path that can be asked for (PATH_MAX): an mtree file may nest its directories as deep as
    /// it likes, and the paths of all of them would fill the memory.
    private func path(of index: Int, _ parents: [Int]) -> BytePath? {
        var names: [BytePath] = []
        var length = 0
        var here = index
        while here != Self.root {
            length += nodes[here].name.count + 1
            guard length <= 4096 else { return nil }
            names.append(nodes[here].name)
            here = parents[here]
        }
        return BytePath(joining: names.reversed())
    }
}

/// The lines of an mtree file, one after another: go-mtree's parse.go and mtree(5).
private struct MtreeReader {
    typealias Keywords = [(name: [UInt8], value: [UInt8])]

    private var nodes: [RecordedTree.Node] = []
    /// Where each name is.
    private var places: [Place: Int] = [:]
    private struct Place: Hashable {
        var directory: Int
        var name: BytePath
    }
    /// Of the last /set: read once, and shared by all lines.
    private var defaults = Values()
    /// The directories above the next line.
    private var open: [Int] = []

    /// Nil as long as there was no root.
    var tree: RecordedTree? { RecordedTree(nodes, knowledge: .mtree(written: .epoch)) }

    mutating func read(_ line: [UInt8]) throws(RecordError) {
        let words = line.split { $0 == 0x20 || $0 == 0x09 || $0 == 0x0d }
        guard let first = words.first, first.first != UInt8(ascii: "#") else { return }
        let keywords = Self.keywords(words.dropFirst())
        if first.first == UInt8(ascii: "/") {
            if first.elementsEqual("/set".utf8) {
                // As go-mtree has it, each /set takes the place of the one before. It says what most files have in common, and no
                // more of it is kept, as each line goes through it.
                defaults = try Self.common(keywords)
            } else if first.elementsEqual("/unset".utf8) {
                defaults = Values()
            }
            return
        }
        if first.elementsEqual("..".utf8) {
            _ = open.popLast()
            return
        }
        guard let name = VisEncoding.decode(first) else {
            throw RecordError("the name \"\(BytePath.escape(first))\" is not encoded as vis(3) does it")
        }
        try add(name, try node(keywords))
    }

    /// What a /set says of what a delta compares: the last of each keyword.
    private static func common(_ keywords: Keywords) throws(RecordError) -> Values {
        var kept: Keywords = []
        for keyword in keywords {
            if !names.contains(String(decoding: keyword.name, as: UTF8.self)),
                try attribute(keyword.name, keyword.value) == nil
            {
                continue
            }
            kept.removeAll { $0.name == keyword.name }
            kept.append(keyword)
            guard kept.count <= commonLimit else {
                throw RecordError("it gives all files more than \(commonLimit) attributes")
            }
        }
        guard kept.reduce(0, { $0 + $1.name.count + $1.value.count }) <= commonSize else {
            throw RecordError("it gives all files more than \(commonSize) bytes of attributes")
        }
        var values = Values()
        for keyword in kept { try values.set(keyword.name, keyword.value) }
        values.sorted = values.sortedAttributes
        return values
    }

    private static let commonLimit = 32
    /// Whoever writes /set writes what is short: each file is compared with all of it.
    private static let commonSize = 4096

    private static let names: Set<String> = [
        "type", "mode", "uid", "gid", "nlink", "size", "tar_time", "time", "link", "sha256digest", "sha256",
    ]

    private static func keywords(_ words: some Sequence<ArraySlice<UInt8>>) -> Keywords {
        words.map { word in
            guard let equals = word.firstIndex(of: UInt8(ascii: "=")) else { return (Array(word), []) }
            return (Array(word[..<equals]), Array(word[(equals + 1)...]))
        }
    }

    private mutating func add(_ encoded: [UInt8], _ made: RecordedTree.Node) throws(RecordError) {
        guard let path = BytePath(encoded) else { throw RecordError("its name holds a zero byte") }
        let components = path.components.filter { $0 != .current }
        guard !components.contains("..") else { throw RecordError("its name holds \"..\"") }
        // An image has none.
        if made.status.type == .socket { return }
        guard let name = components.last else {
            guard nodes.isEmpty, made.status.isDirectory else {
                throw RecordError("the root is there twice, or is no directory")
            }
            nodes = [made]
            open = [RecordedTree.root]
            return
        }
        guard !nodes.isEmpty else { throw RecordError("it does not begin with the root") }
        // A name with a slash counts from the root, any other from the directory above it.
        var directory = RecordedTree.root
        if path.bytes.contains(UInt8(ascii: "/")) {
            for component in components.dropLast() {
                guard let found = places[Place(directory: directory, name: component)] else {
                    throw RecordError("\"\(path)\" lies in a directory that it does not tell of")
                }
                directory = found
            }
        } else {
            guard let last = open.last else { throw RecordError("it closes more directories than it opens") }
            directory = last
        }
        guard nodes[directory].status.isDirectory else {
            throw RecordError("\"\(path)\" lies in what is no directory")
        }
        let index = nodes.count
        guard places.updateValue(index, forKey: Place(directory: directory, name: name)) == nil else {
            throw RecordError("\"\(path)\" is there twice")
        }
        var node = made
        node.name = name
        nodes.append(node)
        nodes[directory].children.append(index)
        if node.status.isDirectory { open.append(index) }
    }

    /// What is said of a file, or of all files.
    private struct Values {
        var type: VarveSystem.FileType?
        var mode: UInt32?
        var (uid, gid): (UInt32?, UInt32?)
        var (size, links, time): (Int64?, UInt64?, Timestamp?)
        var target = BytePath.empty
        var digest: Digest?
        var attributes: [BytePath: [UInt8]] = [:]
        /// All of them in their order, for those who add none.
        var sorted: [ExtendedAttribute] = []

        var sortedAttributes: [ExtendedAttribute] {
            attributes.map { ExtendedAttribute(name: $0.key, value: $0.value) }.sorted { $0.name < $1.name }
        }

        /// - Returns: whether it is an attribute.
        @discardableResult
        mutating func set(_ name: [UInt8], _ bytes: [UInt8]) throws(RecordError) -> Bool {
            let text = String(decoding: bytes, as: UTF8.self)
            func wrong() -> RecordError {
                RecordError("\(BytePath.escape(name))=\(BytePath.escape(bytes)) is no value for that")
            }
            switch String(decoding: name, as: UTF8.self) {
            case "type":
                guard let known = MtreeReader.types[text] else { throw wrong() }
                type = known
            case "mode":
                guard let value = UInt32(text, radix: 8), value <= 0o7777 else { throw wrong() }
                mode = value
            case "uid":
                guard let value = UInt32(text) else { throw wrong() }
                uid = value
            case "gid":
                guard let value = UInt32(text) else { throw wrong() }
                gid = value
            case "nlink":
                guard let value = UInt64(text) else { throw wrong() }
                links = value
            case "size":
                guard let value = Int64(text), value >= 0 else { throw wrong() }
                size = value
            case "tar_time", "time":
                guard let seconds = Int64(text.prefix { $0 != "." }) else { throw wrong() }
                time = Timestamp(seconds: seconds)
            case "link":
                guard let found = VisEncoding.decode(bytes).flatMap({ BytePath($0) }) else { throw wrong() }
                target = found
            case "sha256digest", "sha256":
                guard let found = Digest(algorithm: .sha256, hex: text) else { throw wrong() }
                digest = found
            default:
                guard let attribute = try MtreeReader.attribute(name, bytes) else { return false }
                attributes[attribute.name] = attribute.value
                return true
            }
            return false
        }
    }

    private func node(_ own: Keywords) throws(RecordError) -> RecordedTree.Node {
        var values = defaults
        var hasOwnAttributes = false
        for (name, bytes) in own {
            if try values.set(name, bytes) { hasOwnAttributes = true }
        }
        guard let type = values.type, let mode = values.mode, let uid = values.uid, let gid = values.gid,
            let time = values.time, let links = values.links
        else {
            throw RecordError("it lacks one of type, mode, uid, gid, nlink and tar_time")
        }
        var node = RecordedTree.Node(name: .empty, status: FileStatus(mode: type.rawValue | mode))
        (node.status.uid, node.status.gid, node.status.linkCount) = (uid, gid, links)
        node.status.modificationTime = time
        node.status.size = values.size ?? 0
        if type == .regular {
            guard values.size != nil, values.digest != nil else {
                throw RecordError("it lacks size or sha256digest")
            }
            node.digest = values.digest
        }
        if type == .symbolicLink {
            guard !values.target.isEmpty else { throw RecordError("it lacks link") }
            node.target = values.target
        }
        node.attributes = hasOwnAttributes ? values.sortedAttributes : values.sorted
        return node
    }

    /// Nil for a keyword that says nothing of what a delta compares.
    private static func attribute(_ name: [UInt8], _ value: [UInt8]) throws(RecordError) -> ExtendedAttribute?
    {
        for prefix in ["xattr.", "xattrs."] where name.starts(with: prefix.utf8) {
            guard
                let decoded = VisEncoding.decode(name.dropFirst(prefix.utf8.count)).flatMap({ BytePath($0) }),
                let value = Base64.decode(value)
            else { throw RecordError("an extended attribute is not encoded as go-mtree does it") }
            return ExtendedAttribute(name: decoded, value: value)
        }
        return nil
    }

    private static let types: [String: VarveSystem.FileType] = [
        "file": .regular, "dir": .directory, "link": .symbolicLink, "char": .characterDevice,
        "block": .blockDevice, "fifo": .fifo, "socket": .socket,
    ]
}
