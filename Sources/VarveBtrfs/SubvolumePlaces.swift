package import VarveSystem
import SystemPackage

extension TreeSearch {
    /// `BTRFS_FS_TREE_OBJECTID`, the subvolume that all others lie below.
    package static let topLevel: UInt64 = 5
    /// `BTRFS_ROOT_TREE_DIR_OBJECTID`, in the tree of roots, and `BTRFS_DIR_ITEM_KEY`.
    private static let rootDirectory: UInt64 = 6
    private static let directoryItem: UInt32 = 84
    /// `BTRFS_ROOT_BACKREF_KEY`: in the tree of roots, where a subvolume lies.
    private static let rootBackReference: UInt32 = 144
    /// `BTRFS_ROOT_REF_KEY`: in the tree of roots, what lies in a subvolume.
    private static let rootReference: UInt32 = 156
    /// A file system that is damaged may go round in circles.
    private static let depthLimit = 10_000

    /// The names that lead from the top level of the file system to a directory of a subvolume, by default to its root;
    /// nil if it is gone. It does not matter what is mounted where.
    package mutating func names(
        toSubvolume id: UInt64, directory: UInt64 = TreeSearch.firstInode
    ) throws(BtrfsError) -> [BytePath]? {
        var ways = SubvolumeWays()
        return try names(toSubvolume: id, directory: directory, &ways) ?? nil
    }

    /// The same for many subvolumes, of which one user may have very many in each other: each directory on a way is looked up once.
    ///
    /// - Parameters:
    ///   - ways: what earlier calls have looked up.
    ///   - limit: bytes of the names, with a slash for each.
    /// - Returns: nil for a subvolume that is gone; an empty optional in it above the limit.
    package mutating func names(
        toSubvolume id: UInt64, directory: UInt64 = TreeSearch.firstInode, _ ways: inout SubvolumeWays,
        limit: Int = .max
    ) throws(BtrfsError) -> [BytePath]?? {
        var names: [BytePath] = []
        var bytes = 0
        var here = SubvolumeWays.Directory(tree: id, inode: directory)
        while here != SubvolumeWays.Directory(tree: Self.topLevel, inode: Self.firstInode) {
            if ways.steps[here] == nil { ways.steps[here] = try step(from: here) }
            guard let step = ways.steps[here] else { return nil }
            bytes += step.name.count + 1
            if bytes > limit { return .some(nil) }
            guard names.count < Self.depthLimit else { return nil }
            names.append(step.name)
            here = step.above
        }
        return .some(names.reversed())
    }

    private mutating func step(from here: SubvolumeWays.Directory) throws(BtrfsError) -> SubvolumeWays.Step? {
        if here.inode == Self.firstInode {
            guard let place = try place(ofSubvolume: here.tree) else { return nil }
            return SubvolumeWays.Step(
                name: place.name,
                above: SubvolumeWays.Directory(tree: place.tree, inode: place.directory))
        }
        guard let place = try place(ofDirectory: here.inode, in: here.tree) else { return nil }
        return SubvolumeWays.Step(
            name: place.name, above: SubvolumeWays.Directory(tree: here.tree, inode: place.parent))
    }

    /// The subvolume that is mounted where a mount names none, which the kernel does not delete (`btrfs_delete_subvolume`,
    /// fs/btrfs/inode.c): the entry `default` of the directory in the tree of roots, a `struct btrfs_dir_item`.
    package mutating func defaultSubvolume() throws(BtrfsError) -> UInt64 {
        var result: UInt64?
        let range = Range(
            tree: Self.rootTree, first: Key(object: Self.rootDirectory, type: Self.directoryItem, offset: 0),
            last: Key(object: Self.rootDirectory, type: Self.directoryItem, offset: .max))
        try search(range) { item throws(BtrfsError) in
            guard item.key.type == Self.directoryItem else { return true }
            let headerSize = 30
            let name = Array("default".utf8)
            guard unsafe item.bytes.count >= headerSize + name.count,
                unsafe item.bytes[headerSize..<(headerSize + name.count)].elementsEqual(name)
            else { return true }
            result = item.load(0)
            return false
        }
        return result ?? Self.topLevel
    }

    /// Where the subvolumes lie that lie directly in a subvolume: directories by their inodes, and names in them.
    package mutating func placesOfSubvolumes(in id: UInt64) throws(BtrfsError) -> [InodeName] {
        var result: [InodeName] = []
        let range = Range(
            tree: Self.rootTree, first: Key(object: id, type: Self.rootReference, offset: 0),
            last: Key(object: id, type: Self.rootReference, offset: .max))
        try search(range) { item throws(BtrfsError) in
            result.append(try item.placeOfRoot(for: descriptor))
            return true
        }
        return result
    }

    /// The parent subvolume is in the key.
    private mutating func place(ofSubvolume id: UInt64) throws(BtrfsError) -> (
        tree: UInt64, directory: UInt64, name: BytePath
    )? {
        var result: (UInt64, UInt64, BytePath)?
        let range = Range(
            tree: Self.rootTree, first: Key(object: id, type: Self.rootBackReference, offset: 0),
            last: Key(object: id, type: Self.rootBackReference, offset: .max))
        try search(range) { item throws(BtrfsError) in
            guard item.key.type == Self.rootBackReference else { return true }
            let place = try item.placeOfRoot(for: descriptor)
            result = (item.key.offset, place.parent, place.name)
            return false
        }
        return result
    }

    private mutating func place(ofDirectory inode: UInt64, in tree: UInt64) throws(BtrfsError) -> InodeName? {
        var names: [InodeName] = []
        let range = Range(
            tree: tree, first: Key(object: inode, type: ItemType.inodeReference, offset: 0),
            last: Key(object: inode, type: ItemType.inodeReference, offset: .max))
        do throws(BtrfsError) {
            try search(range) { item throws(BtrfsError) in
                try item.appendNames(to: &names, for: descriptor)
                return names.isEmpty
            }
        } catch {
            if error.errno == .noSuchFileOrDirectory { return nil }
            throw error
        }
        return names.first
    }
}

/// Where directories of a file system lie, as far as that was looked up.
package struct SubvolumeWays {
    fileprivate struct Directory: Hashable {
        var tree: UInt64
        var inode: UInt64
    }

    fileprivate struct Step {
        var name: BytePath
        var above: Directory
    }

    fileprivate var steps: [Directory: Step] = [:]

    package init() {}
}

extension SearchItem {
    /// `struct btrfs_root_ref`: the directory in which a subvolume lies, and its name there.
    fileprivate func placeOfRoot(for descriptor: FileDescriptor) throws(BtrfsError) -> InodeName {
        let headerSize = 18
        guard unsafe bytes.count >= headerSize else { throw Self.damaged(descriptor) }
        let length = Int(load(16, as: UInt16.self))
        guard unsafe bytes.count - headerSize >= length,
            let name = unsafe BytePath(bytes[headerSize..<(headerSize + length)])
        else { throw Self.damaged(descriptor) }
        return InodeName(parent: load(0), name: name)
    }
}
