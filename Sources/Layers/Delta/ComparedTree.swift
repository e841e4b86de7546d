import Glibc
import SystemCalls
import SystemPackage

/// One of the two trees of a comparison, seen as an image sees it: sockets and nested subvolumes are not there.
struct ComparedTree: Sendable {
    /// The root directory of the tree, open for reading. It may lie below the root of its subvolume.
    let root: FileDescriptor
    /// `st_dev` of the root. In btrfs another one marks the root of a nested subvolume or a mount point; elsewhere it may be
    /// that of any file: overlayfs shows what it is stacked from (kernel, Documentation/filesystems/overlayfs.rst, "Inode
    /// properties").
    let device: UInt64
    private let isBtrfs: Bool
    /// Whatever is mounted in it is an error.
    private let refusesMounts: Bool

    /// - Parameter refusesMounts: for a tree that is not a snapshot: something may be mounted on a directory of the
    ///   image, which is then hidden and not gone.
    init(root: FileDescriptor, refusesMounts: Bool = false) throws(LayerError) {
        self.root = root
        self.refusesMounts = refusesMounts
        (device, isBtrfs) = try attempt("look at", .current) { () throws(Errno) in
            (try root.status().device, try root.fileSystem().isBtrfs)
        }
    }

    /// A snapshot shows a subvolume that was nested in its source as an empty directory with this number
    /// (BTRFS_EMPTY_SUBVOL_DIR_OBJECTID, fs/btrfs/btrfs_inode.h).
    private static let emptySubvolumeDirectory: UInt64 = 2

    /// Nil for a nested subvolume, or the stub that a snapshot has of one.
    private func inTree(_ status: FileStatus) -> FileStatus? {
        guard isBtrfs else { return status }
        return status.device != device || status.inode == Self.emptySubvolumeDirectory ? nil : status
    }

    /// Nil for what is never part of an image.
    func visible(_ status: FileStatus) -> FileStatus? {
        guard let status = inTree(status) else { return nil }
        if status.type == nil || status.type == .socket { return nil }
        return status
    }

    /// What `name` in `directory` is; nil if there is nothing that counts.
    func status(of name: BytePath, in directory: FileDescriptor, path: BytePath) throws(LayerError)
        -> FileStatus?
    {
        let status = try attempt("look at", path) { () throws(Errno) in
            try directory.statusIfPresent(of: name)
        }
        guard let status else { return nil }
        // A nested subvolume, or a snapshot's stub of one, has a device number of its own too, and is no mount.
        if refusesMounts, status.device != device, try isMount(name, in: directory, path: path) {
            throw .unrepresentable(
                path: path, reason: "it lies on another file system than the rest of the tree",
                remedy: "unmount it")
        }
        return visible(status)
    }

    private func isMount(_ name: BytePath, in directory: FileDescriptor, path: BytePath) throws(LayerError)
        -> Bool
    {
        try attempt("look at", path) { () throws(Errno) in
            do throws(Errno) {
                _ = try directory.open(name, [.path, .noFollow], resolve: [.beneath, .noCrossing])
                return false
            } catch .improperLink {
                return true
            }
        }
    }

    /// What lies at `path` below the root, no symbolic link followed; nil if there is nothing that counts.
    func status(at path: BytePath) throws(LayerError) -> FileStatus? {
        try anyStatus(at: path).flatMap(visible)
    }

    /// The same, sockets included; nested subvolumes are still not there.
    func anyStatus(at path: BytePath) throws(LayerError) -> FileStatus? {
        let components = path.components
        do throws(Errno) {
            // A path may be longer than the kernel takes at once.
            var directory = SharedDescriptor(try root.open(.current, [.path, .directory]))
            var piece = BytePath.empty
            for (index, component) in components.enumerated() {
                piece = piece.appending(component)
                if index == components.count - 1 {
                    let found = try directory.fd.open(
                        piece, [.path, .noFollow], resolve: [.beneath, .noSymlinks])
                    return inTree(try found.fd.status())
                }
                if piece.count > 3_000 {
                    directory = SharedDescriptor(
                        try directory.fd.open(
                            piece, [.path, .directory, .noFollow], resolve: [.beneath, .noSymlinks]))
                    piece = .empty
                }
            }
            return inTree(try directory.fd.status())
        } catch .noSuchFileOrDirectory {
            return nil
        } catch .notDirectory {
            return nil
        } catch .tooManySymbolicLinkLevels {
            // With RESOLVE_NO_SYMLINKS also the last component, if it is a link itself, gives ELOOP: look at it
            // from its directory.
            return try symbolicLink(at: components)
        } catch {
            throw .system(operation: "look at", path: path, errno: error)
        }
    }

    private func symbolicLink(at components: [BytePath]) throws(LayerError) -> FileStatus? {
        guard let name = components.last else { return nil }
        let path = components.dropLast().reduce(BytePath.empty) { $0.appending($1) }
        do throws(Errno) {
            let directory = try root.open(
                path.isEmpty ? .current : path, [.path, .directory], resolve: [.beneath, .noSymlinks])
            return inTree(try directory.fd.status(of: name))
        } catch .noSuchFileOrDirectory {
            return nil
        } catch .notDirectory {
            return nil
        } catch .tooManySymbolicLinkLevels {
            return nil
        } catch {
            throw .system(operation: "look at", path: path.appending(name), errno: error)
        }
    }

    /// The directory `name` in `directory`, open for listing.
    static func open(_ name: BytePath, in directory: FileDescriptor, path: BytePath) throws(LayerError)
        -> SharedDescriptor
    {
        SharedDescriptor(
            try attempt("open the directory", path) { () throws(Errno) in try directory.openDirectory(name) })
    }
}
