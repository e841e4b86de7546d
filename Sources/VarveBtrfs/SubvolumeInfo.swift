package import BtrfsSendStream
import CBtrfs
import Glibc
package import VarveSystem
package import SystemPackage

/// What btrfs records of a subvolume (`BTRFS_IOC_GET_SUBVOL_INFO`, Linux 4.18).
package struct SubvolumeInfo: Hashable, Sendable {
    /// The number of its tree, unique in the file system, never used again.
    package var id: UInt64
    /// The subvolume in which it lies; 0 for the top level, and for one that is deleted.
    package var parentID: UInt64
    /// The inode number of the directory in which it lies.
    package var directory: UInt64
    /// The transaction that last changed its tree.
    package var generation: UInt64
    package var isReadOnly: Bool
    package var uuid: SubvolumeUUID
    /// The subvolume of which it was a snapshot when it was made; nil if it was none.
    package var parentUUID: SubvolumeUUID?
    /// The sender's subvolume, if `btrfs receive` made it.
    package var receivedUUID: SubvolumeUUID?
    /// The transactions of the last change of an inode, of creation, and of sending and receiving.
    package var changeTransaction: UInt64
    package var originTransaction: UInt64
    package var sendTransaction: UInt64
    package var receiveTransaction: UInt64
    package var changeTime: Timestamp
    package var originTime: Timestamp
    /// When `btrfs receive` was done with it.
    package var receiveTime: Timestamp
}

extension SubvolumeInfo {
    /// What was written down of a subvolume that is gone: whose snapshot it was, and since when.
    package init(uuid: SubvolumeUUID, parentUUID: SubvolumeUUID?, originTransaction: UInt64) {
        self.init(
            id: 0, parentID: 0, directory: 0, generation: originTransaction, isReadOnly: false, uuid: uuid,
            parentUUID: parentUUID, receivedUUID: nil, changeTransaction: originTransaction,
            originTransaction: originTransaction, sendTransaction: 0, receiveTransaction: 0,
            changeTime: .epoch, originTime: .epoch,
            receiveTime: .epoch)
    }
}

extension FileDescriptor {
    /// What btrfs records of the subvolume in which this descriptor lies. Needs no privilege.
    package func subvolumeInfo() throws(BtrfsError) -> SubvolumeInfo {
        var raw = varve_subvolume_info()
        guard unsafe varve_btrfs_subvolume_info(rawValue, &raw) == 0 else {
            throw BtrfsError(.readInfo, self, errno: Errno(rawValue: errno))
        }
        return SubvolumeInfo(raw)
    }

    /// What the kernel knows of the subvolume; nil if it was deleted since the descriptor was opened (ENOENT).
    package func subvolumeInfoIfPresent() throws(BtrfsError) -> SubvolumeInfo? {
        do throws(BtrfsError) {
            return try subvolumeInfo()
        } catch  where error.errno == .noSuchFileOrDirectory {
            return nil
        }
    }

    /// What btrfs records of the subvolume, once all that was written to it before this call is part of that: buffered data of a
    /// file, whether written, mapped or received, reaches inode items, extents and `changeTransaction` only when it is written
    /// out, up to 30 seconds later, also in a subvolume that was made read-only meanwhile. Whatever is written later has a later
    /// `changeTransaction`, so two equal answers mean that nothing was written between them.
    ///
    /// With `CAP_SYS_ADMIN` and for a read-only subvolume this writes out that subvolume alone, in some 20 µs if there is
    /// nothing to write; else it is syncfs(2).
    ///
    /// The last data may be written in place and leave nothing but a changed inode, which the kernel keeps back until the
    /// transaction is committed (`btrfs_delayed_update_inode`). At each commit that changes the tree, `generation` becomes that of
    /// the transaction (`commit_fs_roots`, fs/btrfs/transaction.c), so a later `changeTransaction` says that one is due.
    package func settledSubvolumeInfo() throws(BtrfsError) -> SubvolumeInfo {
        let before = try subvolumeInfo()
        if !before.isReadOnly || varve_btrfs_write_out(rawValue, before.id) != 0 {
            do throws(Errno) {
                try synchronizeFileSystem()
            } catch {
                throw BtrfsError(.synchronize, self, errno: error)
            }
        }
        var info = try subvolumeInfo()
        if info.changeTransaction > info.generation {
            try commitTransaction()
            info = try subvolumeInfo()
        }
        return info
    }

