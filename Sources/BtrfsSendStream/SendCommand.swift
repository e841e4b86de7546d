/// A point in time as a stream has it: seconds since 1970-01-01T00:00:00Z and 0 … 999,999,999 nanoseconds.
public struct SendTime: Hashable, Sendable {
    public var seconds: Int64
    public var nanoseconds: UInt32

    public init(seconds: Int64, nanoseconds: UInt32) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }
}

/// One command of a send stream with all its attributes, named as in the kernel's fs/btrfs/send.h.
///
/// Paths are bytes relative to the subvolume, without a slash at either end; the empty path is its root. They are
/// valid only in the state in which a receiver is at that command. All byte values are views into the parser's
/// buffer: whoever keeps one for long copies it (`Array(path)`), or he keeps the whole buffer.
public enum SendCommand: Hashable, Sendable {
    public typealias Bytes = ArraySlice<UInt8>

    /// A whole subvolume follows. `path` is its name.
    case subvol(path: Bytes, uuid: SubvolumeUUID, ctransid: UInt64)
    /// The difference to the subvolume with `cloneUUID`, as it was at `cloneCtransid`, follows.
    case snapshot(
        path: Bytes, uuid: SubvolumeUUID, ctransid: UInt64, cloneUUID: SubvolumeUUID, cloneCtransid: UInt64)
    /// `inode` is the number in the sender. Nil if the sender leaves it out, as receivers do not need it.
    case mkfile(path: Bytes, inode: UInt64?)
    case mkdir(path: Bytes, inode: UInt64?)
    /// `mode` holds type and permission bits; `device` is the kernel's 32-bit encoding (`new_encode_dev`).
    case mknod(path: Bytes, inode: UInt64?, mode: UInt64, device: UInt64)
    case mkfifo(path: Bytes, inode: UInt64?, mode: UInt64, device: UInt64)
    case mksock(path: Bytes, inode: UInt64?, mode: UInt64, device: UInt64)
    /// `target` is any bytes but NUL.
    case symlink(path: Bytes, inode: UInt64?, target: Bytes)
    case rename(path: Bytes, to: Bytes)
    /// `path` is the new name, `existing` the old one.
    case link(path: Bytes, existing: Bytes)
    case unlink(path: Bytes)
    case rmdir(path: Bytes)
    case setXattr(path: Bytes, name: Bytes, value: Bytes)
    case removeXattr(path: Bytes, name: Bytes)
    case write(path: Bytes, offset: UInt64, data: Bytes)
    /// `length` bytes at `offset` are those at `cloneOffset` of `clonePath` in the subvolume with `cloneUUID`.
    case clone(
        path: Bytes, offset: UInt64, length: UInt64, cloneUUID: SubvolumeUUID, cloneCtransid: UInt64,
        clonePath: Bytes, cloneOffset: UInt64)
    case truncate(path: Bytes, size: UInt64)
    /// Permission bits only.
    case chmod(path: Bytes, mode: UInt64)
    case chown(path: Bytes, uid: UInt64, gid: UInt64)
    /// `otime`, the time of creation, from version 2.
    case utimes(path: Bytes, atime: SendTime, mtime: SendTime, ctime: SendTime, otime: SendTime?)
    /// The stream ends. Another one may follow in the same file.
    case end
    /// Stands for a write in a stream without file data.
    case updateExtent(path: Bytes, offset: UInt64, length: UInt64)
    /// Version 2. `mode` as in fallocate(2).
    case fallocate(path: Bytes, mode: UInt32, offset: UInt64, length: UInt64)
    /// Version 2. `attributes` as in FS_IOC_SETFLAGS, not specified further.
    case fileattr(path: Bytes, attributes: UInt64)
    /// Version 2. `data` as it lies on disk; the fields are those of BTRFS_IOC_ENCODED_WRITE.
    case encodedWrite(
        path: Bytes, offset: UInt64, unencodedFileLength: UInt64, unencodedLength: UInt64,
        unencodedOffset: UInt64, compression: UInt32, encryption: UInt32, data: Bytes)
    /// Version 3. The fields are those of FS_IOC_ENABLE_VERITY.
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
