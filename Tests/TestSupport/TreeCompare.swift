import VarveSystem
package import SystemPackage

/// Whether two trees are the same tree: used on what applying a layer gave and what it should have given.
package enum TreeCompare {
    /// The differences of `second` from `first` in the order of their paths, one line each for a person;
    /// empty if the trees are equal. Compared is all that `Oracle` compares, for every path, and how the
    /// names fall into link groups. Paths that `options` mask belong to no tree and no group.
    package static func differences(
        _ first: FileDescriptor, _ second: FileDescriptor, _ options: OracleOptions = OracleOptions()
    ) throws -> [String] {
        let left = try OracleTree(first, options)
        let right = try OracleTree(second, options)
        var lines = [(path: BytePath, text: String)]()
        for (path, node) in left.nodes {
            guard let other = right.nodes[path] else {
                lines.append((path, "only in the first"))
                continue
            }
            var own = other.differences(from: node, options)
            if own.isEmpty, node.status.isRegular, try !OracleTree.contentIsEqual(left, right, path) {
                own.append("content")
            }
            if !own.isEmpty { lines.append((path, own.joined(separator: "; "))) }
        }
        for path in right.nodes.keys where left.nodes[path] == nil {
            lines.append((path, "only in the second"))
        }

        // A name that one side lacks was reported above: groups are compared by the names that both have.
        let leftGroups = groups(left, commonWith: right)
        let rightGroups = groups(right, commonWith: left)
        for (path, names) in leftGroups {
            guard let others = rightGroups[path], others != names, names.first == path || others.first == path
            else { continue }
            lines.append((path, "links \(list(others)), was \(list(names))"))
        }
        return lines.sorted { ($0.path, $0.text) < ($1.path, $1.text) }.map { "\($0.path): \($0.text)" }
    }

    /// For every name that is no directory in either tree, the sorted names of its group that are in both.
    private static func groups(_ tree: OracleTree, commonWith other: OracleTree) -> [BytePath: [BytePath]] {
        var result = [BytePath: [BytePath]]()
        for names in tree.linkGroups.values {
            let common = names.filter { other.nodes[$0]?.status.isDirectory == false }.sorted()
            for name in common { result[name] = common }
        }
        return result
    }

    private static func list(_ names: [BytePath]) -> String {
        let shown = names.prefix(8).map(\.description).joined(separator: " ")
        return "{\(shown)\(names.count > 8 ? " and \(names.count - 8) more" : "")}"
    }
}
