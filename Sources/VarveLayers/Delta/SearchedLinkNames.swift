import VarveBtrfs
import VarveSystem
import SystemPackage

/// The names of linked files, found by their back references (INODE_REF, INODE_EXTREF) in the trees' metadata.
final class SearchedLinkNames: LinkNames {
    private let oldTree: ComparedTree
    private let newTree: ComparedTree
    private let oldPaths: InodePaths
    private let newPaths: InodePaths

    /// - Parameter onEntry: called for each directory on the way to a name; throws to stop.
    init(
        old: DeltaTree, oldTree: ComparedTree, new: DeltaTree, newTree: ComparedTree,
        onEntry: @escaping () throws -> Void
    ) throws {
        self.oldTree = oldTree
        self.newTree = newTree
        oldPaths = try InodePaths(old, onEntry)
        newPaths = try InodePaths(new, onEntry)
    }

    // Nothing of another device is part of such a tree.
    func paths(inNew inode: FileIdentity) throws -> [BytePath] { try newPaths.paths(of: inode.inode) }
    func paths(inOld inode: FileIdentity) throws -> [BytePath] { try oldPaths.paths(of: inode.inode) }
    func inode(inOld path: BytePath) throws -> FileIdentity? { try file(at: path, in: oldTree) }
    func inode(inNew path: BytePath) throws -> FileIdentity? { try file(at: path, in: newTree) }

    private func file(at path: BytePath, in tree: ComparedTree) throws -> FileIdentity? {
        guard let status = try tree.status(at: path), !status.isDirectory else { return nil }
        return FileIdentity(status)
    }
}

/// The paths of inodes below the root of a tree.
private final class InodePaths {
    private var search: TreeSearch
    private let root: UInt64
    /// Directories on the way, nil for those that are not below the root.
    private var directories: [UInt64: BytePath?]

    private let onEntry: () throws -> Void

    init(_ tree: DeltaTree, _ onEntry: @escaping () throws -> Void) throws {
        self.onEntry = onEntry
        search = TreeSearch(tree.subvolume)
        let status = try attempt("look at", .current) { () throws(Errno) in try tree.root.status() }
        root = status.inode
        directories = [root: .some(.empty)]
    }

    func paths(of inode: UInt64) throws -> [BytePath] {
        var result: [BytePath] = []
        for name in try search.names(ofInode: inode) {
            if let directory = try directory(name.parent) { result.append(directory.appending(name.name)) }
        }
        return result
    }

    /// A directory has one name; climbs until one is known. Whoever runs a container can give a file that has a name near the root another one at any
    /// depth: all paths on the way there would together grow with the square of it.
    ///
    /// - Throws: `LayerError.unrepresentable` for one whose path no layer can hold.
    private func directory(_ inode: UInt64) throws -> BytePath? {
        var climbed: [InodeNameBelow] = []
        var current = inode
        var base: BytePath?
        var length = 0
        while true {
            if let known = directories[current] {
                base = known
                break
            }
            // The root of the subvolume names itself "..", and is not below the tree's root.
            guard current != TreeSearch.firstInode, let name = try search.names(ofInode: current).first else {
                base = nil
                break
            }
            try onEntry()
            climbed.append(InodeNameBelow(inode: current, name: name.name))
            length += name.name.count + 1
            try require(length, climbed)
            current = name.parent
        }
        if let base { try require(base.count + length, climbed) }
        for step in climbed.reversed() {
            base = base?.appending(step.name)
            directories[step.inode] = .some(base)
        }
        return base
    }

    /// - Parameters:
    ///   - length: of the path at least, with a slash for each name.
    ///   - climbed: the last names of it, from the end.
    private func require(_ length: Int, _ climbed: [InodeNameBelow]) throws(LayerError) {
        guard length > LayerPacker.pathLimit + 1 else { return }
        let names = climbed.reversed().map(\.name)
        throw LayerPacker.tooLong(BytePath(joining: names), in: length)
    }

    private struct InodeNameBelow {
        var inode: UInt64
        var name: BytePath
    }
}
