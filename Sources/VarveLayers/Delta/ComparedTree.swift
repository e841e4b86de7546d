import Glibc
import VarveSystem
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
    /// The mount on which the tree lies. Whatever is mounted in it is an error.
    private let mount: UInt64
    private let seesSubvolumes: Bool

    /// - Parameter seesSubvolumes: stubs of nested subvolumes are there, as empty directories.
    init(root: FileDescriptor, seesSubvolumes: Bool = false) throws(LayerError) {
        self.root = root
        self.seesSubvolumes = seesSubvolumes
        (device, mount, isBtrfs) = try attempt("look at", .current) { () throws(Errno) in
            guard let found = try root.mountedStatusIfPresent(of: .current) else {
                throw Errno.noSuchFileOrDirectory
            }
            return (found.status.device, found.mount, try root.fileSystem().isBtrfs)
        }
    }

    /// A snapshot shows a subvolume that was nested in its source as an empty directory with this number
    /// (BTRFS_EMPTY_SUBVOL_DIR_OBJECTID, fs/btrfs/btrfs_inode.h).
    private static let emptySubvolumeDirectory: UInt64 = 2

    /// Nil for a nested subvolume, or the stub that a snapshot has of one.
    private func inTree(_ status: FileStatus) -> FileStatus? {
        guard isBtrfs else { return status }
        if status.inode == Self.emptySubvolumeDirectory { return seesSubvolumes ? status : nil }
        return status.device == device ? status : nil
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
        let found = try attempt("look at", path) { () throws(Errno) in
            try directory.mountedStatusIfPresent(of: name)
        }
        guard let found else { return nil }
        if found.mount != mount { throw .mounted(on: name, in: directory) }
        return visible(found.status)
    }

    /// What lies at `path` below the root, no symbolic link followed; nil if there is nothing that counts.
    func status(at path: BytePath) throws(LayerError) -> FileStatus? {
        try anyStatus(at: path).flatMap(visible)
    }

    /// What lies at `path`, as `status(at:)` says it, but sockets too. Nested subvolumes are not there.
    func anyStatus(at path: BytePath) throws(LayerError) -> FileStatus? {
        let parent: OwnedDescriptor
        do throws(Errno) {
            parent = try root.openBelow(path.parent, [.path, .directory], resolve: .noCrossing)
        } catch  where error.isAbsence {
            return nil
        } catch .improperLink {
            throw .mounted(on: path, in: root)
        } catch {
            throw .system(operation: "look at", path: path, errno: error)
        }
        let name = path.isEmpty ? BytePath.current : path.lastComponent
        do throws(Errno) {
            guard let found = try parent.fd.mountedStatusIfPresent(of: name) else { return nil }
            if found.mount != mount { throw Errno.improperLink }
            return inTree(found.status)
        } catch .improperLink {
            throw .mounted(on: name, in: parent.fd)
        } catch {
            throw .system(operation: "look at", path: path, errno: error)
        }
    }

    /// The directory `name` in `directory`, open for listing.
    static func open(_ name: BytePath, in directory: FileDescriptor, path: BytePath) throws(LayerError)
        -> SharedDescriptor
    {
        racePoint("enter-directory")
        return SharedDescriptor(
            try directory.openInTree(name, [.directory, .noFollow], "open the directory", path))
    }

    /// The directory at `path` below the root, open for listing.
    func open(at path: BytePath) throws(LayerError) -> SharedDescriptor {
        do throws(Errno) {
            return SharedDescriptor(
                try root.openBelow(path, [.directory, .noFollow], resolve: .noCrossing))
        } catch .improperLink {
            throw .mounted(on: path, in: root)
        } catch {
            throw .system(operation: "open the directory", path: path, errno: error)
        }
    }
}
