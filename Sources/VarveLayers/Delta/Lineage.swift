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

    /// - Parameters:
    ///   - isUndisturbed: nobody worked in what the old tree is a snapshot of while that was taken. Then what that carries on has
    ///     nothing of the snapshot's own transaction that the snapshot has not: btrfs copies it in the commit, which all who write in the
    ///     transaction have ended before (`btrfs_commit_transaction`, fs/btrfs/transaction.c). Else somebody may have
    ///     made another snapshot in it in the same commit, whose name is written to it later in that.
    ///   - lookUp: the subvolume with a UUID, if it still exists and the caller may ask.
    package static func of(
        old: SubvolumeInfo, new: SubvolumeInfo, isUndisturbed: Bool = false,
        lookUp: (SubvolumeUUID) -> SubvolumeInfo?
    ) -> Lineage {
        if old.uuid == new.uuid { return .unrelated(reason: "both are the same subvolume") }
        // The state of what the old tree is a snapshot of, if the old tree still is that state.
        let earlier = old.changeTransaction <= old.originTransaction ? old.parentUUID : nil
        let next = old.originTransaction + (isUndisturbed ? 1 : 0)
        // The new tree itself went on from there, as a bundle does from the chain that was published of it.
        if earlier == new.uuid { return .descends(since: next) }
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
            if parentUUID == earlier, old.originTransaction <= child.originTransaction {
                return .descends(since: next)
            }
            guard seen.insert(parentUUID).inserted, let parent = lookUp(parentUUID) else { break }
            child = parent
        }
        return .unrelated(reason: "the old tree is not known to be an ancestor of the new one")
    }
}
