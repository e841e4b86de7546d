import VarveSystem
package import SystemPackage

/// The difference between two trees by brute force: both are walked in full, everything is compared, nothing
/// is cached, pruned or asked of btrfs. It is what a delta engine has to agree with, and shares nothing with
/// one.
///
/// # What is in a tree
///
/// Every name below the root, and the root itself under the path `.`. Not in a tree, as if they were not
/// there:
///
/// * sockets, which no image can hold. A file that became a socket is deleted, a socket that became a file is
///   added;
/// * nested subvolumes with all below them: a directory with inode 256 and another `st_dev` than the root's,
///   or the empty directory with inode 2 that a snapshot shows in their place;
/// * on request, names that begin with `.wh.`, which a layer reads as whiteouts.
///
/// # When a path differs by itself
///
/// | in the old tree | in the new tree | reported |
/// |---|---|---|
/// | – | there | added; of a new directory every path below it as well |
/// | there | – | deleted; of a deleted directory only its top path |
/// | one type | another | modified. Of an old directory nothing below is reported (it vanishes with it); of a new one every path below is added |
/// | there | same type | modified if one of these differs: the twelve permission bits, uid, gid, mtime to the nanosecond, any xattr but `btrfs.*`, the device number of a device node, the target of a symbolic link, size or any byte of a regular file |
///
/// atime, ctime, inode numbers, extents, link counts, and the size of a directory never count. Of a directory
/// its own metadata counts and its listing does not (which mostly shows in its mtime, but need not). Only
/// paths are compared: a renamed directory is one deletion and one addition for every path in it; two names
/// swapped are two modifications, or none if they were equal.
///
/// # Link groups
///
/// The names of one inode in the new tree are a group, and a group is carried as a whole: a layer that has
/// one of the names has all of them, as an extracted name is a new file that the others must be linked to.
/// Names that are there in both trees and equal by themselves are then reported as modified. A group is
/// carried when
///
/// 1. one of its names is added or differs by itself:
///    old {a, b}, new {a, b} with other content: both modified. Old {a, b}, new {a, b, c}: a and b modified,
///    c added;
/// 2. two of its names were different files in the old tree:
///    old {a}, {b} with equal content and metadata, new {a, b}: both modified;
/// 3. one of its names was linked in the old tree to a name that is still there but now in another group, and
///    neither group is carried for another reason. Nothing else in the layer would part them:
///    old {a, b}, new {a}, {b}, all equal: both modified.
///
/// A link group that lost a name is not carried for that: old {a, b}, new {a}: b is deleted and a is not
/// reported, since the whiteout of b leaves the right tree. Nor is it when the lost name became something
/// else that is reported anyway: old {a, b}, new {a} and another file or directory b: b modified and a not
/// reported.
///
/// Applied to the old tree, a layer with exactly these paths gives the new tree with its links, and leaving
/// any path out of it gives another tree (or, under 3 alone, leaving out one of two).
package enum Oracle {
    /// The changes from the directory `old` to the directory `new`, in the byte order of their paths (so
    /// `a-b` comes before `a/b`, and the root's `.` where a dot belongs).
    package static func delta(
        old: FileDescriptor, new: FileDescriptor, _ options: OracleOptions = OracleOptions()
    ) throws -> [OracleChange] {
        try findings(old: old, new: new, options).map(\.change)
    }

    /// As `delta`, each change with the reasons for it.
    package static func findings(
        old: FileDescriptor, new: FileDescriptor, _ options: OracleOptions = OracleOptions()
    ) throws -> [OracleFinding] {
        let before = try OracleTree(old, options)
        let after = try OracleTree(new, options)

        // Every path of the new tree by itself.
        var reasons = [BytePath: [String]]()
        for (path, node) in after.nodes {
            guard let was = before.nodes[path] else {
                reasons[path] = ["not in the old tree"]
                continue
            }
            var own = node.differences(from: was, options)
            if own.isEmpty, node.status.isRegular, try !OracleTree.contentIsEqual(after, before, path) {
                own.append("content")
            }
            if !own.isEmpty { reasons[path] = own }
        }

        addLinkGroups(to: &reasons, before, after)

        var findings = [OracleFinding]()
        for (path, why) in reasons {
            guard let node = after.nodes[path], let type = node.status.type else { continue }
            let kind = before.nodes[path] == nil ? OracleChange.Kind.added : .modified
            findings.append(OracleFinding(change: OracleChange(kind, path, type), reasons: why))
        }
        for (path, node) in before.nodes where after.nodes[path] == nil {
            // Below a directory that is gone, or is no directory any more, nothing needs to be said.
            let parent = path.parent.isEmpty ? BytePath.current : path.parent
            let parentRemains = parent == .current || after.nodes[parent]?.status.isDirectory == true
            guard parentRemains, let type = node.status.type else { continue }
            findings.append(
                OracleFinding(change: OracleChange(.deleted, path, type), reasons: ["not in the new tree"]))
        }
        return findings.sorted { $0.change.path < $1.change.path }
    }

    /// Adds the names that are carried only for the sake of their group.
    private static func addLinkGroups(
        to reasons: inout [BytePath: [String]], _ before: OracleTree, _ after: OracleTree
    ) {
        let groups = after.linkGroups
        var carried = Set<UInt64>()
        var why = [UInt64: String]()
        for (inode, names) in groups {
            let old = names.compactMap { before.nodes[$0]?.status.inode }
            if let changed = names.filter({ reasons[$0] != nil }).min() {
                // Rule 1.
                carried.insert(inode)
                why[inode] = "linked to \"\(changed)\", which changed"
            } else if Set(old).count > 1 {
                // Rule 2. All names are equal by themselves here, so they were no directories before.
                carried.insert(inode)
                why[inode] = "linked to what was another file"
            }
        }
        // Rule 3: old groups whose remaining names, those that nothing carries so far, are parted now.
        var parted = Set<UInt64>()
        for names in before.linkGroups.values {
            let inodes = Set(names.compactMap { after.nodes[$0]?.status })
                .filter { !$0.isDirectory && !carried.contains($0.inode) }.map(\.inode)
            if Set(inodes).count > 1 { parted.formUnion(inodes) }
        }
        for inode in parted {
            carried.insert(inode)
            why[inode] = "no longer linked to what it was linked to"
        }
        for inode in carried {
            for name in groups[inode] ?? [] where reasons[name] == nil {
                reasons[name] = [why[inode] ?? "link group"]
            }
        }
    }
}
