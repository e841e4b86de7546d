import VarveFormats
import VarveBtrfs
import VarveOCI
package import VarveSystem
import SystemPackage

package import Logging

/// A store of layer chains on btrfs, open: where it is, and the parts that it consists of.
///
/// The file system is the database: which chains there are is which subvolumes `chains/` holds, and what a bundle came
/// from is its subvolume's parent UUID. Several processes may use one store at once.
package final class SnapshotStore: Sendable {
    /// Where the store is, as it was named when it was opened.
    package let path: BytePath
    let directory: SharedDescriptor
    /// The published chains.
    package let chains: ChainCatalog
    /// What is being built or deleted.
    package let work: WorkArea
    /// The locks of chains and of what is in the work area.
    let locks: StoreLocks
    /// Why chains are kept from which nothing descends.
    package let pins: PinFolder
    /// Snapshots of bundles that users have named.
    let snapshotsDirectory: SubvolumeDirectory
    /// The states of bundles that were refreshed.
    let refreshedDirectory: SubvolumeDirectory
    let logger: Logger
    /// Deletes what processes that are gone left. Nothing is swept before somebody calls it.
    package var sweeper: Sweeper {
        Sweeper(
            work: work, refreshed: refreshedDirectory, snapshots: snapshotsDirectory, logger: logger)
    }

    /// How the name of `store.json` begins while it is written (`writeFileDurably`).
    static let temporaryDescription = Array(".store.json.".utf8)

    /// Makes a store in `path`: a directory on btrfs, or one that is yet to be made there. An existing store is left
    /// as it is. An error leaves nothing behind.
    ///
    /// - Parameter compression: what the file system is to be mounted with, for `LoopbackStore`.
    package static func initialize(
        at path: BytePath, compression: StoreCompression? = nil, logger: Logger,
        cancellation: Cancellation = Cancellation()
    ) throws -> SnapshotStore {
        var made = MadeDirectories()
        do {
            return try initialize(at: path, compression, logger: logger, cancellation, &made).store
        } catch {
            made.remove()
            throw error
        }
    }

    /// - Returns: the store and, for as long as the caller makes more of it, the lock that keeps others from taking it for whole; nil for one that
    ///   was there.
    static func initialize(
        at path: BytePath, _ compression: StoreCompression? = nil, logger: Logger,
        _ cancellation: Cancellation, _ made: inout MadeDirectories
    ) throws -> (store: SnapshotStore, making: HeldLock?) {
        let directory = try makeOwnDirectory(path, noting: &made)
        try requireBtrfs(directory.fd, path)
        try requireOwn(directory.fd, path)
        let isThere = try isStore(directory.fd, path)
        let lock = try attempt("lock", path) { () throws(Errno) in
            if !isThere { try directory.fd.changeMode(to: 0o700) }
            let opened = SharedDescriptor(try directory.fd.openDirectory(.current))
            try opened.fd.lock(.exclusive, cancellation)
            return HeldLock(on: opened)
        }
        // Whoever else makes it just now has made it then, for another user maybe.
        try requireOwn(directory.fd, path)
        if try isStore(directory.fd, path) {
            return (try open(at: path, logger: logger, cancellation: cancellation), nil)
        }
        try attempt("make a store in", path) { () throws(Errno) in
            for name in StoreLayout.directories {
                do throws(Errno) {
                    try directory.fd.makeDirectory(name, mode: 0o700)
                    made.add(name, in: directory)
                    // The umask may have taken more than others' permissions.
                    try directory.fd.changeMode(of: name, to: 0o700)
                } catch .fileExists {}
            }
            for entry in try directory.fd.entries() where entry.name.hasPrefix(temporaryDescription) {
                // What an interrupted run left.
                try directory.fd.unlink(entry.name)
            }
        }
        var description: JSONObject = [
            "formatVersion": .number(JSONNumber(StoreLayout.formatVersion)),
            "uuid": .string(SubvolumeUUID.random().description),
        ]
        if let compression { description["compression"] = .string(compression.description) }
        try attempt("write", path.appending(StoreLayout.description)) { () throws(Errno) in
            try directory.fd.writeFileDurably(
                StoreLayout.description, JSONValue.object(description).serialized() + [0x0a], mode: 0o600)
        }
        return (try open(at: path, logger: logger, cancellation: cancellation), lock)
    }

    /// Whether a directory is a store. One that was interrupted while it was made holds some of its own directories, and nothing else.
    ///
    /// - Throws: `VarveError` if there is anything else in it.
    private static func isStore(_ directory: FileDescriptor, _ path: BytePath) throws(VarveError) -> Bool {
        let existing = try attempt("list the directory", path) { () throws(Errno) in try directory.entries() }
        if existing.contains(where: { $0.name == StoreLayout.description }) { return true }
        let own = Set(StoreLayout.directories)
        if let other = existing.first(where: {
            !own.contains($0.name) && !$0.name.hasPrefix(temporaryDescription)
        }) {
            throw VarveError(
                .failed,
                "\"\(path)\" cannot be a store: it is not empty (\"\(other.name)\" is in it)", subject: path,
                remedy: .name("an empty directory")
            )
        }
        return false
    }

    /// Opens an existing store. What processes that are gone left in it stays until `sweeper` is called.
    ///
    /// - Parameter cancellation: ends the waits for locks of other processes.
    package static func open(
        at path: BytePath, logger: Logger, cancellation: Cancellation = Cancellation()
    ) throws -> SnapshotStore {
        let directory: SharedDescriptor
        do throws(PlaceError) {
            directory = SharedDescriptor(try Place.ownDirectory(path))
        } catch {
            guard let errno = error.errno else {
                throw VarveError(error, "the store \"\(path)\" is not safe to use")
            }
            throw openFailure(path, errno)
        }
        let description: [UInt8]
        do throws(Errno) {
            description = try directory.fd.readFile(StoreLayout.description, limit: 1 << 16)
        } catch {
            throw openFailure(path, error)
        }
        let version = try? JSONValue(parsing: description).object?["formatVersion"]?.int64
        guard let version else {
            throw VarveError(
                .invalidInput,
                "\"\(path)/store.json\" is damaged: it names no formatVersion", subject: path,
                remedy: .restoreStore
            )
        }
        guard version == StoreLayout.formatVersion else {
            throw VarveError(
                .unsupported,
                "the store in \"\(path)\" has format \(version), and this varve knows format \(StoreLayout.formatVersion)",
                subject: path,
                remedy: .useNewerVersion
            )
        }
        try requireBtrfs(directory.fd, path)
        let store = try SnapshotStore(
            path: path, directory: directory, logger: logger, cancellation: cancellation)
        store.warnOfAccessTimes()
        return store
    }

    private static func openFailure(_ path: BytePath, _ errno: Errno) -> VarveError {
        switch errno {
        case .noSuchFileOrDirectory:
            if (try? LoopbackStore.hasImage(path)) == true {
                VarveError(
                    .notFound,
                    "the store at \"\(path)\" is not mounted", subject: path,
                    remedy: .mountStore(path, isNew: false))
            } else if let unfinished = try? LoopbackStore.unfinishedImage(of: path) {
                LoopbackStore.unfinished(unfinished, of: path)
            } else {
                VarveError(
                    .notFound,
                    "there is no store in \"\(path)\"", subject: path, remedy: .createStore(path)
                )
            }
        case .permissionDenied:
            VarveError(
                .unsupported,
                "the store in \"\(path)\" may be opened by its owner only", subject: path,
                remedy: .useStoreOfOwn(path)
            )
        default: VarveError.system("open the store", path, errno)
        }
    }

    private convenience init(
        path: BytePath, directory: SharedDescriptor, logger: Logger, cancellation: Cancellation
    ) throws(VarveError) {
        func open(_ name: BytePath) throws(VarveError) -> SubvolumeDirectory {
            let opened = try attempt("open", path.appending(name)) { () throws(Errno) in
                do throws(Errno) {
                    return SharedDescriptor(try directory.fd.openDirectory(name))
                } catch .noSuchFileOrDirectory {
                    try directory.fd.makeDirectory(name, mode: 0o700)
                    return SharedDescriptor(try directory.fd.openDirectory(name))
                }
            }
            return SubvolumeDirectory(opened: opened, store: path, name: name)
        }
        self.init(
            path: path, directory: directory, chains: try open(StoreLayout.chains),
            snapshots: try open(StoreLayout.snapshots), work: try open(StoreLayout.work),
            locks: try open(StoreLayout.locks).opened, refreshed: try open(StoreLayout.refreshed),
            logger: logger, cancellation: cancellation, seen: ChainCatalog.SeenLayers())
    }

    private init(
        path: BytePath, directory: SharedDescriptor, chains: SubvolumeDirectory,
        snapshots: SubvolumeDirectory, work: SubvolumeDirectory, locks: SharedDescriptor,
        refreshed: SubvolumeDirectory, logger: Logger, cancellation: Cancellation,
        seen: ChainCatalog.SeenLayers
    ) {
        self.path = path
        self.directory = directory
        self.logger = logger
        self.locks = StoreLocks(directory: locks, cancellation: cancellation)
        pins = PinFolder(in: directory, path: path)
        snapshotsDirectory = snapshots
        refreshedDirectory = refreshed
        self.work = WorkArea(directory: work, locks: self.locks)
        self.chains = ChainCatalog(
            chains, times: PublishedTimesFolder(in: directory, logger: logger), locks: self.locks, pins: pins,
            logger: logger, seen: seen)
    }

    /// This store for one operation: its waits for locks end when that is cancelled.
    package func bound(to cancellation: Cancellation) -> SnapshotStore {
        SnapshotStore(
            path: path, directory: directory, chains: chains.directory, snapshots: snapshotsDirectory,
            work: work.directory, locks: locks.directory, refreshed: refreshedDirectory, logger: logger,
            cancellation: cancellation, seen: chains.seen)
    }

    private static func requireBtrfs(_ fd: FileDescriptor, _ path: BytePath) throws(VarveError) {
        let isBtrfs = try attempt("look at", path) { () throws(Errno) in try fd.fileSystem().isBtrfs }
        if !isBtrfs {
            throw VarveError(
                .unsupported,
                "\"\(path)\" is not on btrfs", subject: path,
                remedy: .createLoopbackStore(path, otherwise: true)
            )
        }
        if !Privileges.isRoot { try requireRemovableSubvolumes(fd, path) }
    }

    /// Throws unless others than root may delete subvolumes there that are their own.
    static func requireRemovableSubvolumes(_ fd: FileDescriptor, _ path: BytePath) throws(VarveError) {
        // btrfs(5): without it, what is half done could not be taken away.
        let options = try attempt("look at the mount of", path) { () throws(Errno) in
            try fd.fileSystemOptions()
        }
        if !options.contains("user_subvol_rm_allowed") {
            throw VarveError(
                .unsupported,
                "only root may delete subvolumes on the btrfs of \"\(path)\"", subject: path,
                remedy: .allowSubvolumeRemoval(path)
            )
        }
    }

    private func warnOfAccessTimes() {
        guard let info = try? directory.fd.fileSystem(), !info.isNoAccessTime else { return }
        logger.debug(
            "the store's file system is mounted with access times: every file read shows in the next delta's work; mount it noatime",
            metadata: ["store": "\(path)"])
    }
}
