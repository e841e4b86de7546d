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

    package var description: String { VarveError.sentence(reason, remedy) }

    /// What was being done, to which path, and why it failed.
    package var reason: String {
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
        let why = explanation.map { "; \($0)" } ?? ""
        return "cannot \(what) \(path): \(errno)\(why)"
    }

    /// What the kernel means by the error number; nil where that says it.
    private var explanation: String? {
        switch errno {
        case .inappropriateIOCTLForDevice: "it is not on btrfs"
        case .readOnlyFileSystem:
            operation == .send
                ? "the subvolume and its parent must be read-only"
                : "the file system or the subvolume around it is read-only"
        case .directoryNotEmpty: "other subvolumes lie in it, and must be deleted first"
        case .fileExists: "the name is taken"
        case .invalidArgument:
            switch operation {
            case .readFlags, .setReadOnly, .snapshot, .deleteSubvolume: "it is not a subvolume"
            default: nil
            }
        case .resourceTemporarilyUnavailable:
            operation == .send ? "extents of it are being deduplicated" : nil
        case Errno(rawValue: EPROTO): "this kernel does not know the version of the stream"
        case .brokenPipe: "the stream was not read to its end"
        case .fileNameTooLong:
            operation == .send
                ? "a path in it is longer than 4,095 bytes" : "a name has at most 255 bytes, and a path 4,095"
        case .ioError:
            operation == .send ? "the subvolume or its parent is damaged, or changed meanwhile" : nil
        case Errno(rawValue: EUCLEAN): "the metadata is damaged"
        case .noSuchFileOrDirectory:
            operation == .send ? "the parent does not exist on this file system" : nil
        default: nil
        }
    }

    /// Whether the place could not be written to. A send is of what must be read-only, and says that it is not.
    package var isReadOnly: Bool { errno == .readOnlyFileSystem && operation != .send }

    /// What a caller can do about it; nil if nothing but the error itself helps.
    package var remedy: VarveError.Remedy? {
        switch errno {
        case .notPermitted, .permissionDenied:
            switch operation {
            case .deleteSubvolume:
                .gainRight(
                    "CAP_SYS_ADMIN, or the mount option user_subvol_rm_allowed and write permission to it; "
                        + "a subvolume that is being sent, is the default subvolume or holds others cannot be deleted"
                )
            case .setReadOnly: .gainRight("its owner or CAP_SYS_ADMIN, and no send may be reading it")
            case .send:
                .gainRight(
                    "CAP_SYS_ADMIN in the first user namespace, and a read-only subvolume and parent")
            case .search, .waitForCleaner: .gainRight("CAP_SYS_ADMIN in the first user namespace")
            case .snapshot: .gainRight("the owner of the source or CAP_SYS_ADMIN")
            default: .gainRight("write permission to the directory, or CAP_SYS_ADMIN")
            }
        case .noSpace: .freeMetadata(on: nil)
        case Errno(rawValue: EDQUOT): .raiseQuotaGroup(on: nil)
        case .resourceTemporarilyUnavailable: operation == .send ? .tryAgainLater : nil
        case Errno(rawValue: EPROTO): .askForFirstVersion
        case .ioError: .checkFileSystem("btrfs scrub")
        case Errno(rawValue: EUCLEAN): .checkFileSystem("btrfs check")
        default: nil
        }
    }
}
