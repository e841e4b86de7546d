import Glibc
package import VarveSystem
import SystemPackage

/// The item of an inode (`struct btrfs_inode_item`).
package struct InodeItem: Hashable, Sendable {
    package var inode: UInt64
    /// The transaction that made the inode: with it, a number that is used again is told apart.
    package var generation: UInt64
    /// The transaction that last changed the item.
    package var transaction: UInt64
    /// Bytes.
    package var size: UInt64
    /// Bytes of storage in use.
    package var allocatedSize: UInt64
    package var linkCount: UInt32
    package var uid: UInt32
    package var gid: UInt32
    /// Type and permission bits.
    package var mode: UInt32
    package var device: UInt64
    package var flags: UInt64
    package var sequence: UInt64
    package var accessTime: Timestamp
    package var changeTime: Timestamp
    package var modificationTime: Timestamp
    package var originTime: Timestamp

    package var type: VarveSystem.FileType? { VarveSystem.FileType(rawValue: mode & 0o170000) }
}

/// One name of an inode: the inode number of the directory, and the name in it.
package struct InodeName: Hashable, Sendable {
    package var parent: UInt64
    package var name: BytePath

    package init(parent: UInt64, name: BytePath) {
        self.parent = parent
        self.name = name
    }
}

/// One extent of a file (`struct btrfs_file_extent_item`).
package struct FileExtent: Hashable, Sendable {
    package enum Storage: Hashable, Sendable {
        /// The bytes, as they are stored, in the metadata.
        case inline([UInt8])
        /// `length` bytes from `offset` of the (unpacked) extent at `diskStart` of `diskLength` bytes; a hole if
        /// `diskStart` is 0.
        case regular(diskStart: UInt64, diskLength: UInt64, offset: UInt64, length: UInt64)
        /// An extent that fallocate(2) reserved; it reads as zeros.
        case preallocated(diskStart: UInt64, diskLength: UInt64, offset: UInt64, length: UInt64)
    }

    /// Where in the file, in bytes.
    package var fileOffset: UInt64
    /// The transaction that made the extent.
    package var generation: UInt64
    /// Bytes of the whole extent unpacked; at least that many where it was split.
    package var unpackedSize: UInt64
    /// 0 none, 1 zlib, 2 lzo, 3 zstd.
    package var compression: UInt8
    package var encryption: UInt8
    package var otherEncoding: UInt16
    package var storage: Storage

    /// Whether both files read the same here up to the end of the extent, as far as this proves it: it is true if the
    /// items are equal but for their generation. Both subvolumes must exist while this is asked, as a freed place on
    /// disk is used again. False says nothing.
    package func provesEqualContent(with other: FileExtent) -> Bool {
        var same = other
        same.generation = generation
        return same == self
    }
}

/// An item in the buffer of a search, with all its bytes inside the buffer.
@safe struct SearchItem {
    let key: Key
    let bytes: UnsafeRawBufferPointer

    /// Reads the header (`struct btrfs_ioctl_search_header`) at `position` and moves it behind the item.
    init(
        _ buffer: UnsafeRawBufferPointer, at position: inout Int, for descriptor: FileDescriptor
    ) throws(BtrfsError) {
        let headerSize = 32
        guard position >= 0, buffer.count - position >= headerSize else { throw Self.damaged(descriptor) }
        let header = unsafe UnsafeRawBufferPointer(rebasing: buffer[position..<(position + headerSize)])
        let length = Int(unsafe header.loadUnaligned(fromByteOffset: 28, as: UInt32.self))
        let start = position + headerSize
        guard buffer.count - start >= length else { throw Self.damaged(descriptor) }
        key = Key(
            object: unsafe header.loadUnaligned(fromByteOffset: 8, as: UInt64.self),
            type: unsafe header.loadUnaligned(fromByteOffset: 24, as: UInt32.self),
            offset: unsafe header.loadUnaligned(fromByteOffset: 16, as: UInt64.self))
        unsafe bytes = UnsafeRawBufferPointer(rebasing: buffer[start..<(start + length)])
        position = start + length
    }

    static func damaged(_ descriptor: FileDescriptor) -> BtrfsError {
        BtrfsError(.search, descriptor, errno: Errno(rawValue: EUCLEAN))
    }

