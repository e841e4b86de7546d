import VarveOCI
package import VarveSystem
package import SystemPackage

/// What can go wrong while a layer is applied, compared or packed.
package enum LayerError: Error, Sendable, CustomStringConvertible {
    /// The layer asks for something that no valid layer asks for. `path` is the entry's, as the archive has it.
    case invalidEntry(path: BytePath, reason: String)
    /// A tree holds something that a layer cannot carry.
    case unrepresentable(path: BytePath, reason: String, remedy: VarveError.Remedy)
    /// Something is mounted in a tree, at this absolute path: what is mounted is no part of the tree, and what it hides is not seen.
    case mountPoint(path: BytePath)
    /// The operating system refused an operation below the root of the tree.
    case system(operation: String, path: BytePath, errno: Errno)
    /// A file belongs to somebody whom the id map does not have. `inImage` tells whether the id is one of the image, on
    /// its way out, or one of the host, on its way in.
    case unmappedOwner(path: BytePath, kind: OwnerKind, id: UInt32, inImage: Bool)
    /// An id map has more ranges than the kernel takes (`IDMap.limit`).
    case tooManyRanges(kind: OwnerKind, count: Int)
    /// A source of dirty inodes cannot be used for this pair of trees.
    case sourceUnusable(source: String, reason: String)
    /// A tree that is to be compared was written to meanwhile, by a process that opened a file there for writing before the
    /// subvolume was made read-only.
    case treeChanged
    /// The caller asked to stop.
    case cancelled

    package enum OwnerKind: String, Sendable {
        case user, group
    }

    package var description: String { VarveError.sentence(reason, remedy) }

    /// What was being done, to which path, and why it failed.
    package var reason: String {
        switch self {
        case .invalidEntry(let path, let reason):
            "the layer's entry \"\(path)\" is not valid: \(reason)"
        case .unrepresentable(let path, let reason, _):
            "\"\(path)\" cannot go into a layer: \(reason)"
        case .mountPoint(let path):
            "\"\(path)\" is a mount point, and what is mounted there is no part of the tree"
        case .system(let operation, let path, let errno):
            "cannot \(operation) \"\(path)\": \(errno.explanation)"
        case .unmappedOwner(let path, let kind, let id, inImage: true):
            "\"\(path)\" belongs to the \(kind.rawValue) \(id), which the id map does not have"
        case .unmappedOwner(let path, let kind, let id, inImage: false):
            "\"\(path)\" belongs to the \(kind.rawValue) \(id) of the host, which the bundle's id map does not have"
        case .tooManyRanges(let kind, let count):
            "the id map of \(kind.rawValue)s has \(count) ranges, and the kernel takes \(IDMap.limit) at most"
        case .sourceUnusable(let source, let reason):
            "the delta cannot be taken from the \(source): \(reason)"
        case .treeChanged: "a subvolume was written to while it was compared"
        case .cancelled: "interrupted"
        }
    }

    package var remedy: VarveError.Remedy? {
        switch self {
        case .invalidEntry: .getImageAgain
        case .unrepresentable(_, _, let remedy): remedy
        case .mountPoint(let path): .unmount(path, recursively: false)
        case .system(_, _, let errno):
            switch errno {
            case .noSpace: .freeSpace(on: nil)
            case .diskQuotaExceeded: .raiseQuota(on: nil)
            case .tooManyOpenFiles: .raiseLimit(.openFiles)
            case .notPermitted, .permissionDenied: .gainPermission
            default: nil
            }
        case .unmappedOwner(_, .user, _, inImage: true): .mapUser
        case .unmappedOwner(_, .group, _, inImage: true): .mapGroup
        case .unmappedOwner(_, _, _, inImage: false): .changeFile("change its owner")
        case .tooManyRanges: .follow("join ranges that lie side by side")
        case .sourceUnusable: .chooseSourceAutomatically
        case .treeChanged: .endWriters
        case .cancelled: nil
        }
    }

    /// The path that it is about, as the layer or the tree has it.
    package var subject: BytePath? {
        switch self {
        case .invalidEntry(let path, _), .unrepresentable(let path, _, _), .mountPoint(let path),
            .system(_, let path, _), .unmappedOwner(let path, _, _, _):
            path
        case .tooManyRanges, .sourceUnusable, .treeChanged, .cancelled: nil
        }
    }
}

/// Runs a system call and says, if it fails, what it was for.
@inline(__always)
func attempt<T: ~Copyable>(
    _ operation: @autoclosure () -> String, _ path: @autoclosure () -> BytePath, _ body: () throws(Errno) -> T
) throws(LayerError) -> T {
    do throws(Errno) {
        return try body()
    } catch {
        throw LayerError.system(operation: operation(), path: path(), errno: error)
    }
}
