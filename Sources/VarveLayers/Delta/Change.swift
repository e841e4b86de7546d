public import VarveSystem

/// How a path differs between the old and the new tree.
public enum ChangeKind: String, Sendable, Hashable {
    /// There is something where nothing was.
    case added
    /// Content, type, owner, permissions, times or attributes differ.
    case modified
    /// Nothing is there any more.
    case deleted
}

/// One path of a delta.
public struct Change: Sendable, Hashable {
    /// What happened to the path.
    public var kind: ChangeKind
    /// Relative to the root of the tree; `.` is the root itself.
    public var path: BytePath
    /// The type in the new tree, or in the old one for what was deleted.
    public var type: FileType

    /// A change, as a driver finds it.
    public init(kind: ChangeKind, path: BytePath, type: FileType) {
        self.kind = kind
        self.path = path
        self.type = type
    }
}

extension FileType {
    /// The word for it in `varve diff --format json` and in the answers of hooks.
    package var word: String {
        switch self {
        case .regular: "file"
        case .directory: "directory"
        case .symbolicLink: "symlink"
        case .characterDevice: "character-device"
        case .blockDevice: "block-device"
        case .fifo: "fifo"
        case .socket: "socket"
        }
    }

    package init?(word: String) {
        guard let type = Self.allCases.first(where: { $0.word == word }) else { return nil }
        self = type
    }
}

/// Where the delta learns which inodes may have changed. The answer is the same whichever is taken.
public enum DeltaSource: String, Sendable, CaseIterable {
    /// Whatever is exact and fastest for the pair in hand.
    case auto
    /// The metadata-only send stream (`BTRFS_IOC_SEND`).
    case stream
    /// A search of the new tree's inode items by transid (`BTRFS_IOC_TREE_SEARCH_V2`).
    case search
    /// Nothing: both trees are walked and compared whole.
    case walk
}
