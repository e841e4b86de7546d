/// A point in time as a stream has it (`struct btrfs_timespec`).
public struct SendTime: Hashable, Sendable {
    /// Whole seconds since 1970-01-01T00:00:00Z; negative before it.
    public var seconds: Int64
    /// 0 … 999,999,999, counted forwards from `seconds`.
    public var nanoseconds: UInt32

    /// The time `nanoseconds` after `seconds`.
    public init(seconds: Int64, nanoseconds: UInt32) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }
}

/// One command of a send stream with all its attributes, named as in the kernel's fs/btrfs/send.h.
///
/// Paths are bytes relative to the subvolume, without a slash at either end; the empty path is its root. A path is valid
/// only in the state in which a receiver is at that command: the kernel gives files names of its own (`o257-9-0`) until
/// their place is free. No path has a part `.` or `..`, but a part may be a symbolic link that an earlier command made:
/// a receiver must not follow it out of the subvolume.
///
/// Offsets, lengths and sizes are in bytes. All byte values are slices of the parser's buffer: copy one that you keep
/// (`Array(path)`), or the whole buffer stays in memory with it.
public enum SendCommand: Hashable, Sendable {
    /// Bytes of a path, a name or a file. The indices do not begin with 0.
    public typealias Bytes = ArraySlice<UInt8>

    /// A whole subvolume follows. `path` is its name, `uuid` its own UUID (of its origin if it was received), `ctransid`
    /// the transaction of its last change.
    case subvol(path: Bytes, uuid: SubvolumeUUID, ctransid: UInt64)
    /// The difference to the subvolume with `cloneUUID`, as it was at `cloneCtransid`, follows. `path`, `uuid` and
    /// `ctransid` are those of the new subvolume.
    case snapshot(
        path: Bytes, uuid: SubvolumeUUID, ctransid: UInt64, cloneUUID: SubvolumeUUID, cloneCtransid: UInt64)
    /// Make an empty regular file. `inode` is its number in the sender; nil if the sender leaves it out, as receivers do
    /// not need it.
    case mkfile(path: Bytes, inode: UInt64?)
    /// Make a directory.
    case mkdir(path: Bytes, inode: UInt64?)
    /// Make a device. `mode` holds type and permission bits (inode(7)); `device` is the kernel's encoding of major and
    /// minor number in 32 bits (`new_encode_dev` in linux/kdev_t.h).
    case mknod(path: Bytes, inode: UInt64?, mode: UInt64, device: UInt64)
    /// Make a FIFO. `mode` as for `mknod`; both numbers are 0 if the sender leaves them out.
    case mkfifo(path: Bytes, inode: UInt64?, mode: UInt64, device: UInt64)
    /// Make a socket. `mode` as for `mknod`; both numbers are 0 if the sender leaves them out.
    case mksock(path: Bytes, inode: UInt64?, mode: UInt64, device: UInt64)
    /// Make a symbolic link. `target` is any bytes but NUL.
    case symlink(path: Bytes, inode: UInt64?, target: Bytes)
    /// Rename `path` to `to` (rename(2)).
    case rename(path: Bytes, to: Bytes)
    /// Make a hard link: `path` is the new name, `existing` the old one.
    case link(path: Bytes, existing: Bytes)
    /// Remove the name of a file that is no directory.
    case unlink(path: Bytes)
    /// Remove an empty directory.
    case rmdir(path: Bytes)
    /// Set an extended attribute. `name` has its prefix (`user.`, `security.`), is not empty and has no NUL.
    case setXattr(path: Bytes, name: Bytes, value: Bytes)
    /// Remove an extended attribute.
    case removeXattr(path: Bytes, name: Bytes)
    /// Write `data` at `offset`.
    case write(path: Bytes, offset: UInt64, data: Bytes)
    /// Share `length` bytes at `offset` with those at `cloneOffset` of `clonePath` in the subvolume with `cloneUUID`
    /// (`FICLONERANGE`).
    case clone(
        path: Bytes, offset: UInt64, length: UInt64, cloneUUID: SubvolumeUUID, cloneCtransid: UInt64,
        clonePath: Bytes, cloneOffset: UInt64)
    /// Set the size of a file.
    case truncate(path: Bytes, size: UInt64)
    /// Set the permission bits; `mode` holds no type.
    case chmod(path: Bytes, mode: UInt64)
    /// Set user and group, as numbers of the first user namespace.
    case chown(path: Bytes, uid: UInt64, gid: UInt64)
    /// Set the times. `otime`, the time of creation, comes from version 2 on.
    case utimes(path: Bytes, atime: SendTime, mtime: SendTime, ctime: SendTime, otime: SendTime?)
    /// The stream ends. Another one may follow in the same file.
    case end
    /// Stands for a write in a stream without file data (`BTRFS_SEND_FLAG_NO_FILE_DATA`).
    case updateExtent(path: Bytes, offset: UInt64, length: UInt64)
    /// From version 2. `mode` as in fallocate(2).
    case fallocate(path: Bytes, mode: UInt32, offset: UInt64, length: UInt64)
    /// From version 2. `attributes` as in `FS_IOC_SETFLAGS`; the format does not specify them further.
    case fileattr(path: Bytes, attributes: UInt64)
    /// From version 2. Write an extent as it lies on disk (`BTRFS_IOC_ENCODED_WRITE`, linux/btrfs.h). Decoded, `data` has
    /// `unencodedLength` bytes, of which the file gets `unencodedFileLength` from `unencodedOffset` on, at `offset`.
    /// `encryption` is 0, which is none: no other number is defined.
    case encodedWrite(
        path: Bytes, offset: UInt64, unencodedFileLength: UInt64, unencodedLength: UInt64,
        unencodedOffset: UInt64, compression: SendCompression, encryption: UInt32, data: Bytes)
    /// Version 3. Enable fs-verity (`FS_IOC_ENABLE_VERITY`, linux/fsverity.h): `algorithm` is the number of the hash
    /// (1 SHA-256, 2 SHA-512), `blockSize` is in bytes, `signature` is empty if there is none.
    case enableVerity(path: Bytes, algorithm: UInt8, blockSize: UInt32, salt: Bytes, signature: Bytes)
}

