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
    package init(of path: BytePath, logger: Logger, cancellation: Cancellation = Cancellation()) {
        self.path = path
        self.logger = logger
        self.cancellation = cancellation
        isLoopback = LoopbackStore.hasImage(path)
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
            try check(store)
            return try destroy(store)
        }
        try destroyImage(isMounted: try isUnused())
    }

    /// False for a store that is not mounted. Nothing of it is open when this returns.
    private func isUnused() throws -> Bool {
        guard let store = try open() else { return false }
        // What is mounted there may be another than what the image file has.
        let image = try LoopbackStore.openImage(of: path)
        _ = try LoopbackStore.device(of: path, image: image.fd)
        try check(store)
        return true
    }

    // MARK: What is in the way

    private func check(_ store: SnapshotStore) throws {
        if let other = try foreign(in: store) {
            throw VarveError(
                .failed, "\"\(store.path.appending(other))\" is not the store's",
                subject: store.path.appending(other),
                remedy: .moveAway)
        }
        _ = try lockEverything(of: store)
        for place in try ContainerdFolder(of: store).places() { _ = try place.lockUnused() }
        for name in try Self.bundles(of: store) {
            let bundle = store.path.appending(StoreLayout.bundles).appending(name)
            let opened: OwnedDescriptor
            do throws(Errno) {
                opened = try FileDescriptor.workingDirectory.openDirectory(bundle)
            } catch {
                continue
            }
            _ = try BundleLock(.exclusive, in: opened.fd, bundle)
        }
        let own = try attempt("look at", path) { () throws(Errno) in try store.directory.fd.path() }
        let mounts = try attempt("look for mounts below", path) { () throws(Errno) in
            try MountTable.mounts(below: own).filter { $0.point != own }
        }
        if let point = mounts.first?.point {
            throw VarveError(
                .failed, "something is mounted at \"\(point)\"", subject: point,
                remedy: .unmount(path, recursively: true))
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
        guard try isReleased(file.fd, image) else {
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
        if try isReleased(file, image) { return }
        try LoopbackStore.mount(at: path)
        throw VarveError(
            .failed, "\"\(path)\" is in use: another mount name space, such as a container's, has it mounted",
            subject: path, remedy: .endUsers(of: path))
    }

    private func isReleased(_ file: FileDescriptor, _ image: BytePath) throws -> Bool {
        for _ in 0..<40 {
            let isShown = try attempt("look at", image) { () throws(Errno) in
                try LoopDevice.attached(to: file) != nil
            }
            if !isShown { return true }
            try cancellation.check()
            usleep(50_000)
        }
        return false
    }

    // MARK: A directory

    /// By what it is known goes last: what is cut short can be gone on with.
    private func destroy(_ store: SnapshotStore) throws {
        for name in try Self.bundles(of: store) {
            try cancellation.check()
            let bundles = try attempt("open", StoreLayout.bundles) { () throws(Errno) in
                SharedDescriptor(try store.directory.fd.openDirectory(StoreLayout.bundles))
            }
            try SubvolumeDirectory(opened: bundles, store: store.path, name: StoreLayout.bundles)
                .deleteEntry(name)
        }
        for place in try ContainerdFolder(of: store).places() { try place.forget(cancellation) }
        // Nobody takes a lock from now on.
        let everything = try lockEverything(of: store)
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
        extendLifetime(everything)
        // A mount point stays, and so does what is a subvolume of somebody's.
        guard let parent = try? FileDescriptor.workingDirectory.openDirectory(path.directory) else { return }
        do throws(Errno) { try parent.fd.removeDirectory(path.lastComponent) } catch {
            logger.info("the empty directory \"\(path)\" stays: \(error.explanation)")
        }
    }
}
