import VarveOCI
import VarveSystem

/// A record or an mtree file is not what it should be: why.
package struct RecordError: Error, CustomStringConvertible {
    package let description: String
    init(_ description: String) { self.description = description }
}

/// A record as bytes, see Docs/on-disk-format.md, "The record of a directory bundle".
extension RecordedTree {
    private static let magic = Array("varve-tree 1\n".utf8)
    private static let digestSize = 32

    /// The record as a file.
    package var encoded: [UInt8] {
        var writer = RecordWriter()
        writer.bytes = Self.magic
        if case .everything(let trusted) = knowledge { writer.time(trusted) } else { writer.time(.epoch) }
        // In the order of the tree, whatever order the nodes have.
        var pending = [Self.root]
        while let index = pending.popLast() {
            let node = nodes[index]
            let status = node.status
            writer.string(Array(node.name.bytes))
            for value in [
                UInt64(status.mode), UInt64(status.uid), UInt64(status.gid), status.linkCount, status.inode,
                UInt64(bitPattern: status.size),
            ] { writer.number(value) }
            writer.time(status.modificationTime)
            writer.time(status.changeTime)
            writer.number(UInt64(node.attributes.count))
            for attribute in node.attributes {
                writer.string(Array(attribute.name.bytes))
                writer.string(attribute.value)
            }
            switch status.type {
            case .regular:
                writer.bytes.append(contentsOf: node.digest?.bytes ?? [])
            case .symbolicLink:
                writer.string(Array(node.target.bytes))
            case .characterDevice, .blockDevice:
                writer.number(UInt64(status.deviceMajor))
                writer.number(UInt64(status.deviceMinor))
            case .directory:
                writer.number(UInt64(node.children.count))
            default:
                break
            }
            pending.append(contentsOf: node.children.reversed())
        }
        writer.bytes.append(contentsOf: Digest(of: writer.bytes).bytes)
        return writer.bytes
    }

    /// Reads a record back.
    ///
    /// - Parameter onEntry: is called for each file and directory, and may throw to end it.
    /// - Throws: `RecordError` if it is damaged.
    package init(decoding bytes: [UInt8], onEntry: () throws -> Void = {}) throws {
        guard bytes.starts(with: Self.magic) else {
            throw RecordError("it does not begin as a record of this version does")
        }
        guard bytes.count > Self.magic.count + Self.digestSize,
            Digest(of: bytes.dropLast(Self.digestSize)).bytes == Array(bytes.suffix(Self.digestSize))
        else { throw RecordError("its checksum is wrong") }
        var reader = RecordReader(
            bytes: bytes, offset: Self.magic.count, end: bytes.count - Self.digestSize)
        let trusted = try reader.time()
        let (top, count) = try Self.node(&reader)
        guard top.status.isDirectory, top.name.isEmpty else { throw RecordError("its root is no directory") }
        self.init(root: top, knowledge: .everything(trustedBefore: trusted))
        var open = [(node: Self.root, left: count)]
        while let last = open.indices.last {
            try onEntry()
            guard open[last].left > 0 else {
                open.removeLast()
                continue
            }
            open[last].left -= 1
            let (node, count) = try Self.node(&reader)
            let parent = open[last].node
            if let before = nodes[parent].children.last, !(nodes[before].name < node.name) {
                throw RecordError("its names are out of order")
            }
            guard !node.name.isEmpty else { throw RecordError("a file has no name") }
            guard node.name != ".", node.name != "..", !node.name.bytes.contains(UInt8(ascii: "/")) else {
                throw RecordError("a file's name is a path")
            }
            let made = append(node, to: parent)
            if node.status.isDirectory { open.append((made, count)) }
        }
        guard reader.offset == reader.end else { throw RecordError("more follows its end") }
    }

    /// One file, and how many names follow in it if it is a directory.
    private static func node(_ reader: inout RecordReader) throws(RecordError) -> (Node, Int) {
        let name = try reader.path()
        var status = FileStatus(mode: try reader.number32())
        status.uid = try reader.number32()
        status.gid = try reader.number32()
        status.linkCount = try reader.number()
        status.inode = try reader.number()
        guard let size = Int64(exactly: try reader.number()) else {
            throw RecordError("a number is too large")
        }
        status.size = size
        status.modificationTime = try reader.time()
        status.changeTime = try reader.time()
        var node = Node(name: name, status: status)
        for _ in 0..<(try reader.count()) {
            let attribute = ExtendedAttribute(name: try reader.path(), value: try reader.string())
            if let before = node.attributes.last, !(before.name < attribute.name) {
                throw RecordError("its attributes are out of order")
            }
            node.attributes.append(attribute)
        }
        var children = 0
        switch status.type {
        case .regular: node.digest = Digest(sha256: try reader.take(digestSize))
        case .symbolicLink:
            node.target = try reader.path()
            if node.target.isEmpty { throw RecordError("a symbolic link leads to nothing") }
        case .characterDevice, .blockDevice:
            node.status.deviceMajor = try reader.number32()
            node.status.deviceMinor = try reader.number32()
        case .directory: children = try reader.count()
        case .fifo: break
        case .socket, nil: throw RecordError("a file is of no type")
        }
        return (node, children)
    }
}

/// Numbers are unsigned LEB128; seconds are zigzag-coded first.
private struct RecordWriter {
    var bytes: [UInt8] = []

    mutating func number(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(truncatingIfNeeded: rest))
    }

    mutating func string(_ value: [UInt8]) {
        number(UInt64(value.count))
        bytes.append(contentsOf: value)
    }

    mutating func time(_ time: Timestamp) {
        number(UInt64(bitPattern: (time.seconds << 1) ^ (time.seconds >> 63)))
        number(UInt64(time.nanoseconds))
    }
}

private struct RecordReader {
    let bytes: [UInt8]
    var offset: Int
    let end: Int

    private var truncated: RecordError { RecordError("it ends too early") }

    mutating func number() throws(RecordError) -> UInt64 {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while offset < end {
            let byte = bytes[offset]
            offset += 1
            guard shift < 63 || byte <= 1 else { throw RecordError("a number is too large") }
            value |= UInt64(byte & 0x7f) << shift
            if byte < 0x80 { return value }
            shift += 7
        }
        throw truncated
    }

    mutating func number32() throws(RecordError) -> UInt32 {
        guard let value = UInt32(exactly: try number()) else { throw RecordError("a number is too large") }
        return value
    }

    /// How many things follow, each of at least one byte.
    mutating func count() throws(RecordError) -> Int {
        let value = try number()
        guard value <= UInt64(end - offset) else { throw truncated }
        return Int(value)
    }

    mutating func take(_ count: Int) throws(RecordError) -> [UInt8] {
        guard count <= end - offset else { throw truncated }
        defer { offset += count }
        return Array(bytes[offset..<(offset + count)])
    }

    mutating func string() throws(RecordError) -> [UInt8] { try take(count()) }

    mutating func path() throws(RecordError) -> BytePath {
        guard let path = BytePath(try string()) else { throw RecordError("a name holds a zero byte") }
        return path
    }

    mutating func time() throws(RecordError) -> Timestamp {
        let raw = try number()
        let seconds = Int64(bitPattern: raw >> 1) ^ -Int64(bitPattern: raw & 1)
        let nanoseconds = try number32()
        guard nanoseconds < 1_000_000_000 else { throw RecordError("a number is too large") }
        return Timestamp(seconds: seconds, nanoseconds: nanoseconds)
    }
}
