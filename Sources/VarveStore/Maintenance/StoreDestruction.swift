import Glibc
package import Logging
import VarveLayers
package import VarveSystem
import SystemPackage

/// The end of a store: all that is in it goes, bundles in its `bundles/` and named snapshots included, and a loopback store's image file.
///
/// Nothing goes while something of it is in use: a command, a daemon, a container, a mount. A second call goes on with what one that was
/// cut short has left. Bundles elsewhere on the file system stay whole.
package struct StoreDestruction {
    private let path: BytePath
    private let logger: Logger
    private let cancellation: Cancellation
    private let isLoopback: Bool

    /// What goes; nil for a loopback store that is not mounted.
    package struct Contents: Sendable {
        package var chains: Int
        package var bundles: Int
        package var snapshots: Int
        package var containerds: Int
    }

    /// Nothing is deleted yet.
    package init(of path: BytePath, logger: Logger, cancellation: Cancellation = Cancellation())
        throws(VarveError)
    {
        self.path = path
        self.logger = logger
        self.cancellation = cancellation
        isLoopback = try LoopbackStore.hasImage(path)
    }

    package func contents() throws -> Contents? {
        guard let store = try open() else { return nil }
        return Contents(
            chains: try store.chains.list().count, bundles: try Self.bundles(of: store).count,
            snapshots: try store.snapshots().count,
            containerds: try ContainerdFolder(of: store).places().count)
    }

    /// Nil for a loopback store that is not mounted. It is in use for as long as the value is there.
    private func open() throws -> SnapshotStore? {
        let description = path.appending(StoreLayout.description)
        let isThere = try attempt("look at", description) { () throws(Errno) in
            try FileDescriptor.workingDirectory.statusIfPresent(of: description) != nil
        }
        if !isThere, isLoopback { return nil }
        let store = try SnapshotStore.open(at: path, logger: logger, cancellation: cancellation)
        store.sweeper.sweep()
        return store
    }

    /// What lies in `bundles/`.
    private static func bundles(of store: SnapshotStore) throws -> [BytePath] {
        let opened = try attempt("open", StoreLayout.bundles) { () throws(Errno) -> SharedDescriptor? in
            do throws(Errno) {
                return SharedDescriptor(try store.directory.fd.openDirectory(StoreLayout.bundles))
            } catch .noSuchFileOrDirectory {
                return nil
            }
        }
        return try attempt("list", StoreLayout.bundles) { () throws(Errno) in
            try opened?.fd.entries().map(\.name) ?? []
        }
    }

    package func run() throws {
        guard Privileges.isRoot else {
            throw VarveError(
                .unsupported, "only root may destroy the store \"\(path)\": it may hold what others wrote",
                subject: path, remedy: .runAsRoot)
        }
        guard isLoopback else {
            guard let store = try open() else { return }
            return try destroy(store, holding: check(store))
        }
        try destroyImage(isMounted: try isUnused())
    }

    /// False for a store that is not mounted. Nothing of it is open when this returns.
    private func isUnused() throws -> Bool {
        guard let store = try open() else { return false }
        // What is mounted there may be another than what the image file has.
        let image = try LoopbackStore.openImage(of: path)
        _ = try LoopbackStore.device(of: path, image: image.fd)
        // Its file system cannot be unmounted while a lock is held, and is not while somebody else has a file of it open.
        _ = try check(store)
        return true
    }

    // MARK: What is in the way

    /// What keeps others out of the store until it is gone.
    private struct Locks {
        /// Of `locks/`: no command that makes or deletes something begins.
        let everything: HeldLock
        /// No daemon begins to serve them.
        let containerds: [(place: ContainerdPlace, lock: HeldLock)]
        /// No command begins to work in one of them.
        var bundles: LockedBundles
    }

    /// Throws if something is in the way. Nothing goes before all locks are held.
    private func check(_ store: SnapshotStore) throws -> Locks {
        if let other = try foreign(in: store) {
            throw VarveError(
                .failed, "\"\(store.path.appending(other))\" is not the store's",
                subject: store.path.appending(other),
                remedy: .moveAway)
        }
        let locks = Locks(
            everything: try lockEverything(of: store),
            containerds: try ContainerdFolder(of: store).places().map { ($0, try $0.lockUnused()) },
            bundles: try LockedBundles(of: store))
        try checkUsers(store, roots: locks.bundles.entries.flatMap(\.roots))
        return locks
    }

    /// Throws if something of the store is mounted, or is the root directory of a process. The store itself may be a mount point, which
    /// all mount name spaces of the host have then.
    private func checkUsers(_ store: SnapshotStore, roots: [TreeUsers.Root]) throws {
        let users = try attempt("look for mounts below", path) { () throws(Errno) in
            try TreeUsers(of: store.directory.fd, in: .all, roots: roots, cancellation).all
        }
        let own = try attempt("look at", path) { () throws(Errno) in try store.directory.fd.path().components
        }
        for user in users where !user.place.isEmpty {
            if case .mount(let point) = user.kind, point.components.starts(with: own) {
                throw VarveError(
                    .failed, "something is mounted at \"\(point)\"", subject: point,
                    remedy: .unmount(path, recursively: true))
            }
            let subject = path.appending(BytePath(joining: user.place))
            throw VarveError(
                .failed, "\"\(subject)\" is in use: \(user.words)", subject: subject, remedy: user.remedy)
        }
    }

    private func lockEverything(of store: SnapshotStore) throws -> HeldLock {
        let everything = try attempt("lock", StoreLayout.locks) { () throws(Errno) in
            try store.locks.tryLockEverything()
        }
        guard let everything else {
            throw VarveError(
                .failed, "another command works with the store \"\(path)\"", subject: path,
                remedy: .tryAgainLater)
        }
        return everything
    }

    /// The first that is in the store's directory and not of its making.
    private func foreign(in store: SnapshotStore) throws(VarveError) -> BytePath? {
        let known =
            StoreLayout.directories + [
                StoreLayout.description, StoreLayout.bundles, StoreLayout.published, StoreLayout.pins,
                StoreLayout.images, StoreLayout.containerd,
            ]
        let entries = try attempt("list", path) { () throws(Errno) in try store.directory.fd.entries() }
        return entries.map(\.name).filter {
            !known.contains($0) && !$0.hasPrefix(SnapshotStore.temporaryDescription)
        }.min()
    }

    // MARK: Loopback

    private func destroyImage(isMounted: Bool) throws {
        let image = LoopbackStore.image(of: path)
        let boot = try BootMount(of: path, logger: logger)
        let file = try LoopbackStore.openImage(of: path)
        if isMounted { try unmount(file.fd, image) }
        // Nobody mounts it from now on.
        let lock = try LoopbackStore.lockImage(file.fd, path)
        defer { extendLifetime(lock) }
        guard try LoopbackStore.isReleased(file.fd, image, cancellation) else {
            throw VarveError(
                .failed, "the image file \"\(image)\" is in use: it is mounted elsewhere",
                subject: image, remedy: .endUsers(of: path))
        }
        try boot.remove()
        try attempt("remove", image) { () throws(Errno) in
            let parent = try FileDescriptor.workingDirectory.openDirectory(image.directory)
            try parent.fd.unlink(image.lastComponent)
            // Where it was mounted. What is in it was there before the store.
            do throws(Errno) { try parent.fd.removeDirectory(path.lastComponent) } catch {}
            try parent.fd.synchronize()
        }
    }

    private func unmount(_ file: FileDescriptor, _ image: BytePath) throws {
        try LoopbackStore.unmount(path)
        // The kernel takes the device apart with the last user, who may be in another mount name space.
        if try LoopbackStore.isReleased(file, image, cancellation) { return }
        try LoopbackStore.mount(at: path)
        throw VarveError(
            .failed, "\"\(path)\" is in use: another mount name space, such as a container's, has it mounted",
            subject: path, remedy: .endUsers(of: path))
    }

    // MARK: A directory

    /// By what it is known goes last: what is cut short can be gone on with.
    private func destroy(_ store: SnapshotStore, holding held: consuming Locks) throws {
        var locks = held
        while let bundles = locks.bundles.directory, !locks.bundles.entries.isEmpty {
            let directory = SubvolumeDirectory(opened: bundles, store: store.path, name: StoreLayout.bundles)
            for entry in locks.bundles.entries {
                try cancellation.check()
                racePoint("destroy-bundle")
                try directory.deleteEntry(entry.name)
            }
            // What came meanwhile.
            locks.bundles = try LockedBundles(of: store)
        }
        for (place, lock) in locks.containerds { try place.forget(holding: lock, cancellation) }
        let directories = [
            store.chains.directory, store.snapshotsDirectory, store.refreshedDirectory, store.work.directory,
        ]
        for directory in directories {
            for entry in try directory.entries() {
                try cancellation.check()
                try directory.deleteEntry(entry.name)
            }
        }
        let entries = try attempt("list", path) { () throws(Errno) in try store.directory.fd.entries() }
        for entry in entries where entry.name != StoreLayout.description {
            try cancellation.check()
            try SubvolumeDirectory(opened: store.directory, store: store.path, name: .empty)
                .deleteEntry(entry.name)
        }
        try attempt("remove", path.appending(StoreLayout.description)) { () throws(Errno) in
            try store.directory.fd.unlink(StoreLayout.description)
            try store.directory.fd.synchronize()
        }
        extendLifetime(locks)
        // A mount point stays, and so does what is a subvolume of somebody's.
        guard let parent = try? FileDescriptor.workingDirectory.openDirectory(path.directory) else { return }
        do throws(Errno) { try parent.fd.removeDirectory(path.lastComponent) } catch {
            logger.info("the empty directory \"\(path)\" stays: \(error.explanation)")
        }
    }
}
