package import VarveSystem

/// One path at which two trees differ.
package struct OracleChange: Hashable, Sendable, CustomStringConvertible {
    package enum Kind: String, Sendable, CaseIterable {
        case added = "A"
        case modified = "M"
        case deleted = "D"
    }

    package var kind: Kind
    /// Below the root of the tree, without a leading slash; `.` is the root itself.
    package var path: BytePath
    /// The type in the new tree; of a deleted path, in the old one.
    package var type: FileType

    package init(_ kind: Kind, _ path: BytePath, _ type: FileType) {
        self.kind = kind
        self.path = path
        self.type = type
    }

    package var description: String { "\(kind.rawValue) \(path) (\(type))" }
}

extension Oracle {
    /// Compares what a delta engine says with what the oracle says of the same two trees: nil if they agree,
    /// else one line for each change that only one of them has, with the oracle's reasons. The order counts
    /// too.
    package static func disagreement(_ expected: [OracleFinding], with actual: [OracleChange]) -> String? {
        let changes = expected.map(\.change)
        if changes == actual { return nil }
        let mine = Set(changes), theirs = Set(actual)
        var lines = [String]()
        for finding in expected where !theirs.contains(finding.change) {
            lines.append("missing: \(finding)")
        }
        for change in actual where !mine.contains(change) { lines.append("invented: \(change)") }
        if theirs.count != actual.count { lines.append("a change is reported twice") }
        if lines.isEmpty { lines.append("the changes are right but not in the byte order of their paths") }
        return lines.joined(separator: "\n")
    }
}

/// A change and why the oracle reports it.
package struct OracleFinding: Sendable, CustomStringConvertible {
    package var change: OracleChange
    package var reasons: [String]

    package init(change: OracleChange, reasons: [String]) {
        self.change = change
        self.reasons = reasons
    }

    package var description: String { "\(change): \(reasons.joined(separator: "; "))" }
}