    /// The caller has checked that the value lies in the item.
    func load<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, as type: T.Type = T.self) -> T {
        T(littleEndian: unsafe bytes.loadUnaligned(fromByteOffset: offset, as: type))
    }

    private func time(_ offset: Int) -> Timestamp {
        Timestamp(seconds: load(offset), nanoseconds: load(offset + 8))
    }

    func inode(for descriptor: FileDescriptor) throws(BtrfsError) -> InodeItem {
        guard unsafe bytes.count >= 160 else { throw Self.damaged(descriptor) }
        return InodeItem(
            inode: key.object, generation: load(0), transaction: load(8), size: load(16),
            allocatedSize: load(24),
            linkCount: load(40), uid: load(44), gid: load(48), mode: load(52), device: load(56),
            flags: load(64),
            sequence: load(72), accessTime: time(112), changeTime: time(124), modificationTime: time(136),
            originTime: time(148))
    }

    /// Whether the name in a `DIR_INDEX` item is one of a subvolume: its location (`struct btrfs_dir_item`) is a root then, not an inode.
    /// A snapshot keeps the name, and shows an empty directory there.
    func namesSubvolume(for descriptor: FileDescriptor) throws(BtrfsError) -> Bool {
        guard unsafe bytes.count >= 30 else { throw Self.damaged(descriptor) }
        return UInt32(load(8, as: UInt8.self)) == ItemType.root
    }

    /// Where name and value of an attribute lie in its item.
    struct AttributePlace {
        let name: Range<Int>
        let value: Range<Int>
    }

    /// The first attribute in an item whose name is one that is wanted. `struct btrfs_dir_item`, its name and its value each; several in one item
    /// if their names have the same hash.
    func firstAttribute(
        for descriptor: FileDescriptor, where isWanted: (_ name: Range<Int>) -> Bool
    ) throws(BtrfsError) -> AttributePlace? {
        let headerSize = 30
        var position = 0
        while unsafe position < bytes.count {
            guard unsafe bytes.count - position >= headerSize else { throw Self.damaged(descriptor) }
            let valueLength = Int(load(position + 25, as: UInt16.self))
            let nameLength = Int(load(position + 27, as: UInt16.self))
            let start = position + headerSize
            let name = start..<(start + nameLength)
            let value = name.upperBound..<(name.upperBound + valueLength)
            guard unsafe value.upperBound <= bytes.count else { throw Self.damaged(descriptor) }
            if isWanted(name) { return AttributePlace(name: name, value: value) }
            position = value.upperBound
        }
        return nil
    }

    /// Whether one of the attributes in an item is a property.
    func holdsProperty(for descriptor: FileDescriptor) throws(BtrfsError) -> Bool {
        try firstAttribute(for: descriptor) { unsafe bytes[$0].starts(with: "btrfs.".utf8) } != nil
    }

    /// `struct btrfs_inode_ref` (the parent is in the key) or `btrfs_inode_extref`, several in one item.
    func appendNames(to names: inout [InodeName], for descriptor: FileDescriptor) throws(BtrfsError) {
        let isExtended = key.type == ItemType.inodeExtendedReference
        guard isExtended || key.type == ItemType.inodeReference else { return }
        let headerSize = isExtended ? 18 : 10
        var position = 0
        while unsafe position < bytes.count {
            guard unsafe bytes.count - position >= headerSize else { throw Self.damaged(descriptor) }
            let parent: UInt64 = isExtended ? load(position) : key.offset
            let length = Int(load(position + headerSize - 2, as: UInt16.self))
            position += headerSize
            guard unsafe bytes.count - position >= length,
                let name = unsafe BytePath(bytes[position..<(position + length)])
            else { throw Self.damaged(descriptor) }
            position += length
            // The root refers to itself.
            if parent == key.object { continue }
            names.append(InodeName(parent: parent, name: name))
        }
    }

    func fileExtent(for descriptor: FileDescriptor) throws(BtrfsError) -> FileExtent {
        let headerSize = 21
        guard unsafe bytes.count >= headerSize else { throw Self.damaged(descriptor) }
        let storage: FileExtent.Storage
        switch load(20, as: UInt8.self) {
        case 0:
            storage = .inline(unsafe Array(bytes[headerSize...]))
        case let type where type == 1 || type == 2:
            guard unsafe bytes.count >= 53 else { throw Self.damaged(descriptor) }
            let (start, size): (UInt64, UInt64) = (load(21), load(29))
            let (offset, length): (UInt64, UInt64) = (load(37), load(45))
            storage =
                type == 1
                ? .regular(diskStart: start, diskLength: size, offset: offset, length: length)
                : .preallocated(diskStart: start, diskLength: size, offset: offset, length: length)
        default:
            throw Self.damaged(descriptor)
        }
        return FileExtent(
            fileOffset: key.offset, generation: load(0), unpackedSize: load(8), compression: load(16),
            encryption: load(17), otherEncoding: load(18), storage: storage)
    }
}
