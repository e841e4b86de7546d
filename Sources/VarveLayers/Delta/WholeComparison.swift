import VarveSystem
package import SystemPackage

extension Delta {
    /// Compares two trees whole, on whatever file systems they lie: nothing is asked of btrfs, and everything is read.
    ///
    /// - Parameter onEntry: called for each entry looked at, by any of the walk's threads; throws to stop.
    package static func compareWhole(
        old: FileDescriptor, new: FileDescriptor, onEntry: @escaping @Sendable () throws -> Void = {}
    ) throws -> DeltaResult {
        let oldTree = try ComparedTree(root: old)
        let newTree = try ComparedTree(root: new)
        let findings = try PairedWalk(old: oldTree, new: newTree, dirty: nil, trust: .none, onEntry: onEntry)
            .run(threads: walkThreads) {
                let content = ContentComparison(
                    equalExtents: nil, isStopped: { (try? onEntry()) == nil })
                return FileComparison(oldTree, content: content.differs)
            }
        var changes = findings.changes
        try findings.links.complete(&changes, names: WalkedLinkNames(links: findings.links)) { path in
            try newTree.status(at: path)?.type ?? .regular
        }
        return DeltaResult(changes, findings, source: .walk, reason: "both trees were read")
    }
}
