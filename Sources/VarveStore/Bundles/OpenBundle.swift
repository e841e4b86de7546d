import VarveBtrfs
import VarveLayers
import VarveOCI
package import VarveSystem
import SystemPackage

/// What a bundle's delta counts from, which is what made it.
package enum BundleKind: String, Sendable {
    /// A snapshot of a chain in a store.
    case btrfs
    /// A record that the directory driver made.
    case directory
    /// An mtree file, as umoci makes it.
    case umoci
    /// A chain in a store, of which it is no snapshot: a copy of a bundle of a store, as cp -a makes it.
    case copy
    /// Programs that hooks.toml names: `umoci.json` says so.
    case hooks

    /// Finds out what a bundle is by what lies in it. No store is needed for that.
    package static func of(_ bundle: BytePath) throws -> BundleKind {
        let opened = try OpenBundle(bundle)
        guard let kind = opened.kind else { throw opened.notABundle }
        return kind
    }
}

/// A bundle of whatever kind.
struct OpenBundle {
    let path: BytePath
    let directory: SharedDescriptor
    /// The image that the bundle is of; nil if it has no `umoci.json`.
    let manifest: Digest?
    /// Nil if it is no bundle at all.
    let kind: BundleKind?

    init(_ path: BytePath) throws {
        self.path = path
        do throws(PlaceError) {
            directory = SharedDescriptor(try Place.directory(path, .safeLinks))
        } catch {
            if error.errno == .noSuchFileOrDirectory { throw Self.isMissing(path) }
            if error.errno == .notDirectory { throw Self.notABundle(path) }
            throw VarveError(error, "open the bundle", path)
        }
        let file = path.appending(BundleMetadata.fileName)
        let bytes = try attempt("read", file) { [directory] () throws(Errno) -> [UInt8]? in
            do throws(Errno) {
                return try directory.fd.readFile(BundleMetadata.fileName, limit: BundleMetadata.limit)
            } catch .noSuchFileOrDirectory {
                return nil
            }
        }
        let metadata = try bytes.map { try BundleMetadata(parsing: $0, of: file) }
        manifest = metadata?.path.last?.digest
        kind = metadata?.isOfHooks == true ? .hooks : try Self.kind(directory, manifest, path)
    }

    /// The file system is the database: the record or mtree file of just the image that `umoci.json` names, or the
    /// subvolume's own attribute.
    private static func kind(_ directory: SharedDescriptor, _ manifest: Digest?, _ path: BytePath) throws
        -> BundleKind?
    {
        func has(_ name: BytePath) throws(VarveError) -> Bool {
            try attempt("look at", path.appending(name)) { () throws(Errno) in
                try directory.fd.statusIfPresent(of: name) != nil
            }
        }
        guard try has(StoreLayout.rootfs) else { return nil }
        let isSubvolume = try directory.fd.isSubvolume()
        guard let manifest else { return isSubvolume ? .btrfs : nil }
        if try has(BundleMetadata.recordName(manifest)) { return .directory }
        let isOfStore: Bool
        do {
            let attribute = try attempt("read the attributes of", path) { () throws(Errno) -> [UInt8]? in
                do throws(Errno) {
                    return try directory.fd.extendedAttribute(StoreLayout.chainAttribute)
                } catch .notSupported {
                    return nil
                }
            }
            isOfStore = ChainRecords(attribute ?? []).base(for: manifest) != nil
        }
        if isOfStore, isSubvolume { return .btrfs }
        // A bundle of a store that umoci has refreshed is umoci's from then on.
        if try has(BundleMetadata.mtreeName(manifest)) { return .umoci }
        if isSubvolume { return .btrfs }
        return isOfStore ? .copy : nil
    }

    static func isMissing(_ path: BytePath) -> VarveError {
        VarveError(
            .notFound,
            "there is no bundle \"\(path)\"", subject: path, remedy: .unpack(to: path, driver: nil))
    }

