import Btrfs
import SystemCalls
import SystemPackage

/// Where a bundle is to be: checked before any work is done for it.
struct BundlePlace {
    private let path: BytePath
    private let parent: SharedDescriptor
    private let name: BytePath

    init(_ path: BytePath, store: SnapshotStore) throws {
        self.path = path
        name = path.lastComponent
        guard !name.isEmpty, name != .current, name != ".." else {
            throw StoreError(
                .usage, "\"\(path)\" cannot be a bundle; name a directory that is yet to be made")
        }
        let parentPath = path.parent
        parent = try SnapshotStore.makeDirectory(parentPath.isEmpty ? .current : parentPath)
        let isBtrfs = try attempt("look at", parentPath) { [parent] () throws(Errno) in
            try parent.fd.fileSystem().isBtrfs
        }
        guard isBtrfs, try parent.fd.fileSystemUUID() == store.directory.fd.fileSystemUUID() else {
            throw StoreError(
                .unsupported,
                "the bundle \"\(path)\" would not lie on the btrfs that holds the store \"\(store.path)\"; put it there, for example in \"\(store.path)/bundles\""
            )
        }
        try check()
    }

    private func check() throws {
        let existing = try attempt("look at", path) { () throws(Errno) in
            try parent.fd.statusIfPresent(of: name)
        }
        guard let existing else { return }
        var isEmptyDirectory = false
        if existing.isDirectory {
            isEmptyDirectory = try attempt("list the directory", path) { () throws(Errno) in
                let opened = try parent.fd.openDirectory(name)
                return try opened.fd.entries().isEmpty
            }
        }
        guard isEmptyDirectory else {
            throw StoreError(
                .failed,
                "\"\(path)\" exists already; remove it (varve bundle rm \(path)) or name another bundle")
        }
    }

    /// Moves the finished subvolume to the bundle's path; an empty directory there makes room.
    func put(_ bundle: inout WorkSubvolume) throws {
        do throws(Errno) {
            // An empty directory, not a subvolume, is replaced by rename(2) itself only if the file system lets a
            // subvolume take a directory's name; removed first, it works on every kernel.
            if try parent.fd.statusIfPresent(of: name) != nil { try parent.fd.removeDirectory(name) }
            try bundle.move(to: parent.fd, name)
        } catch .fileExists {
            throw StoreError(.failed, "\"\(path)\" was made by somebody else meanwhile; name another bundle")
        } catch .directoryNotEmpty {
            throw StoreError(
                .failed, "\"\(path)\" was filled by somebody else meanwhile; name another bundle")
        } catch .improperLink {
            throw StoreError(
                .unsupported,
                "the bundle \"\(path)\" lies on another mount of the store's file system; name it by a path below the store's own mount"
            )
        } catch {
            throw StoreError.system("put the bundle in", path, error)
        }
    }
}
