import VarveFormats
import VarveArchive
import VarveOCI
import VarveSystem

extension RecordedTree {
    /// The tree as an mtree(5) file with the keywords that umoci asks for, so that it finds nothing changed in the tree.
    ///
    /// umoci compares the size and the link count of directories too, so they are those that the file system shows now.
    package var mtree: [UInt8] {
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

    /// What a line need not say: mtree(5)'s `/set` says it.
    private static let defaults = ["type": "file", "uid": "0", "gid": "0", "nlink": "1"]

    mutating func entry(_ name: [UInt8], _ node: RecordedTree.Node) {
        bytes.append(contentsOf: VisEncoding.encode(name))
        for (keyword, value) in node.mtreeKeywords
        where Self.defaults[keyword].map({ Array($0.utf8) }) != value {
            bytes.append(contentsOf: " \(keyword)=".utf8)
            bytes.append(contentsOf: value)
        }
        bytes.append(UInt8(ascii: "\n"))
    }
}

extension RecordedTree.Node {
    /// The keywords of mtree(5) that umoci asks for, with their values as they are written.
    var mtreeKeywords: [(keyword: String, value: [UInt8])] {
        var all: [(keyword: String, value: [UInt8])] = []
        func add(_ keyword: String, _ value: some Sequence<UInt8>) { all.append((keyword, Array(value))) }
        let types: [FileType: String] = [
            .directory: "dir", .symbolicLink: "link", .characterDevice: "char", .blockDevice: "block",
            .fifo: "fifo",
        ]
        add("size", "\(status.size)".utf8)
        add("type", (status.type.flatMap { types[$0] } ?? "file").utf8)
        if status.isSymbolicLink { add("link", VisEncoding.encode(target.bytes)) }
        add("uid", "\(status.uid)".utf8)
        add("gid", "\(status.gid)".utf8)
        // C's "%#o": a zero stands for itself.
        add("mode", (status.permissions == 0 ? "0" : "0" + String(status.permissions, radix: 8)).utf8)
        add("nlink", "\(status.linkCount)".utf8)
        add("tar_time", "\(status.modificationTime.seconds).000000000".utf8)
        if let digest { add("sha256digest", digest.hex.utf8) }
        // go-mtree looks at the attributes of nothing else.
        if status.isRegular || status.isDirectory {
            for attribute in attributes {
                // A reader takes the first = for the end of the name.
                let name = VisEncoding.encode(attribute.name.bytes).flatMap {
                    $0 == UInt8(ascii: "=") ? Array("\\075".utf8) : [$0]
                }
                add("xattr." + String(decoding: name, as: UTF8.self), Base64.encode(attribute.value))
            }
        }
        return all
    }
}
