import VarveBtrfs
import BtrfsSendStream
import VarveSystem
import SystemPackage

/// The three sources of dirty inodes, and which one is taken.
extension DirtyInodes {
    struct Choice {
        /// Nil: everything is walked.
        var dirty: DirtyInodes?
        var source: DeltaSource
        var reason: String
    }

    static func find(
        _ source: DeltaSource, old: DeltaTree, new: DeltaTree, lineage: Lineage, areReadOnly: Bool,
        onEntry: () throws -> Void
    ) throws -> Choice {
        if source == .walk { return Choice(dirty: nil, source: .walk, reason: "it was asked for") }
        guard case .descends(let transaction) = lineage else {
            guard case .unrelated(let reason) = lineage, source == .auto else {
                throw LayerError.sourceUnusable(source: source.described, reason: Self.reason(lineage))
            }
            return Choice(dirty: nil, source: .walk, reason: reason)
        }
        if source == .stream {
            guard areReadOnly else {
                throw LayerError.sourceUnusable(
                    source: source.described, reason: "one of the subvolumes is writable")
            }
            return Choice(
                dirty: try fromStream(old: old, new: new, onEntry: onEntry), source: .stream,
                reason: "it was asked for")
        }
        do {
            let dirty = try fromSearch(new: new, since: transaction, onEntry: onEntry)
            return Choice(
                dirty: dirty, source: .search,
                reason: source == .search
                    ? "it was asked for"
                    : "the old tree is an ancestor of the new one, as of transid \(transaction)")
        } catch let error as BtrfsError where source == .auto && error.isRefusal {
            return Choice(
                dirty: nil, source: .walk, reason: "the caller may not search the metadata (\(error.errno))")
        }
    }

    private static func reason(_ lineage: Lineage) -> String {
        if case .unrelated(let reason) = lineage { reason } else { "" }
    }

    /// Every inode of the new tree whose item bears at least that transid (`BTRFS_IOC_TREE_SEARCH_V2`).
    private static func fromSearch(
        new: DeltaTree, since transaction: UInt64, onEntry: () throws -> Void
    ) throws -> DirtyInodes {
        var search = TreeSearch(new.subvolume)
        var inodes: Set<UInt64> = []
        // The names lie beside the items mostly: asking for each would be two searches an inode.
        var known: [UInt64: [InodeName]] = [:]
        try search.forEachInodeWithNames(changedSince: transaction) { inode, names in
            inodes.insert(inode.inode)
            if names.count == Int(inode.linkCount) { known[inode.inode] = names }
        }
        return try DirtyInodes(inodes) { inode in
            try onEntry()
            if let names = known.removeValue(forKey: inode) { return names }
            return try search.names(ofInode: inode)
        }
    }

    /// Every inode that the metadata-only send stream from the old to the new subvolume touches.
    ///
    /// Anything in the stream that does not fit the old tree is an error: a kernel with a send bug would else have the
    /// last word on what an image holds.
    private static func fromStream(
        old: DeltaTree, new: DeltaTree, onEntry: () throws -> Void
    ) throws -> DirtyInodes {
        let space = try StreamNamespace(subvolume: old.subvolume)
        do {
            let reader = try SendReader(new.subvolume, parent: old.subvolume)
            try reader.forEachCommand { command in
                try onEntry()
                try space.apply(command)
            }
        } catch let mismatch as StreamNamespace.Mismatch {
            throw LayerError.sourceUnusable(
                source: DeltaSource.stream.described, reason: mismatch.description)
        } catch let error as SendStreamError {
            throw LayerError.sourceUnusable(source: DeltaSource.stream.described, reason: "\(error)")
        } catch let error as BtrfsError where !error.isRefusal {
            // The kernel cannot send every tree: not one with paths above PATH_MAX, and not where it runs into a bug.
            throw LayerError.sourceUnusable(source: DeltaSource.stream.described, reason: "\(error)")
        }
        var search = TreeSearch(new.subvolume)
        return try DirtyInodes(space.dirty) { inode in try search.names(ofInode: inode) }
    }
}

extension DeltaSource {
    /// The source for a person, with no article.
    package var described: String {
        switch self {
        case .auto: "best source"
        case .stream: "send stream"
        case .search: "tree search"
        case .walk: "walk"
        }
    }
}

extension BtrfsError {
    /// The caller may not do it, as opposed to that it failed.
    fileprivate var isRefusal: Bool { errno == .notPermitted || errno == .permissionDenied }
}

extension StreamNamespace {
    func apply(_ command: SendCommand) throws {
        func path(_ bytes: SendCommand.Bytes) throws(Mismatch) -> BytePath {
            guard let path = BytePath(bytes) else { throw .malformed("a path holds a zero byte") }
            return path
        }
        func made(_ inode: UInt64?) throws(Mismatch) -> UInt64 {
            guard let inode else { throw .malformed("a new inode has no number") }
            return inode
        }
        switch command {
        case .subvol:
            throw Mismatch.malformed("it is not incremental")
        case .snapshot, .end:
            break
        case .mkfile(let at, let inode), .mkdir(let at, let inode):
            try make(try path(at), inode: try made(inode))
        case .mknod(let at, let inode, _, _), .mkfifo(let at, let inode, _, _),
            .mksock(let at, let inode, _, _):
            try make(try path(at), inode: try made(inode))
        case .symlink(let at, let inode, _):
            try make(try path(at), inode: try made(inode))
        case .rename(let from, let to):
            try rename(try path(from), to: try path(to))
        case .link(let at, let existing):
            try link(try path(at), target: try path(existing))
        case .unlink(let at), .rmdir(let at):
            try unlink(try path(at))
        case .setXattr(let at, _, _): try touch(try path(at))
        case .removeXattr(let at, _): try touch(try path(at))
        case .write(let at, _, _): try touch(try path(at))
        case .clone(let at, _, _, _, _, _, _): try touch(try path(at))
        case .truncate(let at, _): try touch(try path(at))
        case .chmod(let at, _): try touch(try path(at))
        case .chown(let at, _, _): try touch(try path(at))
        case .utimes(let at, _, _, _, _): try touch(try path(at))
        case .updateExtent(let at, _, _): try touch(try path(at))
        case .fallocate(let at, _, _, _): try touch(try path(at))
        case .fileattr(let at, _): try touch(try path(at))
        case .encodedWrite, .enableVerity:
            throw Mismatch.malformed("it has commands of a later version than was asked for")
        }
    }
}
