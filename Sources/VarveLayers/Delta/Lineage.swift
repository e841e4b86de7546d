package import VarveBtrfs
import SystemPackage

/// Whether the new tree's inode numbers are those of the old one, carried on.
///
/// Only then do a send stream and a search by transid say what changed: siblings that both went on give the same
/// numbers to different files.
package enum Lineage {
    /// The new tree is the old one and what happened since; every change has at least this transid.
    case descends(since: UInt64)
    case unrelated(reason: String)

    /// - Parameter lookUp: the subvolume with a UUID, if it still exists and the caller may ask.
    package static func of(
        old: SubvolumeInfo, new: SubvolumeInfo, lookUp: (SubvolumeUUID) -> SubvolumeInfo?
    ) -> Lineage {
        if old.uuid == new.uuid { return .unrelated(reason: "both are the same subvolume") }
        // Up from the new tree: the child is the snapshot through which the state of `parentUUID` was carried on.
        var child = new
        var seen: Set<SubvolumeUUID> = [new.uuid]
        while let parentUUID = child.parentUUID {
            if parentUUID == old.uuid {
                // What was written to the old tree after the snapshot is not in the new one.
                guard old.changeTransaction <= child.originTransaction else {
                    return .unrelated(reason: "the old tree was changed after its snapshot was made")
                }
                return .descends(since: child.originTransaction)
            }
            // The old tree may itself be an earlier snapshot of this ancestor, unchanged since: then the ancestor
            // has carried its state on, as in a row of snapshots of one subvolume.
            if parentUUID == old.parentUUID, old.changeTransaction <= old.originTransaction,
                old.originTransaction <= child.originTransaction
            {
                return .descends(since: old.originTransaction)
            }
            guard seen.insert(parentUUID).inserted, let parent = lookUp(parentUUID) else { break }
            child = parent
        }
        return .unrelated(reason: "the old tree is not known to be an ancestor of the new one")
    }
}