    static func notABundle(_ path: BytePath) -> VarveError {
        VarveError(
            .notFound,
            "\"\(path)\" is not a bundle: it needs rootfs/, and a record, an mtree file or a store that tells what it was unpacked as",
            subject: path
        )
    }

    var notABundle: VarveError {
        guard manifest != nil else { return Self.notABundle(path) }
        return VarveError(
            .notFound,
            "\"\(path)\" does not say what it was unpacked as: it has \(BundleMetadata.fileName), but neither a record nor an mtree file of that image, nor the attribute \(StoreLayout.chainAttribute), which a copy without extended attributes loses",
            subject: path,
            remedy: .follow("copy the bundle with its attributes (cp -a), or unpack the image again"))
    }

    /// Deletes a bundle that is a plain directory.
    ///
    /// - Parameters:
    ///   - isLocked: by the caller, for itself alone.
    ///   - cancellation: ends it where it is. What is left of the bundle is in a work directory then, and goes with the
    ///     next command that makes one there.
    static func remove(_ path: BytePath, isLocked: Bool, cancellation: Cancellation) throws {
        let bundle = try OpenBundle(path)
        // The roots of all subvolumes have one inode number, by which nothing can be told from another.
        guard bundle.manifest != nil, bundle.kind != .btrfs, bundle.kind != nil,
            try !bundle.directory.fd.isSubvolume()
        else {
            throw bundle.notABundle
        }
        let lock = isLocked ? nil : try BundleLock(.exclusive, in: bundle.directory.fd, path)
        defer { extendLifetime(lock) }
        let (parent, name) = try BundleRemoval.place(of: bundle.directory.fd, path)
        let obstacle = RemovalObstacle(bundle.directory.fd, path, cancellation)
        try obstacle.check(parent: parent.fd, path.directory)
        try obstacle.check(walks: true)
        // It may not be moved with the flags that root is free to take away.
        _ = try? bundle.directory.fd.clearProtection()
        do {
            // Out of sight first, so that a crash leaves nothing that looks whole.
            var work = try WorkDirectory(in: parent, path: path, cancellation: cancellation)
            racePoint("discard-bundle")
            let status = try attempt("look at", path) { () throws(Errno) in
                try bundle.directory.fd.status()
            }
            let moved = MovedAside.name(of: status.inode)
            try attempt("move away", path) { [opened = work.opened] () throws(Errno) in
                try parent.fd.rename(name, to: opened.fd, moved, replacing: false)
            }
            racePoint("moved-aside")
            let isRight = (try? work.opened.fd.status(of: moved).isSameFile(as: status)) ?? false
            guard isRight else {
                let place = MovedAside.putBack(moved, from: work.opened.fd, to: parent.fd, name)
                if place == nil { work.leave() }
                throw VarveError.wasReplaced(path, by: parent.fd, place, otherwise: (work.opened.fd, moved))
            }
            do throws(LayerError) {
                // The root file system first: it is a bundle until that is gone.
                let rootfs = StoreLayout.rootfs
                try TreeRemoval.removeTree(
                    rootfs, in: bundle.directory.fd, path: path.appending(rootfs), cancellation: cancellation
                ) { (parent, name) throws(Errno) in
                    do throws(Errno) {
                        return try PartialBundleRemoval.removeSubvolume(
                            in: parent, name, cancellation: cancellation)
                    } catch .notPermitted {
                        // Who may not delete subvolumes may empty and remove them.
                        return false
                    }
                }
                try TreeRemoval.empty(bundle.directory.fd, path: path, cancellation: cancellation)
            } catch .cancelled {
                work.leave()
                throw VarveError.cancelled
            } catch {
                // What is left can be looked at, and deleted once the cause is gone.
                _ = try? work.opened.fd.rename(moved, to: parent.fd, name, replacing: false)
                throw obstacle.explanation() ?? error
            }
            try work.remove(path)
        } catch let error as VarveError where error.code == .noSpace {
            // No room to move it: what makes it a bundle goes first, in its place.
            try attempt("remove", path.appending(BundleMetadata.fileName)) { () throws(Errno) in
                try bundle.directory.fd.unlink(BundleMetadata.fileName)
            }
            // By its name goes only what is empty.
            try TreeRemoval.empty(bundle.directory.fd, path: path, cancellation: cancellation)
            try attempt("remove the directory", path) { () throws(Errno) in
                try parent.fd.removeDirectory(name)
            }
        }
    }
}

