import VarveBtrfs
import VarveSystem

/// Whether two files share their extents, so that they are equal without being read.
final class ExtentComparison {
    private var old: TreeSearch
    private var new: TreeSearch

    init(old: DeltaTree, new: DeltaTree) {
        self.old = TreeSearch(old.subvolume)
        self.new = TreeSearch(new.subvolume)
    }

    /// False also where it cannot be told: the content is then read.
    func areEqual(_ before: FileStatus, _ after: FileStatus) -> Bool {
        guard let left = try? old.fileExtents(ofInode: before.inode),
            let right = try? new.fileExtents(ofInode: after.inode), left.count == right.count
        else { return false }
        return zip(left, right).allSatisfy { $0.provesEqualContent(with: $1) }
    }
}
