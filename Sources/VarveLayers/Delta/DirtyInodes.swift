import VarveBtrfs
import VarveSystem

/// Which inodes of the new tree may differ from the old one, and the way down to each from the root.
struct DirtyInodes: Sendable {
    /// A superset of the inodes that differ. An inode that is in both trees and not in here is the same in both.
    let inodes: Set<UInt64>
    /// For each directory above a dirty inode, the names in it that lead on.
    private(set) var leads: [UInt64: Set<BytePath>] = [:]

    /// - Parameter names: every name of an inode in the new tree; none if it has no name there.
    init(_ inodes: Set<UInt64>, names: (UInt64) throws -> [InodeName]) throws {
        self.inodes = inodes
        var pending = Array(inodes)
        var climbed = inodes
        while let inode = pending.popLast() {
            for name in try names(inode) {
                leads[name.parent, default: []].insert(name.name)
                if climbed.insert(name.parent).inserted { pending.append(name.parent) }
            }
        }
    }

    func contains(_ inode: UInt64) -> Bool { inodes.contains(inode) }
}
