import Archive
import OCI
import SystemCalls

extension RecordedTree {
    /// The tree as an mtree(5) file with the keywords that umoci asks for, so that it finds nothing changed in the tree.
    ///
    /// umoci compares the size and the link count of directories too, so they are those that the file system shows now.
    public var mtree: [UInt8] {
        var writer = MtreeWriter()
        writer.line("#mtree")
        writer.line("# keywords: size,type,uid,gid,mode,link,nlink,tar_time,sha256digest,xattr")
        writer.line("/set type=file nlink=1 uid=0 gid=0")
        /// Directories whose names are still to be written; nil closes one.
        var pending: [Int?] = [Self.root]
        while let next = pending.popLast() {
            guard let index = next else {
                writer.line("..")
                continue
            }
            let node = nodes[index]
            writer.entry(index == Self.root ? [UInt8(ascii: ".")] : Array(node.name.bytes), node)
            guard node.status.isDirectory else { continue }
            pending.append(nil)
            // Files first, as go-mtree has them: `..` closes a directory, and what follows it is its parent's.
            let directories = node.children.filter { nodes[$0].status.isDirectory }
            let files = node.children.filter { !nodes[$0].status.isDirectory }
            pending.append(contentsOf: (files + directories).reversed().map { Optional($0) })
        }
        return writer.bytes
    }
}

private struct MtreeWriter {
    var bytes: [UInt8] = []

    mutating func line(_ text: String) {
        bytes.append(contentsOf: text.utf8)
        bytes.append(UInt8(ascii: "\n"))
    }

    mutating func entry(_ name: [UInt8], _ node: RecordedTree.Node) {
        let status = node.status
        bytes.append(contentsOf: VisEncoding.encode(name))
        add("size=\(status.size)")
        switch status.type {
        case .directory: add("type=dir")
        case .symbolicLink:
            add("type=link")
            add("link=")
            bytes.append(contentsOf: VisEncoding.encode(node.target.bytes))
        case .characterDevice: add("type=char")
        case .blockDevice: add("type=block")
        case .fifo: add("type=fifo")
        case .regular, .socket, nil: break
        }
        if status.uid != 0 { add("uid=\(status.uid)") }
        if status.gid != 0 { add("gid=\(status.gid)") }
        // C's "%#o": a zero stands for itself.
        add("mode=" + (status.permissions == 0 ? "0" : "0" + String(status.permissions, radix: 8)))
        if status.linkCount != 1 { add("nlink=\(status.linkCount)") }
        add("tar_time=\(status.modificationTime.seconds).000000000")
        if let digest = node.digest { add("sha256digest=\(digest.hex)") }
        // go-mtree looks at the attributes of nothing else.
        if status.isRegular || status.isDirectory {
            for attribute in node.attributes {
                add("xattr.")
                // A reader takes the first = for the end of the name.
                for byte in VisEncoding.encode(attribute.name.bytes) {
                    bytes.append(contentsOf: byte == UInt8(ascii: "=") ? Array("\\075".utf8) : [byte])
                }
                bytes.append(UInt8(ascii: "="))
                bytes.append(contentsOf: Base64.encode(attribute.value))
            }
        }
        bytes.append(UInt8(ascii: "\n"))
    }

    private mutating func add(_ keyword: String) {
        bytes.append(UInt8(ascii: " "))
        bytes.append(contentsOf: keyword.utf8)
    }
}
