import VarveArchive
package import VarveLayers
import VarveSystem
package import SystemPackage
package import TestSupport

/// What must hold for any two snapshots: every source that can be used gives what the oracle gives, and the layer
/// packed from it, applied to the old tree, gives the new one.
package final class DeltaCheck {
    /// How often a source could not be used, with the last reason.
    package private(set) var unusable: [String: (count: Int, reason: String)] = [:]
    package private(set) var comparisons = 0
    private let caller: Caller

    /// Who takes the delta.
    package enum Caller: Sendable {
        /// May do everything; all sources are compared, and the layer is applied.
        case root
        /// May not ask btrfs (`dropSystemAdministration`), so that `auto` must walk. The oracle sees what this caller
        /// sees: no `trusted.*` attributes.
        case unprivileged

        var sources: [DeltaSource] {
            switch self {
            case .root: [.walk, .search, .stream, .auto]
            case .unprivileged: [.auto]
            }
        }
    }

    package init(caller: Caller = .root) { self.caller = caller }

    /// Nil if all holds; else what does not.
    package func check(_ old: FileDescriptor, _ new: FileDescriptor, _ pair: HistoryPair) throws -> String? {
        let expected = try Oracle.findings(old: old, new: new)
        var changes: [Change] = []
        // The first one is asked while data may still be in memory alone; each has its turn at that.
        let turn =
            caller.sources.isEmpty
            ? 0 : (pair.old + 2 * pair.new + Int(clamping: (pair.seed ?? 0) % 64)) % caller.sources.count
        for source in caller.sources[turn...] + caller.sources[..<turn] {
            let result: DeltaResult
            do {
                result = try Delta.compute(
                    old: DeltaTree(subvolume: old, root: old, isUndisturbed: true),
                    new: DeltaTree(subvolume: new, root: new),
                    source: source)
            } catch LayerError.sourceUnusable(_, let reason) {
                // The kernel's stream may be wrong; the search never is, where the lineage is known.
                if source == .search, pair.lineage == .ancestor {
                    return "the search is not usable: \(reason)"
                }
                if source == .auto || source == .walk { return "\(source) is not usable: \(reason)" }
                unusable["\(source) \(pair.lineage)", default: (0, "")].count += 1
                unusable["\(source) \(pair.lineage)"]?.reason = reason
                continue
            }
            comparisons += 1
            if caller == .unprivileged, result.source != .walk {
                return "an unprivileged caller took the source \(result.source)"
            }
            if let disagreement = Self.disagreement(expected, with: result) {
                return "source \(source) (used \(result.source), because \(result.reason)):\n\(disagreement)"
            }
            changes = result.changes
        }
        guard caller == .root else { return nil }
        // The old tree as it was written down, in place of the tree.
        let record = try RecordedTree(decoding: RecordedTree.scan(old).encoded)
        let recorded = try Delta.compute(old: record, new: new)
        if let disagreement = Self.disagreement(expected, with: recorded) {
            return "from a record:\n\(disagreement)"
        }
        return try layer(changes, old, new, pair)
    }

    /// What is in a directory whose path no layer can hold is not looked for, and the result says so.
    private static func disagreement(_ expected: [OracleFinding], with result: DeltaResult) -> String? {
        let changes = result.changes.map(OracleChange.init)
        guard let tooDeep = result.tooDeep else { return Oracle.disagreement(expected, with: changes) }
        // Or it is another name of a linked file that is looked at.
        guard tooDeep.count > pathLimit else { return "\(tooDeep) is said to be too deep" }
        return Oracle.disagreement(
            expected.filter { $0.change.path.count <= pathLimit },
            with: changes.filter { $0.path.count <= pathLimit })
    }

    /// PATH_MAX, less the closing NUL and the slash at the end of a directory's entry.
    private static let pathLimit = 4_094

    private func layer(
        _ changes: [Change], _ old: FileDescriptor, _ new: FileDescriptor, _ pair: HistoryPair
    ) throws -> String? {
        let archive = MemoryArchive()
        do {
            try LayerPacker(root: new).pack(changes, to: TarWriter(archive))
        } catch LayerError.unrepresentable {
            return nil
        }
        return try pair.withWritableSnapshot(of: old) { copy in
            // What was a nested subvolume is an empty directory in the copy, which nothing can be put into; it is in no
            // tree, and so not in the way.
            for change in changes where change.kind == .added && change.path.count < 4096 {
                guard
                    let parent = try? copy.openDirectory(
                        change.path.parent.isEmpty ? .current : change.path.parent),
                    let there = try parent.fd.statusIfPresent(of: change.path.lastComponent),
                    there.isDirectory,
                    there.inode == 2
                else { continue }
                let times = try parent.fd.status()
                try parent.fd.removeDirectory(change.path.lastComponent)
                try parent.fd.setTimes(access: times.accessTime, modification: times.modificationTime)
            }
            try LayerApplier(root: copy, isBottom: false).apply(archive.reader())
            let differences = try TreeCompare.differences(new, copy)
            if differences.isEmpty { return nil }
            return
                "the layer does not give the new tree:\n\(differences.joined(separator: "\n"))\nwith the changes:\n"
                + changes.map { "\($0.kind) \($0.path)" }.joined(separator: "\n")
        }
    }
}

extension OracleChange {
    package init(_ change: Change) {
        let kind: Kind =
            switch change.kind {
            case .added: .added
            case .modified: .modified
            case .deleted: .deleted
            }
        self.init(kind, change.path, change.type)
    }
}