extension VarveError {
    /// A bundle that something else has taken the name of since it was opened.
    ///
    /// - Parameters:
    ///   - parent: the directory in which it lay.
    ///   - place: the name there of what had its name then; nil where that could not be moved back.
    ///   - other: where it is then.
    static func wasReplaced(
        _ bundle: BytePath, by parent: FileDescriptor, _ place: BytePath?,
        otherwise other: (directory: FileDescriptor, name: BytePath)
    ) -> VarveError {
        var words =
            "\"\(bundle)\" was replaced by something else while it was to be deleted; nothing was deleted"
        if place != bundle.lastComponent {
            let now = (place == nil ? try? other.directory.path() : try? parent.path())?
                .appending(place ?? other.name)
            words += ", and what had that name is \(now.map { "\"\($0)\"" } ?? "elsewhere") now"
        }
        return VarveError(.failed, words, subject: bundle, remedy: .tryAgain)
    }
}

/// Deletes bundles of every kind.
package enum BundleRemoval {
    /// The directory that a bundle lies in and its name there, by which it can be moved away.
    ///
    /// - Parameter bundle: what was opened by that path.
    /// - Throws: `VarveError`, `usage` for what lies in a store's own directories.
    static func place(
        of bundle: FileDescriptor, _ path: BytePath
    ) throws -> (parent: SharedDescriptor, name: BytePath) {
        let name = path.lastComponent
        guard !name.isEmpty, name != .current, name != ".." else {
            let known = (try? bundle.path()).flatMap { $0 == "/" ? nil : $0 }
            throw VarveError(
                .usage, "\"\(path)\" does not end with the name of a bundle, by which it is deleted",
                subject: path, remedy: .name("it as \(known?.shellWord ?? "PATH/BUNDLE")"))
        }
        let parentPath = path.directory
        let parent: SharedDescriptor
        do throws(PlaceError) { parent = SharedDescriptor(try Place.directory(parentPath, .safeLinks)) } catch
        {
            throw VarveError(error, "open the directory", parentPath)
        }
        let isItself = try attempt("look at", path) { () throws(Errno) in
            try parent.fd.status(of: name).isSameFile(as: bundle.status())
        }
        guard isItself else {
            throw VarveError(
                .failed, "\"\(path)\" is a symbolic link", subject: path, remedy: .name("the bundle itself"))
        }
        // The trees of a containerd's, chains and snapshots have rootfs/ too.
        let own = try attempt("look above", path) { () throws(Errno) in
            try StoreGround.foundName(of: [name], in: parent.fd)
        }
        if let own {
            throw VarveError(
                .usage, "\"\(path)\" lies in \(own)/ and is part of a store, not a bundle",
                subject: path, remedy: .name("a bundle"))
        }
        return (parent, name)
    }

    /// - Parameters:
    ///   - cancellation: see `OpenBundle.remove`.
    ///   - hooks: gives the programs that made a bundle; nil where there are none any more, and nobody is asked.
    ///   - store: opens the store, for a bundle that is a subvolume.
    package static func remove(
        _ path: BytePath, cancellation: Cancellation = Cancellation(),
        hooks: () throws -> HooksDriver? = { nil },
        store: () throws -> SnapshotStore
    ) throws {
        try FullFileSystem.naming(path, "delete") {
            let lock = try askHooks(path, cancellation, hooks)
            try removeAny(path, isLocked: lock != nil, cancellation, store: store)
            extendLifetime(lock)
        }
    }

    /// Has the program of a bundle of hooks give back what the bundle needs. It is asked only once nothing else forbids to delete the
    /// bundle but mounts, which may be the program's own.
    ///
    /// - Returns: what keeps others out of the bundle meanwhile; nil if nobody is asked, or what is open would keep a mount.
    private static func askHooks(
        _ path: BytePath, _ cancellation: Cancellation, _ hooks: () throws -> HooksDriver?
    ) throws -> BundleLock? {
        let kind: BundleKind?
        do { kind = try OpenBundle(path).kind } catch let error as VarveError
            where [.notFound, .invalidInput].contains(error.code)
        {
            // What is not there or damaged has no program; who deletes it says so.
            kind = nil
        }
        guard kind == .hooks, let hooks = try hooks() else { return nil }
        let lock = try lockedForRemoval(path, cancellation)
        try hooks.prepareRemoval(of: path, cancellation: cancellation)
        return lock
    }

    private static func lockedForRemoval(
        _ path: BytePath, _ cancellation: Cancellation
    ) throws -> BundleLock? {
        let bundle = try OpenBundle(path)
        let lock = try BundleLock(.exclusive, in: bundle.directory.fd, path)
        let (parent, _) = try place(of: bundle.directory.fd, path)
        let obstacle = RemovalObstacle(bundle.directory.fd, path, cancellation)
        try obstacle.check(parent: parent.fd, path.directory)
        try obstacle.checkAllButMounts()
        // A program that has mounted something at the bundle itself could not unmount it.
        let isMount = try attempt("look at the mount of", path) { () throws(Errno) in
            try bundle.directory.fd.mountID() != parent.fd.mountID()
        }
        return isMount ? nil : lock
    }

    /// Throws for a subvolume that nothing says was made as a bundle: many a subvolume has a `rootfs/` that is not Varve's.
    static func requireBundle(_ subvolume: FileDescriptor, _ path: BytePath) throws(VarveError) {
        let missing = try attempt("look into", path) { () throws(Errno) -> String? in
            guard try subvolume.statusIfPresent(of: StoreLayout.rootfs)?.isDirectory == true else {
                return "it has no rootfs/"
            }
            if try subvolume.statusIfPresent(of: BundleMetadata.fileName) != nil { return nil }
            for attribute in StoreLayout.bundleAttributes + StoreLayout.chainAttributes {
                if try subvolume.extendedAttribute(attribute) != nil { return nil }
            }
            return "it has neither \(BundleMetadata.fileName) nor an attribute of Varve's"
        }
        guard let missing else { return }
        throw VarveError(
            .notFound, "\"\(path)\" is a subvolume, but no bundle: \(missing)", subject: path,
            remedy: [.current, ".."].contains(path.lastComponent)
                ? nil : .follow("delete it with: btrfs subvolume delete \(path.shellWord)"))
    }

    private static func removeAny(
        _ path: BytePath, isLocked: Bool, _ cancellation: Cancellation, store: () throws -> SnapshotStore
    ) throws {
        let directory: SharedDescriptor
        do throws(PlaceError) { directory = SharedDescriptor(try Place.directory(path, .safeLinks)) } catch {
            if error.errno == .noSuchFileOrDirectory {
                throw VarveError(
                    .notFound, "there is no bundle \"\(path)\" to delete", subject: path, remedy: .correctPath
                )
            }
            if error.errno == .notDirectory { throw OpenBundle.notABundle(path) }
            throw VarveError(error, "open the bundle", path)
        }
        if try directory.fd.isSubvolume() {
            try requireBundle(directory.fd, path)
            return try store().removeBundle(path, isLocked: isLocked)
        }
        try OpenBundle.remove(path, isLocked: isLocked, cancellation: cancellation)
    }
}
