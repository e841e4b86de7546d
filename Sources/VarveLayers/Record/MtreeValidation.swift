internal import VarveFormats
package import VarveSystem

/// What a tree differs in from an mtree file, keyword by keyword, as `umoci raw mtree-validate` tells it (go-mtree,
/// compare.go).
package struct MtreeDifference: Hashable, Sendable {
    package enum Kind: Hashable, Sendable {
        case missing
        case unexpected
        /// The first keyword that differs. A value that one side does not have is empty.
        case keyword(String, expected: [UInt8], found: [UInt8])
    }

    /// `.` is the root.
    package var path: BytePath
    package var kind: Kind

    /// In the order of the paths.
    ///
    /// - Parameter keywords: those that are compared, beside `type`; `xattr` stands for all attributes.
    package static func differences(
        from recorded: RecordedTree, to tree: RecordedTree, keywords: Set<String>
    ) -> [MtreeDifference] {
        let (old, new) = (recorded.nodesByPath, tree.nodesByPath)
        return Set(old.keys).union(new.keys).sorted().compactMap { path in
            guard let before = old[path] else { return MtreeDifference(path: path, kind: .unexpected) }
            guard let after = new[path] else { return MtreeDifference(path: path, kind: .missing) }
            let (expected, found) = (before.mtreeKeywords, after.mtreeKeywords)
            func value(_ keyword: String, in all: [(keyword: String, value: [UInt8])]) -> [UInt8]? {
                all.first { sameBytes($0.keyword, keyword) }?.value
            }
            for keyword in (expected + found).map(\.keyword) {
                let name = keyword.hasPrefix("xattr.") ? "xattr" : keyword
                guard name == "type" || keywords.contains(name) else { continue }
                let (was, now) = (value(keyword, in: expected), value(keyword, in: found))
                if was != now {
                    return MtreeDifference(
                        path: path, kind: .keyword(keyword, expected: was ?? [], found: now ?? []))
                }
            }
            return nil
        }
    }
}

extension RecordedTree {
    /// The keywords that umoci asks for.
    package static let mtreeKeywords: Set<String> = [
        "size", "type", "uid", "gid", "mode", "link", "nlink", "tar_time", "sha256digest", "xattr",
    ]

    fileprivate var nodesByPath: [BytePath: Node] {
        var result: [BytePath: Node] = [:]
        var pending: [(path: BytePath, index: Int)] = [(.current, Self.root)]
        while let (path, index) = pending.popLast() {
            result[path] = nodes[index]
            for child in nodes[index].children {
                let name = nodes[child].name
                pending.append((path == .current ? name : path.appending(name), child))
            }
        }
        return result
    }
}
