package import VarveSystem
package import SystemPackage

/// What can go wrong while a layer is applied, compared or packed.
package enum LayerError: Error, Sendable, CustomStringConvertible {
    /// The layer asks for something that no valid layer asks for. `path` is the entry's, as the archive has it.
    case invalidEntry(path: BytePath, reason: String)
    /// A tree holds something that a layer cannot carry.
    case unrepresentable(path: BytePath, reason: String, remedy: String)
    /// Something is mounted in a tree, at this absolute path: what is mounted is no part of the tree, and what it hides is not seen.
    case mountPoint(path: BytePath)
    /// The operating system refused an operation below the root of the tree.
    case system(operation: String, path: BytePath, errno: Errno)
    /// A file belongs to somebody whom the id map does not have. `inImage` tells whether the id is one of the image, on
    /// its way out, or one of the host, on its way in.
    case unmappedOwner(path: BytePath, kind: OwnerKind, id: UInt32, inImage: Bool)
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

    package var description: String {
        switch self {
        case .invalidEntry(let path, let reason):
            "the layer's entry \"\(path)\" is not valid: \(reason); get the image again from where it was made"
        case .unrepresentable(let path, let reason, let remedy):
            "\"\(path)\" cannot go into a layer: \(reason); \(remedy)"
        case .mountPoint(let path):
            "\"\(path)\" is a mount point, and what is mounted there is no part of the tree; unmount it first: umount \"\(path)\""
        case .system(let operation, let path, let errno):
            "cannot \(operation) \"\(path)\": \(errno.explanation)\(Self.remedy(errno))"
        case .unmappedOwner(let path, let kind, let id, let inImage):
            if inImage {
                "\"\(path)\" belongs to the \(kind.rawValue) \(id), which the id map does not have; give one that has it with \(Self.option(kind))"
            } else {
                "\"\(path)\" belongs to the \(kind.rawValue) \(id) of the host, which the bundle's id map does not have; change its owner or leave it out with --mask-path"
            }
        case .sourceUnusable(let source, let reason):
            "the delta cannot be taken from the \(source): \(reason); use --source auto"
        case .treeChanged:
            "a subvolume was written to while it was compared; end the process that has a file open there for writing, or compare a snapshot of it"
        case .cancelled:
            "interrupted"
        }
    }

    private static func option(_ kind: OwnerKind) -> String {
        switch kind {
        case .user: "--uid-map"
        case .group: "--gid-map"
        }
    }

    private static func remedy(_ errno: Errno) -> String {
        switch errno {
        case .noSpace: "; free space on this file system or enlarge it"
        case .diskQuotaExceeded: "; raise the quota or free space below it"
        case .tooManyOpenFiles: "; raise the limit of open files (ulimit -n)"
        case .notPermitted, .permissionDenied: "; \(permissionRemedy())"
        default: ""
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
