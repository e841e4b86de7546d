import VarveBtrfs
package import VarveLayers
package import Logging
package import VarveSystem
import SystemPackage

/// The exact changes between any two subvolumes of one btrfs.
///
/// A side is named by the path of its root directory or, where nothing has that path, by the name of a snapshot or a
/// chain of the store. Of bundles, snapshots and chains the trees in `rootfs/` are compared, of any other subvolume all
/// of it. A side that is writable is compared as it is now, by a snapshot for as long as it takes.
package struct SubvolumeComparison: Sendable {
    private let store: SnapshotStore?
    private let logger: Logger

    /// - Parameter store: for names, and for snapshots of what is writable; nil if there is none.
    package init(store: SnapshotStore?, logger: Logger) {
        self.store = store
        self.logger = logger
    }

    /// - Parameter onEntry: called for each entry looked at; throws to stop.
    package func delta(
        from old: BytePath, to new: BytePath, source: DeltaSource = .auto,
        onEntry: @escaping @Sendable () throws -> Void = {}
    ) throws -> DeltaResult {
        let oldSide = try side(old)
        let newSide = try side(new)
        guard try oldSide.subvolume.fd.fileSystemUUID() == newSide.subvolume.fd.fileSystemUUID() else {
            throw VarveError(
                .failed,
                "\"\(old)\" and \"\(new)\" lie on different file systems; only subvolumes of one btrfs can be compared",
                subject: new)
        }
        guard oldSide.hasRootfs == newSide.hasRootfs else {
            let (bundle, other) = oldSide.hasRootfs ? (old, new) : (new, old)
            throw VarveError(
                .failed,
                "\"\(bundle)\" holds its tree in rootfs/, and \"\(other)\" is a plain subvolume",
                subject: bundle,
                remedy: .follow("compare two of the same kind")
            )
        }
        do {
            return try compare(oldSide, newSide, snapshots: false, source, onEntry)
        } catch LayerError.treeChanged where canSnapshot(oldSide) && canSnapshot(newSide) {
            logger.debug("a side is written to while it is compared; snapshots of both are compared instead")
            do {
                return try compare(oldSide, newSide, snapshots: true, source, onEntry)
            } catch LayerError.sourceUnusable where source != .auto {
                // Of snapshots that was to be expected, and it is not why the sides cannot be compared so.
                throw LayerError.treeChanged
            }
        }
    }

    /// - Parameter snapshots: also of what is read-only. It takes longer; but a file that was opened before its subvolume was made
    ///   read-only can still be written to.
    private func compare(
        _ old: Side, _ new: Side, snapshots: Bool, _ source: DeltaSource,
        _ onEntry: @escaping @Sendable () throws -> Void
    ) throws -> DeltaResult {
        let oldTree = try frozen(old, snapshots: snapshots)
        let newTree = try frozen(new, snapshots: snapshots)
        let result = try Delta.compute(
            old: oldTree.tree(), new: newTree.tree(), source: source, logger: logger, onEntry: onEntry)
        extendLifetime(oldTree)
        extendLifetime(newTree)
        return try result.requireAll()
    }

    private struct Side {
        var path: BytePath
        var subvolume: SharedDescriptor
        var hasRootfs: Bool
    }

    private func side(_ path: BytePath) throws -> Side {
        let opened: SharedDescriptor
        do throws(PlaceError) {
            opened = SharedDescriptor(try Place.directory(path, .safeLinks))
        } catch {
            if error.errno == .noSuchFileOrDirectory { return try namedSide(path) }
            if error.errno == .notDirectory {
                throw VarveError(
                    .failed, "\"\(path)\" is not a directory", subject: path,
                    remedy: .name("the root directory of a subvolume"))
            }
            throw VarveError(error, "open", path)
        }
        return try side(path, opened)
    }

    private func namedSide(_ path: BytePath) throws -> Side {
        guard let store else {
            throw VarveError(
                .notFound,
                "there is no subvolume \"\(path)\", and no store that could have a snapshot of that name",
                subject: path)
        }
        var found: SharedDescriptor?
        if path.components.count == 1, !path.isAbsolute, !path.hasPrefix([UInt8(ascii: ".")]) {
            found = try store.findSnapshot(path)
            if found == nil, let name = path.string.flatMap({ ChainName($0) }) {
                found = try store.chains.find(name)?.subvolume
            }
        }
        guard let found else {
            throw VarveError(
                .notFound,
                "there is no subvolume \"\(path)\", nor a snapshot or chain of that name in the store \"\(store.path)\"",
                subject: path
            )
        }
        return Side(path: path, subvolume: found, hasRootfs: true)
    }

    private func side(_ path: BytePath, _ directory: SharedDescriptor) throws -> Side {
        guard try directory.fd.isBtrfs() else {
            throw VarveError(
                .unsupported, "\"\(path)\" is not on btrfs; only subvolumes of one btrfs can be compared",
                subject: path)
        }
        guard try directory.fd.isSubvolume() else {
            throw VarveError(
                .failed,
                "\"\(path)\" is not a subvolume", subject: path,
                remedy: .name("the root directory of one (btrfs subvolume list shows them)")
            )
        }
        return Side(path: path, subvolume: directory, hasRootfs: try hasRootfs(path, directory))
    }

    /// A bundle has `umoci.json` beside `rootfs/`; a chain or a snapshot lies in the store.
    private func hasRootfs(_ path: BytePath, _ directory: SharedDescriptor) throws -> Bool {
        try attempt("look into", path) { () throws(Errno) in
            guard try directory.fd.statusIfPresent(of: StoreLayout.rootfs)?.isDirectory == true else {
                return false
            }
            if try directory.fd.statusIfPresent(of: BundleMetadata.fileName) != nil { return true }
            guard let store else { return false }
            let parent = try directory.fd.status(of: "..")
            for own in [store.chains.directory, store.snapshotsDirectory, store.refreshedDirectory] {
                let status = try own.fd.status()
                if status.device == parent.device, status.inode == parent.inode { return true }
            }
            return false
        }
    }

    /// A side that does not change while it is compared, or of which the comparison tells if it did.
    private final class FrozenSide {
        private let subvolume: SharedDescriptor
        private let root: SharedDescriptor
        private let state: DeltaTree.State
        /// Deleted with this value.
        private let snapshot: WorkSubvolume?
        /// Keeps others out of a bundle.
        private let lock: BundleLock?

        init(
            _ side: Side, subvolume: SharedDescriptor, snapshot: consuming WorkSubvolume?,
            lock: BundleLock? = nil
        ) throws(VarveError) {
            self.lock = lock
            self.subvolume = subvolume
            state = if snapshot == nil { .unknown } else { .snapshot }
            self.snapshot = consume snapshot
            root = SharedDescriptor(
                try attempt("open", side.path) { () throws(Errno) in
                    try subvolume.fd.openDirectory(side.hasRootfs ? StoreLayout.rootfs : .current)
                })
        }

        func tree() -> DeltaTree { DeltaTree(subvolume: subvolume.fd, root: root.fd, state: state) }
    }

    private func canSnapshot(_ side: Side) -> Bool {
        guard let store else { return false }
        return (try? store.directory.fd.fileSystemUUID() == side.subvolume.fd.fileSystemUUID()) == true
    }

    private func frozen(_ side: Side, snapshots: Bool) throws -> FrozenSide {
        if !snapshots, try side.subvolume.fd.isReadOnlySubvolume() {
            return try FrozenSide(side, subvolume: side.subvolume, snapshot: nil)
        }
        guard let store, canSnapshot(side) else {
            throw VarveError(
                .failed,
                "\"\(side.path)\" is writable, and there is no store on its file system to take a snapshot in",
                subject: side.path, remedy: .compareSnapshot(side.path)
            )
        }
        // Of a bundle, with the mount points of a run in it, the changes would be wrong.
        let lock = side.hasRootfs ? try BundleLock(in: side.subvolume.fd, side.path) : nil
        let snapshot = try store.work.makeSnapshot(of: side.subvolume, readOnly: true, for: side.path)
        let opened = try snapshot.open(for: side.path)
        return try FrozenSide(side, subvolume: opened, snapshot: snapshot, lock: lock)
    }
}
