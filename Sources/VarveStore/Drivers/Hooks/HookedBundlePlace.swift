import VarveBtrfs
import Glibc
import VarveLayers
import VarveSystem
import SystemPackage

/// Throws if somebody else could have changed what lies at a bundle's path, or could yet: a program that is told the path reads and
/// writes whatever lies there then. What is not there yet is looked at as far as it is.
func requireOwnPath(of bundle: BytePath) throws(VarveError) {
    do throws(PlaceError) {
        do throws(PlaceError) { _ = try Place.ownDirectory(bundle) } catch {
            guard error.errno == .noSuchFileOrDirectory else { throw error }
            _ = try Place.directory(bundle.directory, .own)
        }
    } catch {
        if error.errno == .noSuchFileOrDirectory || error.errno == .notDirectory { return }
        throw VarveError(error, "the bundle \"\(bundle)\" is not handed to a program")
    }
}

/// Where a bundle of hook programs is to be. What is made there goes with this value, mounts included, unless it is
/// kept.
final class HookedBundlePlace {
    private let place: NewPlace
    private var path: BytePath { place.path }
    private var parent: SharedDescriptor { place.parent }
    private var name: BytePath { place.name }
    /// Mounts that were there before belong to somebody else.
    private let foreignMounts: Set<UInt64>
    private var isKept = false
    /// The bundle's directory, locked, once it was opened: no two commands make one bundle.
    private var claimed: SharedDescriptor?
    private var hasWritten = false
    /// The empty directory that was there before, as it was.
    private let given: FileStatus?

    init(_ path: BytePath) throws {
        // Programs get its path, so nobody else may be able to put something else there.
        place = try NewPlace(path, for: "bundle", .inPlace, .own)
        given = try attempt("look at", path) { [place] () throws(Errno) in
            try place.isEmptyDirectory ? place.parent.fd.status(of: place.name) : nil
        }
        foreignMounts = Set(
            try attempt("list the mounts below", path) { () throws(Errno) in try MountTable.read() }.map(\.id)
        )
    }

    /// Opens the bundle. A hook may have made it, or another user put something else in its place.
    private func open() throws(VarveError) -> OwnedDescriptor {
        let opened = try attempt("open the bundle", path) { () throws(Errno) in
            try parent.fd.openDirectory(name)
        }
        let owner = try attempt("look at", path) { () throws(Errno) in try opened.fd.status().uid }
        guard owner == geteuid() else {
            throw VarveError(
                .failed, "\"\(path)\" belongs to another user (uid \(owner))", subject: path,
                remedy: .name("another bundle"))
        }
        try claim(opened.fd)
        return opened
    }

    /// Keeps other commands from making a bundle of the directory. A hook may have put another one in its place since.
    private func claim(_ bundle: FileDescriptor) throws(VarveError) {
        let status = try attempt("look at", path) { () throws(Errno) in try bundle.status() }
        if let claimed, (try? claimed.fd.status().isSameFile(as: status)) == true { return }
        let opened = try attempt("open the bundle", path) { () throws(Errno) in
            SharedDescriptor(try bundle.open(.current, [.directory]))
        }
        guard try attempt("lock", path, { () throws(Errno) in try opened.fd.tryLock(.exclusive) }) else {
            throw VarveError(
                .failed, "another command makes the bundle \"\(path)\" just now", subject: path,
                remedy: .name("another bundle"))
        }
        let isBundle = try attempt("look into", path) { () throws(Errno) in
            try opened.fd.statusIfPresent(of: BundleMetadata.fileName) != nil
        }
        guard hasWritten || !isBundle else {
            throw VarveError(
                .failed, "\"\(path)\" was made by somebody else meanwhile", subject: path,
                remedy: .name("another bundle"))
        }
        claimed = opened
    }

    /// How many entries `rootfs/` has; nil if there is none.
    func rootfsEntries() throws(VarveError) -> Int? {
        let isThere = try attempt("look at", path) { () throws(Errno) in
            try parent.fd.statusIfPresent(of: name) != nil
        }
        guard isThere else { return nil }
        let bundle = try open()
        return try attempt("list the directory", path.appending(StoreLayout.rootfs)) { () throws(Errno) in
            do throws(Errno) {
                let rootfs = try bundle.fd.openDirectory(StoreLayout.rootfs)
                return try rootfs.fd.entries().count
            } catch .noSuchFileOrDirectory {
                return nil
            }
        }
    }

