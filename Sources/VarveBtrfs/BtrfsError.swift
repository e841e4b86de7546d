@_exported public import BtrfsSendStream
import Glibc
package import VarveSystem
package import SystemPackage

/// An operation on btrfs that failed: what was being done, to which path, why, and what helps.
package struct BtrfsError: Error, Hashable, Sendable, CustomStringConvertible {
    package enum Operation: Hashable, Sendable {
        case createSubvolume
        case snapshot
        case deleteSubvolume
        case setReadOnly
        case readFlags
        case readInfo
        case listSubvolumes
        case identify
        case synchronize
        case waitForCleaner
        case send
        case search
    }

    package var operation: Operation
    /// The path at the time of the error, as far as the kernel tells (`/proc/self/fd`).
    package var path: BytePath
    package var errno: Errno

    package init(_ operation: Operation, path: BytePath, errno: Errno) {
        self.operation = operation
        self.path = path
        self.errno = errno
    }

    /// The path of `descriptor`, with `name` below it.
    init(_ operation: Operation, _ descriptor: FileDescriptor, _ name: BytePath = .empty, errno: Errno) {
        self.init(operation, path: Self.path(of: descriptor).appending(name), errno: errno)
    }

    private static func path(of descriptor: FileDescriptor) -> BytePath {
        (try? descriptor.path()) ?? BytePath("descriptor \(descriptor.rawValue)")
    }

    package var description: String {
        let what =
            switch operation {
            case .createSubvolume: "create the subvolume"
            case .snapshot: "make the snapshot"
            case .deleteSubvolume: "delete the subvolume"
            case .setReadOnly: "make read-only or writable the subvolume"
            case .readFlags: "read the flags of"
            case .readInfo: "read the subvolume information of"
            case .listSubvolumes: "list the subvolumes in"
            case .identify: "find out the file system of"
            case .synchronize: "write to disk the file system of"
            case .waitForCleaner: "wait until deleted subvolumes are gone from"
            case .send: "send the subvolume"
            case .search: "search the metadata of"
            }
        let help = remedy.map { "; \($0)" } ?? ""
        return "cannot \(what) \(path): \(errno)\(help)"
    }

    /// What a person can do about it; nil if nothing but the error itself helps.
    package var remedy: String? {
        switch errno {
        case .inappropriateIOCTLForDevice:
            return "it is not on btrfs"
        case .notPermitted, .permissionDenied:
            switch operation {
            case .deleteSubvolume:
                return
                    "this needs CAP_SYS_ADMIN, or the mount option user_subvol_rm_allowed and write permission to it; "
                    + "a subvolume that is being sent, is the default subvolume or holds others cannot be deleted"
            case .setReadOnly:
                return "this needs its owner or CAP_SYS_ADMIN, and no send may be reading it"
            case .send:
                return
                    "this needs CAP_SYS_ADMIN in the first user namespace, and a read-only subvolume and parent"
            case .search, .waitForCleaner:
                return "this needs CAP_SYS_ADMIN in the first user namespace"
            case .snapshot:
                return "this needs the owner of the source or CAP_SYS_ADMIN"
            default:
                return "this needs write permission to the directory, or CAP_SYS_ADMIN"
            }
        case .noSpace:
            return
                "free space for metadata is used up: delete snapshots, or run btrfs balance start -dusage=10"
        case Errno(rawValue: EDQUOT):
            return "a quota group is full: raise its limit with btrfs qgroup limit, or delete what it counts"
        case .readOnlyFileSystem:
            return operation == .send
                ? "the subvolume and its parent must be read-only"
                : "the file system or the subvolume around it is read-only"
        case .directoryNotEmpty:
            return "other subvolumes lie in it, and must be deleted first"
        case .fileExists:
            return "the name is taken"
        case .invalidArgument:
            switch operation {
            case .readFlags, .setReadOnly, .snapshot, .deleteSubvolume: return "it is not a subvolume"
            default: return nil
            }
        case .resourceTemporarilyUnavailable:
            return operation == .send
                ? "extents of it are being deduplicated; try again when that has ended" : nil
        case Errno(rawValue: EPROTO):
            return "this kernel does not know the version of the stream; ask for version 1"
        case .brokenPipe:
            return "the stream was not read to its end"
        case .fileNameTooLong:
            return operation == .send
                ? "a path in it is longer than 4,095 bytes" : "a name has at most 255 bytes, and a path 4,095"
        case .ioError:
            return operation == .send
                ? "the subvolume or its parent is damaged, or changed meanwhile; see dmesg and run btrfs scrub"
                : "see dmesg, and run btrfs scrub"
        case Errno(rawValue: EUCLEAN):
            return "the metadata is damaged; see dmesg and run btrfs check"
        case .noSuchFileOrDirectory:
            return operation == .send ? "the parent does not exist on this file system" : nil
        default:
            return nil
        }
    }
}
