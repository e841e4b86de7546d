import VarveBtrfs
import Glibc
package import Logging
package import VarveSystem
import SystemPackage

/// A store for hosts with no btrfs: a btrfs in an image file beside the store's directory, mounted there.
///
/// The image of the store `PATH` is `PATH.btrfs`. Mounting is the caller's business after a reboot (`varve store mount`).
package enum LoopbackStore {
    /// The smallest that mkfs.btrfs takes with room for a store, in bytes.
    package static let minimumSize: Int64 = 256 << 20

    /// The image file of the store at `path`.
    package static func image(of path: BytePath) -> BytePath {
        var bytes = Array(path.bytes)
        while bytes.count > 1, bytes.last == UInt8(ascii: "/") { bytes.removeLast() }
        return (BytePath(bytes) ?? path).appendingBytes(".btrfs")
    }

    /// Whether there is an image file for a store at `path`, mounted or not.
    static func hasImage(_ path: BytePath) throws(VarveError) -> Bool { try isThere(image(of: path)) }

    /// The image file beside a store's place that a command which was ended did not finish, if there is one: it may hold a store.
    static func unfinishedImage(of path: BytePath) throws(VarveError) -> BytePath? {
        let name = image(of: path).appendingBytes(".new")
        return try isThere(name) ? name : nil
    }

    private static func isThere(_ file: BytePath) throws(VarveError) -> Bool {
        try attempt("look at", file) { () throws(Errno) in
            do throws(Errno) {
                _ = try FileDescriptor.workingDirectory.status(of: file)
                return true
            } catch  where error.isAbsence {
                return false
            }
        }
    }

    /// Makes the image file, formats it, mounts it at `path` and makes a store there. What an error leaves half done is
    /// taken away again.
    ///
    /// - Parameters:
    ///   - size: of the image, in bytes; blocks are taken from the host as they are used.
    ///   - compression: of what is written from now on.
    package static func create(
        at path: BytePath, size: Int64, compression: StoreCompression? = nil, logger: Logger,
        cancellation: Cancellation = Cancellation()
    ) throws -> SnapshotStore {
        guard size >= minimumSize else {
            throw VarveError(
                .usage,
                "a loopback store needs at least \(minimumSize >> 20) MiB", subject: path,
                remedy: .enlargeLoopback(atLeast: minimumSize))
        }
        let image = image(of: path)
        guard geteuid() == 0 else {
            throw VarveError(
                .unsupported, "only root may mount \"\(image)\"", subject: image, remedy: .createStoreOnBtrfs)
        }
        var made = MadeDirectories()
        do {
            return try create(at: path, size: size, compression, logger: logger, cancellation, &made)
        } catch {
            made.remove()
            throw error
        }
    }

    private static func create(
        at path: BytePath, size: Int64, _ compression: StoreCompression?, logger: Logger,
        _ cancellation: Cancellation, _ made: inout MadeDirectories
    ) throws -> SnapshotStore {
        do {
            // Not kept open: what an interrupted run has mounted there is unmounted next.
            let directory = try SnapshotStore.makeOwnDirectory(path, noting: &made)
            try SnapshotStore.requireOwn(directory.fd, path)
        }
        let unfinished = try UnfinishedImage(of: path)
        if unfinished.holdsStore {
            logger.info(
                "the store at \"\(path)\" was made by a command that was ended just before it was done")
            let store = try SnapshotStore.open(at: path, logger: logger, cancellation: cancellation)
            try applyCompression(to: path)
            try unfinished.finish()
            return store
        }
        let directory = try SnapshotStore.makeOwnDirectory(path, noting: &made)
        try SnapshotStore.requireOwn(directory.fd, path)
        if try isMountPoint(path) {
            throw VarveError(
                .failed, "\"\(path)\" cannot become a loopback store: something is mounted there",
                subject: path,
                remedy: .unmount(path, recursively: false))
        }
        let entries = try attempt("list the directory", path) { () throws(Errno) in try directory.fd.entries()
        }
        guard entries.isEmpty else {
            throw VarveError(
                .failed,
                "\"\(path)\" cannot become a loopback store: it is not empty", subject: path,
                remedy: .name("an empty directory"))
        }
        try attempt("make the image file", unfinished.path) { () throws(Errno) in
            try unfinished.file.fd.setSize(size)
        }
        try warnOfSize(size, of: unfinished.file.fd, path, logger)
        try format(unfinished.path, cancellation)
        try mount(unfinished.path, at: path)
        do {
            let store = try SnapshotStore.initialize(
                at: path, compression: compression, logger: logger, cancellation: cancellation)
            try applyCompression(to: path)
            try cancellation.check()
            try unfinished.finish()
            return store
        } catch {
            do { try detach(path) } catch let failure {
                unfinished.leave()
                logger.warning(
                    "the unfinished image \"\(unfinished.path)\" stays, since it is mounted: \(failure)")
            }
            throw error
        }
    }

    /// The image is sparse. Where its file system fills up before it, the kernel can only answer writes in the store with EIO.
    static func warnOfSize(_ size: Int64, of image: FileDescriptor, _ store: BytePath, _ logger: Logger)
        throws
    {
        let path = LoopbackStore.image(of: store)
        let (free, taken) = try attempt("look at the file system of", path) {
            () throws(Errno) -> (Int64, Int64) in
            (try image.freeBytes(), try image.status().blocks * 512)
        }
        guard size - taken > free else { return }
        logger.warning(
            "the store may grow to \(byteCount(size)), but the file system of its image file \"\(path)\" has \(byteCount(free)) free: once that is full, writing in the store fails with I/O errors; keep room there, or make a smaller store"
        )
    }

    /// For people: in GiB or MiB, to one digit.
    static func byteCount(_ bytes: Int64) -> String {
        let (unit, name): (Int64, String) = bytes >= 1 << 30 ? (1 << 30, "GiB") : (1 << 20, "MiB")
        let tenths = bytes / (unit / 10)
        return tenths % 10 == 0 ? "\(tenths / 10) \(name)" : "\(tenths / 10).\(tenths % 10) \(name)"
    }

    /// The image file while it is made, as `PATH.btrfs.new`: under its own name it is whole. It goes with this value, and
    /// what an interrupted run left goes when the next one begins.
    private final class UnfinishedImage {
        let path: BytePath
        let file: SharedDescriptor
        /// The directory that the store is mounted at.
        let store: BytePath
        private let finished: BytePath
        /// Where both names are; others cannot change it.
        private let directory: SharedDescriptor
        private var name: BytePath { path.lastComponent }
        /// Whether the file is this value's to delete.
        private var isOwn = false
        private var isFinished = false
        /// An interrupted run got as far as that the store is whole. It is mounted.
        private(set) var holdsStore = false

        init(of store: BytePath) throws {
            self.store = store
            finished = image(of: store)
            path = finished.appendingBytes(".new")
            let parent = finished.parent
            do throws(PlaceError) {
                directory = SharedDescriptor(
                    try Place.directory(parent.isEmpty ? .current : parent, .own))
            } catch {
                throw VarveError(error, "\"\(finished)\" cannot be the image of a store")
            }
            let exists = VarveError(
                .failed,
                "\"\(finished)\" exists already", subject: finished,
                remedy: .mountStore(store, isNew: true))
            if try hasImage(store) { throw exists }
            file = try attempt("make the image file", path) { [directory, path] () throws(Errno) in
                SharedDescriptor(
                    try directory.fd.open(
                        path.lastComponent, [.readWrite, .create, .noFollow, .nonBlocking], mode: 0o600))
            }
            let status = try attempt("look at", path) { [file] () throws(Errno) in try file.fd.status() }
            guard status.isRegular, status.uid == geteuid(), status.linkCount == 1 else {
                throw VarveError(
                    .failed, "\"\(path)\" is not an image that varve began", subject: path,
                    remedy: .remove(or: nil))
            }
            // The loop device has a file of its own open, so the lock goes with the process that makes the store.
            guard try attempt("lock", path, { [file] () throws(Errno) in try file.fd.tryLock(.exclusive) })
            else {
                throw VarveError(
                    .failed, "another command makes the store \"\(store)\" just now", subject: store,
                    remedy: .wait)
            }
            let current = try attempt("look at", path) { [directory, path] () throws(Errno) in
                try directory.fd.statusIfPresent(of: path.lastComponent)
            }
            guard current?.inode == status.inode else { throw exists }
            // Of an interrupted run. It may have got as far as to make the store, in which somebody may have worked since.
            if status.size > 0 { holdsStore = try Self.findStore(in: file, path, at: store) }
            if holdsStore { return }
            isOwn = true
            try attempt("empty", path) { [file] () throws(Errno) in try file.fd.setSize(0) }
        }

        /// Whether there is a whole store in the image of an interrupted run, which is mounted then; else it is mounted nowhere.
        private static func findStore(in file: SharedDescriptor, _ image: BytePath, at store: BytePath) throws
            -> Bool
        {
            let description = store.appending(StoreLayout.description)
            if try isMountPoint(store) {
                _ = try LoopbackStore.device(of: store, image: file.fd)
            } else {
                guard try isFormatted(file.fd, image) else {
                    try requireReleased(file, image)
                    return false
                }
                do { try LoopbackStore.mount(image, at: store) } catch let error as VarveError {
                    // Whatever the reason is: there may be a store in it.
                    try requireReleased(file, image)
                    throw VarveError(
                        error.code,
                        "the unfinished image \"\(image)\" may hold a store, and is left as it is: \(error.reason)",
                        subject: image,
                        remedy: error.remedy
                            ?? .follow("mend what keeps it from being mounted, or remove the image"))
                }
            }
            let isWhole = try attempt("look at", description) { () throws(Errno) in
                try FileDescriptor.workingDirectory.statusIfPresent(of: description) != nil
            }
            if isWhole { return true }
            try detach(store)
            try requireReleased(file, image)
            return false
        }

        /// Whether there is a btrfs super block, or one of its copies (`btrfs_sb_offset`, fs/btrfs/disk-io.h): the first may be damaged.
        /// mkfs.btrfs(8) writes their magic number last, so that what has none never held a store.
        private static func isFormatted(_ file: FileDescriptor, _ image: BytePath) throws(VarveError) -> Bool
        {
            let magic = Array("_BHRfS_M".utf8)
            let found = UnsafeMutableRawBufferPointer.allocate(byteCount: magic.count, alignment: 1)
            defer { unsafe found.deallocate() }
            for block: Int64 in [64 << 10, 64 << 20, 256 << 30] {
                let count = try attempt("read", image) { () throws(Errno) in
                    try unsafe file.readFull(into: found, at: block + 0x40)
                }
                if unsafe count == magic.count && found.elementsEqual(magic) { return true }
            }
            return false
        }

        /// Throws if the image is still mounted, where this process does not see it.
        private static func requireReleased(_ file: SharedDescriptor, _ image: BytePath) throws {
            if try LoopbackStore.isReleased(file.fd, image, Cancellation()) { return }
            throw VarveError(
                .failed, "the image file \"\(image)\" is in use: it is mounted elsewhere", subject: image,
                remedy: .follow("end what uses it"))
        }

        /// The image gets its name, and is on disk with it.
        func finish() throws {
            racePoint("finish-image")
            try attempt("put in place", path) { () throws(Errno) in
                try file.fd.synchronize()
                try directory.fd.rename(name, to: directory.fd, finished.lastComponent, replacing: false)
                isFinished = true
                try directory.fd.synchronize()
            }
        }

        /// It is mounted still. The next command that makes the store goes on with it.
        func leave() { isOwn = false }

        deinit {
            if isOwn, !isFinished { try? directory.fd.unlink(name) }
        }
    }

    /// Mounts an existing loopback store, `noatime`. Does nothing if it is mounted.
    package static func mount(at path: BytePath) throws {
        // Of a mount that is there already the options are the administrator's.
        if try mount(image(of: path), at: path) { try applyCompression(to: path) }
    }

    /// What every mount of a store has. The kernel takes the device apart when it is unmounted: it is attached with autoclear.
    static let mountOptions = "user_subvol_rm_allowed"

    /// The store says how what is written to it is compressed, and can be read only once it is mounted.
    private static func applyCompression(to path: BytePath) throws {
        guard let compression = try StoreCompression.of(path) else { return }
        try attempt("mount the store with compression at", path) { () throws(Errno) in
            try VarveSystem.mount(
                "none", at: path, type: "btrfs", flags: [.remount, .noAccessTime],
                options: mountOptions + "," + compression.mountOption)
        }
    }

    /// What to say where a store is looked for and the image of one is there that was never finished.
    static func unfinished(_ image: BytePath, of path: BytePath) -> VarveError {
        VarveError(
            .notFound,
            "there is no store at \"\(path)\", but \"\(image)\", which was never finished, and may hold one that is kept if it is made",
            subject: path, remedy: .createLoopbackStore(path, otherwise: false))
    }

    /// The image file of the store at `path`, which nobody else can change, open.
    static func openImage(of path: BytePath) throws(VarveError) -> SharedDescriptor {
        let image = image(of: path)
        do throws(PlaceError) {
            // Whoever could write to it could put any file system there.
            return SharedDescriptor(try Place.ownFile(image, [.readWrite], amongOthers: true))
        } catch {
            guard let errno = error.errno else {
                throw VarveError(error, "the store at \"\(path)\" is not safe to mount")
            }
            guard errno == .noSuchFileOrDirectory else {
                throw VarveError.system("open the image file", image, errno)
            }
            if let unfinished = try unfinishedImage(of: path) { throw Self.unfinished(unfinished, of: path) }
            throw VarveError(
                .notFound,
                "there is no loopback store at \"\(path)\" (\"\(image)\" is missing)", subject: path,
                remedy: .createLoopbackStore(path, otherwise: false)
            )
        }
    }

    /// Whether no loop device shows an image any more. The kernel takes one apart with its last user, which may take two seconds.
    static func isReleased(_ file: FileDescriptor, _ image: BytePath, _ cancellation: Cancellation) throws
        -> Bool
    {
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

    /// Keeps all other commands from mounting, resizing and removing the image for as long as the result is there.
    ///
    /// - Parameter file: the image, opened before.
    static func lockImage(_ file: FileDescriptor, _ path: BytePath) throws(VarveError) -> HeldLock {
        let image = image(of: path)
        // The loop device goes on using what it is given, with its locks.
        let opened = try attempt("open the image file", image) { () throws(Errno) in
            SharedDescriptor(try file.reopened([.readOnly]))
        }
        for _ in 0..<200 {
            let isLocked = try attempt("lock the image file", image) { () throws(Errno) in
                try opened.fd.tryLock(.exclusive)
            }
            guard isLocked else {
                usleep(50_000)
                continue
            }
            let lock = HeldLock(on: opened)
            let names = try attempt("look at", image) { () throws(Errno) in try opened.fd.status().linkCount }
            if names > 0 { return lock }
            throw VarveError(
                .notFound, "there is no loopback store at \"\(path)\" (any more)", subject: path,
                remedy: .createLoopbackStore(path, otherwise: false))
        }
        throw VarveError(
            .failed, "another command makes, mounts or resizes the store \"\(path)\" just now", subject: path,
            remedy: .tryAgainLater)
    }

    /// The image of a store that is being made is locked by who makes it.
    ///
    /// One that is mounted already, in another mount name space such as a container's, is mounted from the same loop device: two devices that
    /// show one file would each write it as if it were alone.
    ///
    /// - Returns: false if it is mounted there already.
    @discardableResult
    private static func mount(_ image: BytePath, at path: BytePath) throws -> Bool {
        let file: SharedDescriptor
        var lock: HeldLock?
        defer { extendLifetime(lock) }
        if image == Self.image(of: path) {
            file = try openImage(of: path)
            lock = try lockImage(file.fd, path)
        } else {
            do throws(PlaceError) {
                file = SharedDescriptor(try Place.ownFile(image, [.readWrite], amongOthers: true))
            } catch {
                throw VarveError(error, "the store at \"\(path)\" is not safe to mount")
            }
        }
        var made = MadeDirectories()
        let directory = try SnapshotStore.makeOwnDirectory(path, noting: &made)
        let isBtrfs = try attempt("look at", path) { () throws(Errno) in try directory.fd.fileSystem().isBtrfs
        }
        if isBtrfs, try isMountPoint(path) {
            // A container may hide which devices there are.
            let attached = try attempt("look for the loop devices of", image) { () throws(Errno) in
                try AttachedFile.all()
            }
            if !attached.isEmpty { _ = try device(of: path, image: file.fd) }
            return false
        }
        do throws(Errno) {
            let device = try LoopDevice.showing(file.fd)
            try VarveSystem.mount(
                device.path, at: path, type: "btrfs", flags: .noAccessTime, options: mountOptions)
            extendLifetime(device)
            return true
        } catch .notPermitted {
            throw VarveError(
                .unsupported, "only root may mount \"\(image)\"", subject: image, remedy: .runAsRoot)
        } catch .permissionDenied {
            throw VarveError(
                .unsupported, "only root may mount \"\(image)\"", subject: image, remedy: .runAsRoot)
        } catch  where error == Errno(rawValue: ENODEV) {
            throw VarveError(
                .unsupported, "this kernel has no btrfs", subject: path, remedy: .loadModule("btrfs"))
        } catch .noSuchFileOrDirectory {
            throw VarveError(
                .unsupported, "this host has no loop devices", subject: path, remedy: .loadModule("loop"))
        } catch {
            throw VarveError.system("mount the store at", path, error)
        }
    }

    /// Unmounts a loopback store; the image stays.
    package static func unmount(_ path: BytePath) throws {
        // By its path: the kernel would follow a link of another user to any mount.
        do throws(PlaceError) { _ = try Place.directory(path, .own) } catch {
            if error.errno == nil {
                throw VarveError(error, "the store at \"\(path)\" is not safe to unmount")
            }
        }
        guard try isMountPoint(path), try holdsStore(path) else {
            throw VarveError(.notFound, "no store is mounted at \"\(path)\"", subject: path)
        }
        try detach(path)
    }

    /// Whether a store lies at `path`, or what is mounted there is its image. Somebody else's file system may be mounted there.
    private static func holdsStore(_ path: BytePath) throws(VarveError) -> Bool {
        let description = path.appending(StoreLayout.description)
        let isThere = try attempt("look at", description) { () throws(Errno) in
            try FileDescriptor.workingDirectory.statusIfPresent(of: description) != nil
        }
        if isThere { return true }
        guard try hasImage(path) else { return false }
        let image = try openImage(of: path)
        return (try? device(of: path, image: image.fd)) != nil
    }

    /// A file system is in use for moments at which nobody works in it: a process that is just being started has copies of all
    /// descriptors of its parent, until execve(2) closes them. So what is busy is tried again for a second.
    private static func detach(_ path: BytePath) throws(VarveError) {
        do throws(Errno) {
            var attempts = 50
            while true {
                do throws(Errno) { return try VarveSystem.unmount(path) } catch {
                    attempts -= 1
                    guard error == .resourceBusy, attempts > 0 else { throw error }
                    usleep(20_000)
                }
            }
        } catch .resourceBusy {
            throw VarveError(
                .failed,
                "\"\(path)\" is in use", subject: path, remedy: .endUsers(of: path)
            )
        } catch .notPermitted {
            throw VarveError(
                .unsupported, "only root may unmount \"\(path)\"", subject: path, remedy: .runAsRoot)
        } catch {
            throw VarveError.system("unmount", path, error)
        }
    }

    static func isMountPoint(_ path: BytePath) throws(VarveError) -> Bool {
        let here = FileDescriptor.workingDirectory
        return try attempt("look at", path) { () throws(Errno) in
            let directory = try here.open(path, [.directory, .path])
            let above = try directory.fd.status(of: "..")
            let status = try directory.fd.status()
            return above.device != status.device || above.inode == status.inode
        }
    }

    /// mkfs.btrfs(8). There is no library that formats a btrfs.
    private static func format(_ image: BytePath, _ cancellation: Cancellation) throws {
        let outcome: SupervisedProgram.Outcome
        do {
            outcome = try SupervisedProgram(
                arguments: [
                    try SupervisedProgram.ownProgram("mkfs.btrfs"), "--quiet", "--label", "varve", "--",
                    image,
                ], input: [],
                outputLimit: 1 << 20, timeLimit: .seconds(600)
            ).run(check: { try cancellation.check() })
        } catch let error as PlaceError {
            guard error.errno == .noSuchFileOrDirectory else {
                throw VarveError(error, "mkfs.btrfs is not run")
            }
            throw VarveError(
                .unsupported, "mkfs.btrfs is not installed", subject: "mkfs.btrfs",
                remedy: .install("btrfs-progs")
            )
        } catch let error as Errno {
            throw VarveError.system("run mkfs.btrfs on", image, error)
        }
        guard outcome.ending != .exited(status: 0) else { return }
        // It does not say which error it met: where there is no room for what it writes, this meets it too.
        try attempt("format", image) { () throws(Errno) in
            let file = try FileDescriptor.workingDirectory.open(image, [.readWrite, .noFollow])
            try file.fd.allocate(bytes: 16 << 20)
        }
        throw VarveError(
            .failed,
            "mkfs.btrfs cannot format \"\(image)\": \(outcome.lastWords ?? "\(outcome.ending)")",
            subject: image)
    }
}
