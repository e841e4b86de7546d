import Glibc
package import VarveSystem
import SystemPackage

/// A subvolume as the tree of roots has it (`struct btrfs_root_item`), wherever it lies and whether or not it can be
/// reached through a mount.
package struct SubvolumeRoot: Hashable, Sendable {
    package var id: UInt64
    package var uuid: SubvolumeUUID
    /// The subvolume of which it was a snapshot when it was made; nil if it was none.
    package var parentUUID: SubvolumeUUID?
    package var isReadOnly: Bool
    /// Nothing names it any more, and the cleaner has not freed it yet.
    package var isDeleted: Bool
}

extension TreeSearch {
    static let rootTree: UInt64 = 1

    /// All subvolumes of the file system but the top level, in ascending order of id.
    package mutating func subvolumes() throws(BtrfsError) -> [SubvolumeRoot] {
        var result: [SubvolumeRoot] = []
        let range = Range(
            tree: Self.rootTree, first: Key(object: Self.firstInode, type: ItemType.root, offset: 0),
            last: Key(object: Self.lastInode, type: ItemType.root, offset: .max))
        try search(range) { item throws(BtrfsError) in
            if item.key.type == ItemType.root {
                result.append(try item.subvolumeRoot(for: descriptor))
            }
            return true
        }
        return result
    }

    /// An extended attribute of the root directory of any subvolume; nil if it has none, or is gone.
    package mutating func rootAttribute(_ name: BytePath, ofSubvolume id: UInt64) throws(BtrfsError)
        -> [UInt8]?
    {
        try rootItem(ItemType.extendedAttribute, of: id) { (item, fd) throws(BtrfsError) in
            try item.attribute(name, for: fd)
        }
    }

    /// Whose the root directory of any subvolume is; nil if it is gone.
    package mutating func rootOwner(ofSubvolume id: UInt64) throws(BtrfsError) -> UInt32? {
        try rootItem(ItemType.inode, of: id) { (item, fd) throws(BtrfsError) in try item.inode(for: fd).uid }
    }

    /// The first that `value` gives for an item of one type of the root directory of a subvolume.
    private mutating func rootItem<R>(
        _ type: UInt32, of id: UInt64, _ value: (SearchItem, FileDescriptor) throws(BtrfsError) -> R?
    ) throws(BtrfsError) -> R? {
        var result: R?
        let range = Range(
            tree: id, first: Key(object: Self.firstInode, type: type, offset: 0),
            last: Key(object: Self.firstInode, type: type, offset: .max))
        do throws(BtrfsError) {
            try search(range) { item throws(BtrfsError) in
                result = try value(item, descriptor)
                return result == nil
            }
        } catch {
            if error.errno == .noSuchFileOrDirectory { return nil }
            throw error
        }
        return result
    }

    /// Whether any inode of the subvolume was changed by a transaction later than `transaction`. Leaves that are older are
    /// not read, so it costs next to nothing where nothing was changed, unless a balance has moved the tree since.
    package mutating func hasInode(changedAfter transaction: UInt64) throws(BtrfsError) -> Bool {
        var found = false
        let range = Range(
            first: Key(object: Self.firstInode, type: ItemType.inode, offset: 0),
            last: Key(object: Self.lastInode, type: ItemType.inode, offset: .max),
            minimumTransaction: transaction &+ 1)
        try search(range) { item throws(BtrfsError) in
            if item.key.type == ItemType.inode {
                found = try item.inode(for: descriptor).transaction > transaction
            }
            return !found
        }
        return found
    }

