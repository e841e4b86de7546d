import VarveSystem

/// A file of a tree. In a stacked tree, files of several file systems may have one inode number.
struct FileIdentity: Hashable {
    let device: UInt64
    let inode: UInt64

    init(_ status: FileStatus) {
        device = status.device
        inode = status.inode
    }
}

/// What the walk met of files with several names, and which more paths of the delta follow from it.
///
/// The names of a file are a group, and a layer carries it whole or not at all (Docs/delta.md, "Hard links"). It does if
/// 1. one of the names is added or modified;
/// 2. two of the names were different files in the old tree;
/// 3. a name was linked in the old tree to one that is still there but in another group now, and neither group is
///    carried for the first two reasons.
struct HardLinks {
    /// Inodes of the new tree whose groups must be looked at.
    private(set) var inodes: Set<FileIdentity> = []
    /// The names met of each inode of the new tree that has several.
    private(set) var namesInNew: [FileIdentity: [BytePath]] = [:]
    /// For paths that are a file, not a directory, in both trees, and linked in one of them.
    private(set) var pairs: [BytePath: (old: FileIdentity, new: FileIdentity)] = [:]
    private(set) var namesInOld: [FileIdentity: [BytePath]] = [:]

    mutating func noteNew(_ path: BytePath, _ status: FileStatus) {
        let inode = FileIdentity(status)
        inodes.insert(inode)
        namesInNew[inode, default: []].append(path)
    }

    mutating func notePair(_ path: BytePath, old: FileStatus, new: FileStatus) {
        let (before, after) = (FileIdentity(old), FileIdentity(new))
        pairs[path] = (before, after)
        namesInOld[before, default: []].append(path)
        if inodes.insert(after).inserted, new.linkCount == 1 { namesInNew[after] = [path] }
    }

    /// Takes what another thread of the same walk has met; each name was met once.
    mutating func merge(_ other: HardLinks) {
        inodes.formUnion(other.inodes)
        namesInNew.merge(other.namesInNew) { $0 + $1 }
        namesInOld.merge(other.namesInOld) { $0 + $1 }
        pairs.merge(other.pairs) { mine, _ in mine }
    }
}

/// Where the names of linked files come from.
protocol LinkNames {
    /// All paths of an inode in the new tree.
    func paths(inNew inode: FileIdentity) throws -> [BytePath]
    /// All paths of an inode in the old tree, at least those that the new tree has too.
    func paths(inOld inode: FileIdentity) throws -> [BytePath]
    /// The file, not a directory, that the old tree has at a path.
    func inode(inOld path: BytePath) throws -> FileIdentity?
    /// The file, not a directory, that the new tree has at a path.
    func inode(inNew path: BytePath) throws -> FileIdentity?
}

/// After a whole walk, everything there is to know has been met.
struct WalkedLinkNames: LinkNames {
    let links: HardLinks
    func paths(inNew inode: FileIdentity) -> [BytePath] { links.namesInNew[inode] ?? [] }
    func paths(inOld inode: FileIdentity) -> [BytePath] { links.namesInOld[inode] ?? [] }
    func inode(inOld path: BytePath) -> FileIdentity? { links.pairs[path]?.old }
    func inode(inNew path: BytePath) -> FileIdentity? { links.pairs[path]?.new }
}

extension HardLinks {
    /// Adds to `changes` the paths that follow from the rules. `type` gives the type of a path of the new tree.
    func complete(
        _ changes: inout [BytePath: Change], names: some LinkNames,
        type: (BytePath) throws -> VarveSystem.FileType
    ) throws {
        let found = changes
        var groups: [FileIdentity: LinkGroup] = [:]
        func group(_ inode: FileIdentity) throws -> LinkGroup {
            if let known = groups[inode] { return known }
            let made = try LinkGroup(inode, names, changes: found)
            groups[inode] = made
            return made
        }
        var carried: Set<FileIdentity> = []
        // The files of the old tree whose names are looked through: each once, however many groups it fell apart into.
        var olds: Set<FileIdentity> = []
        for inode in inodes {
            let mine = try group(inode)
            if mine.isCarried { carried.insert(inode) } else { olds.formUnion(mine.oldInodes) }
        }
        for old in olds {
            var parted: Set<FileIdentity> = []
            for path in try names.paths(inOld: old) {
                guard let inode = try names.inode(inNew: path), try !group(inode).isCarried else { continue }
                parted.insert(inode)
            }
            // Nothing else in the layer would part them.
            if parted.count > 1 { carried.formUnion(parted) }
        }
        for inode in carried {
            for path in try group(inode).members where changes[path] == nil {
                changes[path] = Change(kind: .modified, path: path, type: try type(path))
            }
        }
    }
}

/// All names of one file of the new tree.
private struct LinkGroup {
    let members: Set<BytePath>
    /// The files that the old tree has under those names.
    let oldInodes: Set<FileIdentity>
    /// The layer has the group for the first two rules.
    let isCarried: Bool

    init(_ inode: FileIdentity, _ names: some LinkNames, changes: [BytePath: Change]) throws {
        members = Set(try names.paths(inNew: inode))
        var olds: Set<FileIdentity> = []
        for path in members {
            if let old = try names.inode(inOld: path) { olds.insert(old) }
        }
        oldInodes = olds
        isCarried =
            olds.count > 1
            || members.contains { path in
                if let change = changes[path] { change.kind != .deleted } else { false }
            }
    }
}