    /// Makes what no hook has made.
    ///
    /// - Parameter mode: the permissions of the bundle's directory, whoever made it.
    func complete(
        makesRootfs: Bool, owners: OwnerMapping, mode: UInt32 = UnpackContext.closedBundleMode
    ) throws {
        let owner = try owners.root()
        try attempt("make the bundle", path) { () throws(Errno) in
            do throws(Errno) { try parent.fd.makeDirectory(name, mode: mode) } catch .fileExists {}
        }
        racePoint("hooked-bundle")
        let bundle = try open()
        try attempt("make the bundle", path) { () throws(Errno) in
            try bundle.fd.changeMode(to: mode)
            guard makesRootfs else { return }
            do throws(Errno) {
                try bundle.fd.makeRootfs(owner: owner == (geteuid(), getegid()) ? nil : owner)
            } catch .fileExists {
            }
        }
    }

    /// The root file system as it is now: a hook may have mounted another since the last time.
    func rootfs() throws(VarveError) -> SharedDescriptor {
        let bundle = try open()
        return SharedDescriptor(
            try attempt("open", path.appending(StoreLayout.rootfs)) { () throws(Errno) in
                try bundle.fd.openDirectory(StoreLayout.rootfs)
            })
    }

    func write(_ files: [BundleFile]) throws(VarveError) {
        let bundle = try open()
        hasWritten = true
        for file in files {
            try attempt("write", path.appending(file.name)) { () throws(Errno) in
                try bundle.fd.writeFileDurably(file.name, file.contents)
            }
        }
    }

    func keep() { isKept = true }

    deinit {
        if !isKept { takeAway() }
    }

    private func takeAway() {
        // What another command has made there, or makes, is not this value's.
        let isThere: Bool
        do throws(Errno) { isThere = try parent.fd.statusIfPresent(of: name) != nil } catch { return }
        guard !isThere || (try? open()) != nil, let real = try? parent.fd.path(),
            let mounts = try? MountTable.mounts(below: real.appending(name))
        else { return }
        // The newest first: it lies on top.
        for mount in mounts.reversed() where !foreignMounts.contains(mount.id) {
            try? unmount(mount.point, detaching: true)
        }
        guard let given else {
            try? PartialBundleRemoval.remove(name, in: parent.fd)
            return
        }
        if let bundle = try? parent.fd.openDirectory(name),
            (try? bundle.fd.status().isSameFile(as: given)) == true
        {
            for entry in (try? bundle.fd.entries()) ?? [] {
                try? PartialBundleRemoval.removeEntry(entry.name, in: bundle.fd)
            }
            try? bundle.fd.changeMode(to: given.permissions)
            return
        }
        // A hook has put something else in its place.
        try? PartialBundleRemoval.remove(name, in: parent.fd)
        try? parent.fd.makeDirectory(name, mode: given.permissions)
    }
}

/// Deletes a bundle that was never whole, subvolumes in it included. A mount point in it is not entered.
enum PartialBundleRemoval {
    static func removeEntry(_ name: BytePath, in directory: FileDescriptor) throws {
        let isDirectory = try attempt("look at", name) { () throws(Errno) in
            try directory.status(of: name).isDirectory
        }
        if isDirectory { return try remove(name, in: directory) }
        try attempt("remove", name) { () throws(Errno) in try directory.unlink(name) }
    }

    /// - Throws: an error with ECANCELED if `cancellation` ended it.
    static func remove(
        _ name: BytePath, in directory: FileDescriptor, cancellation: Cancellation? = nil
    ) throws {
        try TreeRemoval.removeTree(name, in: directory, path: name, cancellation: cancellation) {
            (parent, name) throws(Errno) in
            try removeSubvolume(in: parent, name, cancellation: cancellation)
        }
    }

    /// Deletes `name` in `parent` if it is a subvolume, with those nested in it; says whether it was one.
    ///
    /// - Throws: `canceled` if `cancellation` ended it between two of them.
    static func removeSubvolume(
        in parent: FileDescriptor, _ name: BytePath, cancellation: Cancellation? = nil
    ) throws(Errno) -> Bool {
        // The root of a subvolume has this number (BTRFS_FIRST_FREE_OBJECTID): nothing else is opened to be asked.
        guard try parent.status(of: name).inode == 256 else { return false }
        let opened = try parent.open(name, [.directory, .noFollow], resolve: .noCrossing)
        do throws(BtrfsError) {
            guard try opened.fd.isSubvolume() else { return false }
            _ = try parent.removeSubvolumeTree(name, cancellation: cancellation)
            return true
        } catch {
            throw error.errno == .interrupted ? .canceled : error.errno
        }
    }
}
