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

    /// A name in the new tree that no layer can hold, which is not among the paths.
    var tooDeep: BytePath? { newPaths.tooDeep ?? oldPaths.tooDeep }

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
    private enum Place {
        case path(BytePath)
        /// No layer can hold its path.
        case tooDeep
        /// It is not below the root.
        case outside
    }

    private var search: TreeSearch
    private let root: UInt64
    /// Directories on the way.
    private var directories: [UInt64: Place]
    private let onEntry: () throws -> Void
    /// The first name in a directory that lies too deep.
    private(set) var tooDeep: BytePath?

    init(_ tree: DeltaTree, _ onEntry: @escaping () throws -> Void) throws {
        self.onEntry = onEntry
        search = TreeSearch(tree.subvolume)
        let status = try attempt("look at", .current) { () throws(Errno) in try tree.root.status() }
        root = status.inode
        directories = [root: .path(.empty)]
    }

    func paths(of inode: UInt64) throws -> [BytePath] {
        var result: [BytePath] = []
        for name in try search.names(ofInode: inode) {
            if let directory = try directory(name.parent, of: name.name) {
                result.append(directory.appending(name.name))
            }
        }
        return result
    }

    /// A directory has one name; climbs until one is known. Whoever runs a container can give a file that has a name near the root another one at any
    /// depth: of what lies too deep for a layer no path is kept but one.
    ///
    /// - Parameter file: what the directory is asked for.
    /// - Returns: nil for one that is not below the root, or too deep.
    private func directory(_ inode: UInt64, of file: BytePath) throws -> BytePath? {
        var climbed: [(inode: UInt64, name: BytePath)] = []
        var current = inode
        var base = Place.outside
        while true {
            if let known = directories[current] {
                base = known
                break
            }
            // The root of the subvolume names itself "..", and is not below the tree's root.
            guard current != TreeSearch.firstInode, let name = try search.names(ofInode: current).first else {
                break
            }
            try onEntry()
            climbed.append((current, name.name))
            current = name.parent
        }
        for (index, step) in climbed.enumerated().reversed() {
            if case .path(let above) = base {
                base = .path(above.appending(step.name))
                if above.count + 1 + step.name.count > LayerPacker.pathLimit {
                    base = .tooDeep
                    let rest = climbed[...index].reversed().map(\.name)
                    if tooDeep == nil { tooDeep = BytePath(joining: [above] + rest + [file]) }
                }
            }
            directories[step.inode] = base
        }
        if case .path(let path) = base { return path }
        return nil
    }
}