    /// Calls `body` with the place and the length on disk, in bytes, of every extent that a file of the subvolume refers to,
    /// once for each reference; content in the metadata itself has none. A subvolume that is gone has none either.
    package mutating func forEachDataExtent(
        ofSubvolume id: UInt64, _ body: (_ start: UInt64, _ length: UInt64) throws(BtrfsError) -> Void
    ) throws(BtrfsError) {
        let range = Range(
            tree: id, first: Key(object: Self.firstInode, type: ItemType.extentData, offset: 0),
            last: Key(object: Self.lastInode, type: ItemType.extentData, offset: .max))
        do throws(BtrfsError) {
            try search(range) { item throws(BtrfsError) in
                if item.key.type == ItemType.extentData,
                    let extent = try item.diskExtent(for: descriptor)
                {
                    try body(extent.start, extent.length)
                }
                return true
            }
        } catch {
            if error.errno != .noSuchFileOrDirectory { throw error }
        }
    }
}

extension TreeSearch {
    /// Calls `body` with each extent of a file of the subvolume that transaction `since` or a later one made: its place on disk (nil for
    /// content in the metadata itself) and its length there, in bytes, once for each reference. Leaves that are older are not
    /// read.
    package mutating func forEachNewExtent(
        since transaction: UInt64, _ body: (_ start: UInt64?, _ length: UInt64) -> Void
    ) throws(BtrfsError) {
        let range = Range(
            first: Key(object: Self.firstInode, type: ItemType.extentData, offset: 0),
            last: Key(object: Self.lastInode, type: ItemType.extentData, offset: .max),
            minimumTransaction: transaction)
        try search(range) { item throws(BtrfsError) in
            guard item.key.type == ItemType.extentData else { return true }
            let (generation, inlineLength) = try item.extentOrigin(for: descriptor)
            if generation < transaction { return true }
            if let inlineLength {
                body(nil, inlineLength)
            } else if let extent = try item.diskExtent(for: descriptor) {
                body(extent.start, extent.length)
            }
            return true
        }
    }
}

extension SearchItem {
    /// The transaction that made the extent, and the bytes of content that lies in the item itself; nil for any other.
    func extentOrigin(for descriptor: FileDescriptor) throws(BtrfsError) -> (
        generation: UInt64, inlineLength: UInt64?
    ) {
        guard unsafe bytes.count >= 21 else { throw Self.damaged(descriptor) }
        // BTRFS_FILE_EXTENT_INLINE
        let isInline = load(20, as: UInt8.self) == 0
        return unsafe (load(0), isInline ? UInt64(bytes.count - 21) : nil)
    }

    func subvolumeRoot(for descriptor: FileDescriptor) throws(BtrfsError) -> SubvolumeRoot {
        // Items of before Linux 3.6 end before the UUIDs.
        let hasUUID = unsafe bytes.count >= 279
        guard unsafe bytes.count >= 220 else { throw Self.damaged(descriptor) }
        func uuid(_ offset: Int) -> SubvolumeUUID {
            guard hasUUID else { return .zero }
            return unsafe SubvolumeUUID(UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + 16)]))
                ?? .zero
        }
        let parent = uuid(263)
        return SubvolumeRoot(
            id: key.object, uuid: uuid(247), parentUUID: parent.isZero ? nil : parent,
            isReadOnly: load(208, as: UInt64.self) & 1 != 0, isDeleted: load(216, as: UInt32.self) == 0)
    }

    /// The value of an attribute; nil if the item does not have it.
    func attribute(_ name: BytePath, for descriptor: FileDescriptor) throws(BtrfsError) -> [UInt8]? {
        guard key.type == ItemType.extendedAttribute,
            let found = try firstAttribute(
                for: descriptor, where: { unsafe bytes[$0].elementsEqual(name.bytes) })
        else { return nil }
        return unsafe Array(bytes[found.value])
    }

    /// Nil for a hole and for content in the metadata.
    func diskExtent(for descriptor: FileDescriptor) throws(BtrfsError) -> (start: UInt64, length: UInt64)? {
        guard unsafe bytes.count >= 21 else { throw Self.damaged(descriptor) }
        // BTRFS_FILE_EXTENT_INLINE
        if load(20, as: UInt8.self) == 0 { return nil }
        guard unsafe bytes.count >= 53 else { throw Self.damaged(descriptor) }
        let start = load(21, as: UInt64.self)
        return start == 0 ? nil : (start, load(29))
    }
}
