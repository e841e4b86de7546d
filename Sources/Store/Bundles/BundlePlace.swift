import Btrfs
public import SystemCalls
import SystemPackage

/// Where a bundle is to be: checked before any work is done for it.
struct BundlePlace {
    private let path: BytePath
    let parent: SharedDescriptor
    let name: BytePath

    /// - Parameter store: the store whose file system must hold the bundle; nil where any file system does.
    init(_ path: BytePath, store: SnapshotStore?) throws {
        self.path = path
        name = try Self.name(path)
        let parentPath = path.parent
        parent = try SnapshotStore.makeDirectory(parentPath.isEmpty ? .current : parentPath)
        if let store { try check(store) }
        try check()
    }

    fileprivate static func name(_ path: BytePath) throws(StoreError) -> BytePath {
        let name = path.lastComponent
        guard !name.isEmpty, name != .current, name != ".." else {
            throw StoreError(
                .usage, "\"\(path)\" cannot be a bundle; name a directory that is yet to be made")
        }
        return name
    }

    private func check(_ store: SnapshotStore) throws {
        guard try store.holds(parent.fd, path.parent) else {
            throw StoreError(
                .unsupported,
                "the bundle \"\(path)\" would not lie on the btrfs that holds the store \"\(store.path)\"; put it there, for example in \"\(store.path)/bundles\""
            )
        }
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
        try put { () throws(Errno) in try bundle.move(to: parent.fd, name) }
    }

    /// The same by any means.
    func put(_ move: () throws(Errno) -> Void) throws {
        do throws(Errno) {
            // An empty directory, not a subvolume, is replaced by rename(2) itself only if the file system lets a
            // subvolume take a directory's name; removed first, it works on every kernel.
            if try parent.fd.statusIfPresent(of: name) != nil { try parent.fd.removeDirectory(name) }
            try move()
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

extension SnapshotStore {
    /// Whether a bundle there would lie on the file system that holds the store. What is missing above it need not be
    /// made yet.
    public func holds(_ bundle: BytePath) throws -> Bool {
        _ = try BundlePlace.name(bundle)
        var path = bundle.parent
        while true {
            let opened: OwnedDescriptor
            do throws(Errno) {
                opened = try FileDescriptor.workingDirectory.open(
                    path.isEmpty ? .current : path, [.directory])
            } catch .noSuchFileOrDirectory {
                path = path.parent
                continue
            } catch {
                throw StoreError.system("look at", path, error)
            }
            return try holds(opened.fd, path)
        }
    }

    /// Whether an open file lies on the file system that holds the store.
    fileprivate func holds(_ fd: FileDescriptor, _ path: BytePath) throws -> Bool {
        let isBtrfs = try attempt("look at", path) { () throws(Errno) in try fd.fileSystem().isBtrfs }
        return try isBtrfs && fd.fileSystemUUID() == directory.fd.fileSystemUUID()
    }
}