/// The number of a command in a stream (`enum btrfs_send_cmd`).
enum CommandNumber: UInt16 {
    case subvol = 1
    case snapshot, mkfile, mkdir, mknod, mkfifo, mksock, symlink, rename, link, unlink, rmdir, setXattr,
        removeXattr
    case write, clone, truncate, chmod, chown, utimes, end, updateExtent
    case fallocate, fileattr, encodedWrite
    case enableVerity

    /// The highest number that a stream of this version may hold.
    static func highest(version: UInt32) -> UInt16 {
        switch version {
        case 1: updateExtent.rawValue
        case 2: encodedWrite.rawValue
        default: enableVerity.rawValue
        }
    }

    var name: String {
        switch self {
        case .setXattr: "set_xattr"
        case .removeXattr: "remove_xattr"
        case .updateExtent: "update_extent"
        case .encodedWrite: "encoded_write"
        case .enableVerity: "enable_verity"
        default: "\(self)"
        }
    }
}

/// The number of an attribute in a stream (`BTRFS_SEND_A_*`).
enum AttributeNumber: UInt16 {
    case uuid = 1
    case ctransid, ino, size, mode, uid, gid, rdev, ctime, mtime, atime, otime
    case xattrName, xattrData
    case path, pathTo, pathLink
    case fileOffset, data
    case cloneUUID, cloneCtransid, clonePath, cloneOffset, cloneLength
    case fallocateMode, fileattr, unencodedFileLength, unencodedLength, unencodedOffset, compression,
        encryption
    case verityAlgorithm, verityBlockSize, veritySalt, veritySignature

    /// One more than the highest number of any version.
    static let count = 36

    /// The highest number that a stream of this version may hold.
    static func highest(version: UInt32) -> UInt16 {
        switch version {
        case 1: cloneLength.rawValue
        case 2: encryption.rawValue
        default: veritySignature.rawValue
        }
    }
}

extension SendCommand {
    var number: CommandNumber {
        switch self {
        case .subvol: .subvol
        case .snapshot: .snapshot
        case .mkfile: .mkfile
        case .mkdir: .mkdir
        case .mknod: .mknod
        case .mkfifo: .mkfifo
        case .mksock: .mksock
        case .symlink: .symlink
        case .rename: .rename
        case .link: .link
        case .unlink: .unlink
        case .rmdir: .rmdir
        case .setXattr: .setXattr
        case .removeXattr: .removeXattr
        case .write: .write
        case .clone: .clone
        case .truncate: .truncate
        case .chmod: .chmod
        case .chown: .chown
        case .utimes: .utimes
        case .end: .end
        case .updateExtent: .updateExtent
        case .fallocate: .fallocate
        case .fileattr: .fileattr
        case .encodedWrite: .encodedWrite
        case .enableVerity: .enableVerity
        }
    }

    /// `mkfile`, `set_xattr`, …: the name that `btrfs receive --dump` prints.
    public var name: String { number.name }
}
