import Btrfs
import Glibc
import Layers
import SystemCalls
import SystemPackage

/// Where a bundle of hook programs is to be. What is made there goes with this value, mounts included, unless it is
/// kept.
final class HookedBundlePlace {
    private let path: BytePath
    private let parent: SharedDescriptor
    private let name: BytePath
    private let existed: Bool
    /// Mounts that were there before belong to somebody else.
    private let foreignMounts: Set<UInt64>
    private var isKept = false

    init(_ path: BytePath) throws {
        self.path = path
        name = path.lastComponent
        guard !name.isEmpty, name != ".." else {
            throw StoreError(
                .usage, "\"\(path)\" cannot be a bundle; name a directory that is yet to be made")
        }
        parent = try SnapshotStore.makeDirectory(path.parent)
        let existing = try attempt("look at", path) { [parent, name] () throws(Errno) in
            try parent.fd.statusIfPresent(of: name)
        }
        existed = existing != nil
        foreignMounts = Set(
            try attempt("list the mounts below", path) { () throws(Errno) in try MountTable.read() }.map(\.id)
        )
        guard let existing else { return }
        let isEmpty = try attempt("list the directory", path) { [parent, name] () throws(Errno) in
            guard existing.isDirectory else { return false }
            let directory = try parent.fd.openDirectory(name)
            return try directory.fd.entries().isEmpty
        }
        guard isEmpty else {
            // Not this value's to take away.
            isKept = true
            throw StoreError(.failed, "\"\(path)\" exists already; remove it or name another bundle")
        }
    }

    /// How many entries `rootfs/` has; nil if there is none.
    func rootfsEntries() throws(StoreError) -> Int? {
        try attempt("list the directory", path.appending(StoreLayout.rootfs)) { () throws(Errno) in
            do throws(Errno) {
                let bundle = try parent.fd.openDirectory(name)
                let rootfs = try bundle.fd.openDirectory(StoreLayout.rootfs)
                return try rootfs.fd.entries().count
            } catch .noSuchFileOrDirectory {
                return nil
            }
        }
    }

    /// Makes what no hook has made.
    func complete(makesRootfs: Bool, owners: OwnerMapping) throws {
        let owner = try owners.root()
        try attempt("make the bundle", path) { () throws(Errno) in
            do throws(Errno) { try parent.fd.makeDirectory(name, mode: 0o755) } catch .fileExists {}
            let bundle = try parent.fd.openDirectory(name)
            guard makesRootfs else { return }
            do throws(Errno) {
                try bundle.fd.makeDirectory(StoreLayout.rootfs, mode: 0o755)
                if owner != (geteuid(), getegid()) {
                    try bundle.fd.changeOwner(of: StoreLayout.rootfs, uid: owner.0, gid: owner.1)
                }
                try bundle.fd.changeMode(of: StoreLayout.rootfs, to: 0o755)
                try bundle.fd.setTimes(of: StoreLayout.rootfs, access: .epoch, modification: .epoch)
            } catch .fileExists {
            }
        }
    }

    /// The root file system as it is now: a hook may have mounted another since the last time.
    func rootfs() throws(StoreError) -> SharedDescriptor {
        SharedDescriptor(
            try attempt("open", path.appending(StoreLayout.rootfs)) { () throws(Errno) in
                let bundle = try parent.fd.openDirectory(name)
                return try bundle.fd.openDirectory(StoreLayout.rootfs)
            })
    }

    func write(_ files: [BundleFile]) throws(StoreError) {
        let bundle = try attempt("open the bundle", path) { () throws(Errno) in
            try parent.fd.openDirectory(name)
        }
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
        guard let real = try? parent.fd.path() else { return }
        let mounts = (try? MountTable.mounts(below: real.appending(name))) ?? []
        // The newest first: it lies on top.
        for mount in mounts.reversed() where !foreignMounts.contains(mount.id) {
            try? unmount(mount.point, detaching: true)
        }
        try? PartialBundleRemoval.remove(name, in: parent.fd)
        if existed { try? parent.fd.makeDirectory(name, mode: 0o755) }
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

    static func remove(_ name: BytePath, in directory: FileDescriptor) throws {
        let top = try directory.openDirectory(name)
        if try top.fd.fileSystem().isBtrfs, try top.fd.isSubvolume() {
            _ = try directory.removeSubvolumeTree(name)
            return
        }
        // Directories still to empty, the deepest last, each with its parent and its name in it.
        final class Level {
            let descriptor: OwnedDescriptor
            let name: BytePath
            var entries: [DirectoryEntry]
            init(_ descriptor: consuming OwnedDescriptor, _ name: BytePath) throws(Errno) {
                entries = try descriptor.fd.entries()
                self.descriptor = descriptor
                self.name = name
            }
        }
        var levels = [try Level(try directory.openDirectory(name), name)]
        while let level = levels.last {
            guard let entry = level.entries.popLast() else {
                levels.removeLast()
                try (levels.last?.descriptor.fd ?? directory).removeDirectory(level.name)
                continue
            }
            let fd = level.descriptor.fd
            guard try fd.status(of: entry.name).isDirectory else {
                try fd.unlink(entry.name)
                continue
            }
            let below = try fd.open(entry.name, [.directory, .noFollow], resolve: [.beneath, .noCrossing])
            if try below.fd.fileSystem().isBtrfs, try below.fd.isSubvolume() {
                _ = try fd.removeSubvolumeTree(entry.name)
            } else {
                levels.append(try Level(below, entry.name))
            }
        }
    }
}
