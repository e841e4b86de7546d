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

    /// In the order of the paths. Both trees are walked side by side, and a path is made only for what differs.
    ///
    /// - Parameters:
    ///   - keywords: those that are compared, beside `type`; `xattr` stands for all attributes.
    ///   - onEntry: is called for each name, and may throw to end it.
    package static func differences(
        from recorded: RecordedTree, to tree: RecordedTree, keywords: Set<String>,
        onEntry: () throws -> Void = {}
    ) rethrows -> [MtreeDifference] {
        var result: [MtreeDifference] = []
        var here = PathHere()
        var pending = [Pair(old: RecordedTree.root, new: RecordedTree.root, depth: 0)]
        while let pair = pending.popLast() {
            try onEntry()
            let (before, after) = (pair.old.map { recorded.nodes[$0] }, pair.new.map { tree.nodes[$0] })
            here.enter((before ?? after)?.name ?? .empty, depth: pair.depth)
            if let kind = difference(before, after, keywords) {
                let difference = MtreeDifference(path: here.path, kind: kind)
                // What lies deeper than any path reaches is told of once.
                if here.isWhole || result.last?.path != difference.path { result.append(difference) }
            }
            // What lies in a directory that one of them lacks is told of as far as there are paths.
            guard here.isWhole || (before != nil && after != nil) else { continue }
            var names: [BytePath: Int] = [:]
            for child in after?.children ?? [] { names[tree.nodes[child].name] = child }
            for child in before?.children ?? [] {
                let other = names.removeValue(forKey: recorded.nodes[child].name)
                pending.append(Pair(old: child, new: other, depth: pair.depth + 1))
            }
            for child in names.values {
                pending.append(Pair(old: nil, new: child, depth: pair.depth + 1))
            }
        }
        return result.sorted { $0.path < $1.path }
    }

    private struct Pair {
        /// Nil in the tree that lacks it.
        var (old, new): (Int?, Int?)
        var depth: Int
    }

    /// The names that lead to where a walk is.
    private struct PathHere {
        private var names: [BytePath] = []
        /// How long the path is up to each of them.
        private var lengths: [Int] = []
        private static let limit = 4096

        /// - Parameter depth: 0 for the root.
        mutating func enter(_ name: BytePath, depth: Int) {
            guard depth > 0 else { return }
            names.removeSubrange((depth - 1)...)
            lengths.removeSubrange((depth - 1)...)
            names.append(name)
            lengths.append((lengths.last ?? 0) + name.count + 1)
        }

        /// Whether it is no longer than a path can be that is asked for (PATH_MAX).
        var isWhole: Bool { (lengths.last ?? 0) <= Self.limit }

        /// `.` for the root; of one that is too long, as much as fits.
        var path: BytePath {
            if names.isEmpty { return .current }
            let fitting = lengths.prefix { $0 <= Self.limit }
            return BytePath(joining: Array(names.prefix(fitting.count)))
        }
    }

    private static func difference(
        _ old: RecordedTree.Node?, _ new: RecordedTree.Node?, _ keywords: Set<String>
    ) -> Kind? {
        guard let old else { return .unexpected }
        guard let new else { return .missing }
        let (expected, found) = (old.mtreeKeywords, new.mtreeKeywords)
        func byName(_ all: [(keyword: String, value: [UInt8])]) -> [[UInt8]: [UInt8]] {
            Dictionary(
                all.map { (Array($0.keyword.utf8), $0.value) }, uniquingKeysWith: { first, _ in first })
        }
        let (was, now) = (byName(expected), byName(found))
        for keyword in (expected + found).map(\.keyword) {
            let name = keyword.hasPrefix("xattr.") ? "xattr" : keyword
            guard name == "type" || keywords.contains(name) else { continue }
            let key = Array(keyword.utf8)
            if was[key] != now[key] {
                return .keyword(keyword, expected: was[key] ?? [], found: now[key] ?? [])
            }
        }
        return nil
    }
}

extension RecordedTree {
    /// The keywords that umoci asks for.
    package static let mtreeKeywords: Set<String> = [
        "size", "type", "uid", "gid", "mode", "link", "nlink", "tar_time", "sha256digest", "xattr",
    ]
}
