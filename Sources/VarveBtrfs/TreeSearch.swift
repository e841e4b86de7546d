import CBtrfs
import Glibc
import VarveSystem
package import SystemPackage

/// Reads the items of a subvolume's tree (`BTRFS_IOC_TREE_SEARCH_V2`). Needs `CAP_SYS_ADMIN` in the first user namespace.
///
/// It sees the tree in memory, so data that was written but not yet given an extent is not in it: search read-only
/// snapshots, or after a synchronization.
@safe package struct TreeSearch: ~Copyable {
    /// An item is smaller than a node, which has at most 64 KiB (`BTRFS_MAX_METADATA_BLOCKSIZE`); any of them fits.
    private static let leastBufferSize = 66 << 10
    /// Below 16 MiB, which the kernel allows at most.
    package static let defaultBufferSize = 256 << 10
    /// `BTRFS_FIRST_FREE_OBJECTID` and `BTRFS_LAST_FREE_OBJECTID`: the inodes of a subvolume.
    package static let firstInode: UInt64 = 256
    package static let lastInode = UInt64.max - 255

    let descriptor: FileDescriptor
    private let buffer: UnsafeMutableRawBufferPointer

    /// Searches the subvolume in which `descriptor` lies; it must stay open. The buffer, in bytes, is made once.
    package init(_ descriptor: FileDescriptor, bufferSize: Int = defaultBufferSize) {
        self.descriptor = descriptor
        unsafe buffer = UnsafeMutableRawBufferPointer.allocate(
            byteCount: min(max(bufferSize, Self.leastBufferSize), 16 << 20), alignment: 16)
    }

    deinit { unsafe buffer.deallocate() }

    // MARK: Questions

    /// Calls `body` with every inode whose item was changed by transaction `transaction` or a later one, in ascending
    /// order of inode number.
    ///
    /// The kernel skips leaves whose generation is lower (`min_transid`); of the others, each item's own `transid`
    /// decides. For the changes since a snapshot, give its `originTransaction`: what was written in that transaction
    /// after it carries the same number, so the comparison is "at least".
    ///
    /// - Parameters:
    ///   - onSubvolume: called for each name of a subvolume, or of its stub in a snapshot, that was made since then; for
    ///     some older ones too.
    ///   - onProperty: called for such an inode that has a property of btrfs (the attribute `btrfs.compression`), once or more.
    package mutating func forEachInode(
        changedSince transaction: UInt64, onSubvolume: () -> Void = {},
        onProperty: (InodeItem) -> Void = { _ in }, _ body: (InodeItem) -> Void
    ) throws(BtrfsError) {
        try forEachInodeWithNames(
            changedSince: transaction, onSubvolume: onSubvolume, onProperty: onProperty
        ) { inode, _ in
            body(inode)
        }
    }

    /// Each inode that changed, with the names that lie beside its item in the leaves that are read anyway. They are all of its
    /// names if there are as many as its link count says (1 for a directory); else some may be missing, and
    /// `names(ofInode:)` has them.
    package mutating func forEachInodeWithNames(
        changedSince transaction: UInt64, onSubvolume: () -> Void = {},
        onProperty: (InodeItem) -> Void = { _ in }, _ body: (InodeItem, [InodeName]) -> Void
    ) throws(BtrfsError) {
        var current: InodeItem?
        var names = [InodeName]()
        let range = Range(
            first: Key(object: Self.firstInode, type: ItemType.inode, offset: 0),
            last: Key(object: Self.lastInode, type: ItemType.inode, offset: .max),
            minimumTransaction: transaction)
        try search(range) { item throws(BtrfsError) in
            switch item.key.type {
            case ItemType.inode:
                if let done = current { body(done, names) }
                names.removeAll(keepingCapacity: true)
                let inode = try item.inode(for: descriptor)
                current = inode.transaction >= transaction ? inode : nil
            case ItemType.inodeReference, ItemType.inodeExtendedReference:
                if current?.inode == item.key.object { try item.appendNames(to: &names, for: descriptor) }
            case ItemType.extendedAttribute:
                if let current, current.inode == item.key.object, try item.holdsProperty(for: descriptor) {
                    onProperty(current)
                }
            case ItemType.directoryIndex:
                if try item.namesSubvolume(for: descriptor) { onSubvolume() }
            default:
                break
            }
            return true
        }
        if let done = current { body(done, names) }
    }

    /// The inode's item; nil if the subvolume has no such inode.
    package mutating func inodeItem(_ inode: UInt64) throws(BtrfsError) -> InodeItem? {
        var result: InodeItem?
        let key = Key(object: inode, type: ItemType.inode, offset: 0)
        try search(Range(first: key, last: key)) { item throws(BtrfsError) in
            result = try item.inode(for: descriptor)
            return false
        }
        return result
    }

    /// Every name of an inode, however many: its `INODE_REF` and `INODE_EXTREF` items. Empty if there is no such inode;
    /// the root has the one name `..` in itself, which is left out.
    package mutating func names(ofInode inode: UInt64) throws(BtrfsError) -> [InodeName] {
        var result = [InodeName]()
        let range = Range(
            first: Key(object: inode, type: ItemType.inodeReference, offset: 0),
            last: Key(object: inode, type: ItemType.inodeExtendedReference, offset: .max))
        try search(range) { item throws(BtrfsError) in
            try item.appendNames(to: &result, for: descriptor)
            return true
        }
        return result
    }

    /// The extents of a file in ascending order of offset. Ranges without one, and those whose `diskStart` is 0, are
    /// holes.
    package mutating func fileExtents(ofInode inode: UInt64) throws(BtrfsError) -> [FileExtent] {
        var result = [FileExtent]()
        let range = Range(
            first: Key(object: inode, type: ItemType.extentData, offset: 0),
            last: Key(object: inode, type: ItemType.extentData, offset: .max))
        try search(range) { item throws(BtrfsError) in
            result.append(try item.fileExtent(for: descriptor))
            return true
        }
        return result
    }

    /// Whether the tree of roots still has a subvolume with this id, deleted or not.
    mutating func hasSubvolume(_ id: UInt64) throws(BtrfsError) -> Bool {
        var found = false
        let range = Range(
            tree: Self.rootTree, first: Key(object: id, type: ItemType.root, offset: 0),
            last: Key(object: id, type: ItemType.root, offset: .max))
        try search(range) { _ throws(BtrfsError) in
            found = true
            return false
        }
        return found
    }

    // MARK: The search

    struct Range {
        var tree: UInt64 = 0
        var first: Key
        var last: Key
        var minimumTransaction: UInt64 = 0
    }

    /// Calls `body` with each item until it returns false.
    func search(
        _ range: Range, _ body: (SearchItem) throws(BtrfsError) -> Bool
    ) throws(BtrfsError) {
        var first = range.first
        while true {
            var raw = varve_search_range(
                tree: range.tree, first_object: first.object, first_offset: first.offset,
                last_object: range.last.object, last_offset: range.last.offset,
                min_transid: range.minimumTransaction, first_type: first.type, last_type: range.last.type)
            let count = unsafe varve_btrfs_tree_search(
                descriptor.rawValue, &raw, buffer.baseAddress, buffer.count)
            guard count >= 0 else { throw BtrfsError(.search, descriptor, errno: Errno(rawValue: errno)) }
            if count == 0 { return }
            var position = VARVE_SEARCH_ITEMS
            var last = first
            for _ in 0..<count {
                let item = try unsafe SearchItem(
                    UnsafeRawBufferPointer(buffer), at: &position, for: descriptor)
                last = item.key
                guard try body(item) else { return }
            }
            guard let next = last.next, next <= range.last, last >= first else { return }
            first = next
        }
    }
}

/// The key of an item; the tree is in its order.
struct Key: Comparable {
    var object: UInt64
    var type: UInt32
    var offset: UInt64

    static func < (left: Key, right: Key) -> Bool {
        (left.object, left.type, left.offset) < (right.object, right.type, right.offset)
    }

    /// The least key above this one; a type has eight bits.
    var next: Key? {
        if offset < .max { return Key(object: object, type: type, offset: offset + 1) }
        if type < 255 { return Key(object: object, type: type + 1, offset: 0) }
        if object < .max { return Key(object: object + 1, type: 0, offset: 0) }
        return nil
    }
}

/// `BTRFS_*_KEY` of linux/btrfs_tree.h.
enum ItemType {
    static let inode: UInt32 = 1
    static let inodeReference: UInt32 = 12
    static let inodeExtendedReference: UInt32 = 13
    static let extendedAttribute: UInt32 = 24
    static let directoryIndex: UInt32 = 96
    static let extentData: UInt32 = 108
    static let root: UInt32 = 132
    static let quotaStatus: UInt32 = 240
    static let quotaInfo: UInt32 = 242
}