    /// The subvolume with that UUID, anywhere on the file system of this descriptor; nil if there is none. Needs
    /// `CAP_SYS_ADMIN`: it looks in the UUID tree and the root tree.
    package func subvolume(withUUID uuid: SubvolumeUUID) throws(BtrfsError) -> SubvolumeInfo? {
        var raw = varve_subvolume_info()
        let result = unsafe uuid.bytes.withUnsafeBufferPointer { bytes in
            unsafe varve_btrfs_subvolume_by_uuid(rawValue, bytes.baseAddress, &raw)
        }
        guard result == 0 else {
            if errno == ENOENT { return nil }
            throw BtrfsError(.search, self, errno: Errno(rawValue: errno))
        }
        return SubvolumeInfo(raw)
    }

    /// Whether this descriptor lies on btrfs (fstatfs(2)).
    package func isBtrfs() throws(BtrfsError) -> Bool {
        let result = varve_btrfs_is(rawValue)
        guard result >= 0 else { throw BtrfsError(.identify, self, errno: Errno(rawValue: errno)) }
        return result == 1
    }

    /// Whether this descriptor is the root of a subvolume: on btrfs, a directory with inode number 256
    /// (`BTRFS_FIRST_FREE_OBJECTID`). The stub that a snapshot has in place of a nested subvolume has number 2.
    package func isSubvolume() throws(BtrfsError) -> Bool {
        guard try isBtrfs() else { return false }
        do throws(Errno) {
            let status = try status()
            return status.isDirectory && status.inode == 256
        } catch {
            throw BtrfsError(.identify, self, errno: error)
        }
    }

    /// Removes the stub of a subvolume with that name in this directory, if one is there: whatever is made under the name
    /// would fail with EEXIST otherwise. rmdir(2) removes it (`btrfs_rmdir`, fs/btrfs/inode.c).
    ///
    /// - Returns: whether there was one.
    @discardableResult
    package func removeSubvolumeStub(_ name: BytePath) throws(Errno) -> Bool {
        guard try statusIfPresent(of: name)?.isSubvolumeStub == true else { return false }
        try removeDirectory(name)
        return true
    }

    /// Whether the subvolume of which this descriptor is the root is read-only (`BTRFS_IOC_SUBVOL_GETFLAGS`).
    package func isReadOnlySubvolume() throws(BtrfsError) -> Bool {
        let result = varve_btrfs_get_read_only(rawValue)
        guard result >= 0 else { throw BtrfsError(.readFlags, self, errno: Errno(rawValue: errno)) }
        return result == 1
    }

    /// Makes the subvolume of which this descriptor is the root read-only, or writable again. EPERM during a send of
    /// it, and without ownership; EROFS on a read-only mount; ETXTBSY is not raised: files that are open for writing
    /// stay so, and their writes still arrive.
    package func setSubvolumeReadOnly(_ readOnly: Bool) throws(BtrfsError) {
        guard varve_btrfs_set_read_only(rawValue, readOnly ? 1 : 0) == 0 else {
            throw BtrfsError(.setReadOnly, self, errno: Errno(rawValue: errno))
        }
        durabilityPoint()
    }
}

extension FileStatus {
    /// Whether this, on btrfs, is the empty directory that a snapshot has in place of a subvolume that lay in its source: it has
    /// inode number 2 (`BTRFS_EMPTY_SUBVOL_DIR_OBJECTID`), and nothing can be made in it.
    package var isSubvolumeStub: Bool { isDirectory && inode == 2 }
}

extension SubvolumeInfo {
    init(_ raw: varve_subvolume_info) {
        // BTRFS_ROOT_SUBVOL_RDONLY, the flag of the root item.
        let readOnly = raw.flags & 1 != 0
        let parent = unsafe withUnsafeBytes(of: raw.parent_uuid) { unsafe SubvolumeUUID($0) } ?? .zero
        let received = unsafe withUnsafeBytes(of: raw.received_uuid) { unsafe SubvolumeUUID($0) } ?? .zero
        self.init(
            id: raw.id, parentID: raw.parent_id, directory: raw.directory, generation: raw.generation,
            isReadOnly: readOnly,
            uuid: unsafe withUnsafeBytes(of: raw.uuid) { unsafe SubvolumeUUID($0) } ?? .zero,
            parentUUID: parent.isZero ? nil : parent, receivedUUID: received.isZero ? nil : received,
            changeTransaction: raw.ctransid, originTransaction: raw.otransid, sendTransaction: raw.stransid,
            receiveTransaction: raw.rtransid,
            changeTime: Timestamp(
                seconds: Int64(bitPattern: raw.ctime_seconds), nanoseconds: raw.ctime_nanoseconds),
            originTime: Timestamp(
                seconds: Int64(bitPattern: raw.otime_seconds), nanoseconds: raw.otime_nanoseconds),
            receiveTime: Timestamp(
                seconds: Int64(bitPattern: raw.rtime_seconds), nanoseconds: raw.rtime_nanoseconds))
    }
}
