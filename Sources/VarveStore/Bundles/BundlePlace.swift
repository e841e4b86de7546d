import VarveBtrfs
package import VarveSystem
import SystemPackage

/// Where a bundle is to be: checked before any work is done for it.
struct BundlePlace {
    private let place: NewPlace
    private var path: BytePath { place.path }
    var parent: SharedDescriptor { place.parent }
    var name: BytePath { place.name }

    /// - Parameter store: the store whose file system must hold the bundle; nil where any file system does.
    init(_ path: BytePath, store: SnapshotStore?) throws {
        place = try NewPlace(path, for: "bundle", .replacing)
        if let store { try check(store) }
    }

    private func check(_ store: SnapshotStore) throws {
        guard try store.holds(parent.fd, path.parent) else {
            throw VarveError(
                .unsupported,
                "the bundle \"\(path)\" would not lie on the btrfs that holds the store \"\(store.path)\"",
                subject: path,
                remedy: .placeBundle(near: store.path)
            )
        }
        // rename(2) goes from one mount to another as little as to another file system.
        let isOnSameMount = try attempt("look at the mount of", path) { () throws(Errno) in
            try parent.fd.mountID() == store.work.directory.fd.mountID()
        }
        if !isOnSameMount { throw onAnotherMount }
    }

    private var onAnotherMount: VarveError {
        VarveError(
            .unsupported,
            "the bundle \"\(path)\" lies on another mount of the store's file system", subject: path,
            remedy: .name("it by a path below the store's own mount")
        )
    }

    /// Gives the finished subvolume its permissions and moves it to the bundle's path; an empty directory there makes room.
    ///
    /// - Parameters:
    ///   - source: the snapshot that the bundle was made of; nil for a chain, or nothing.
    ///   - chain: what the bundle is now, a snapshot of the chain or what that was published from.
    func put(
        _ bundle: inout WorkSubvolume, madeOf source: SubvolumeInfo? = nil, of chain: SubvolumeInfo? = nil,
        mode: UInt32
    ) throws {
        let opened = try bundle.open(for: path)
        var own = try opened.fd.subvolumeInfo()
        if let chain, chain.parentUUID == own.uuid {
            own = SubvolumeInfo(
                uuid: own.uuid, parentUUID: chain.uuid, originTransaction: chain.originTransaction)
        }
        let origins = [own] + (source.map { [$0] } ?? [])
        try put { () throws(Errno) in
            try bundle.changeMode(to: mode)
            try BundleAncestors.add(origins, to: opened.fd)
            try bundle.move(to: parent.fd, name)
        }
    }

    /// Moves the finished bundle to its path by any means.
    func put(_ move: () throws(Errno) -> Void) throws {
        do throws(Errno) {
            // An empty directory, not a subvolume, is replaced by rename(2) itself only if the file system lets a
            // subvolume take a directory's name; removed first, it works on every kernel.
            if try parent.fd.statusIfPresent(of: name) != nil { try parent.fd.removeDirectory(name) }
            try move()
        } catch .fileExists {
            throw VarveError(
                .failed, "\"\(path)\" was made by somebody else meanwhile", subject: path,
                remedy: .name("another bundle"))
        } catch .directoryNotEmpty {
            throw VarveError(
                .failed, "\"\(path)\" was filled by somebody else meanwhile", subject: path,
                remedy: .name("another bundle"))
        } catch .improperLink {
            throw onAnotherMount
        } catch {
            throw VarveError.system("put the bundle in", path, error)
        }
    }
}

extension SnapshotStore {
    /// Whether a bundle there would lie on the file system that holds the store. What is missing above it need not be
    /// made yet.
    package func holds(_ bundle: BytePath) throws -> Bool {
        _ = try NewPlace.name(bundle, for: "bundle")
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
                throw VarveError.system("look at", path, error)
            }
            return try holds(opened.fd, path)
        }
    }

    /// Whether a bundle lies on the file system that holds the store. A subvolume that does not was received there, or copied with its
    /// file system, and no snapshot of it can be taken in the store.
    func isOnSameFileSystem(_ bundle: OpenBundle) -> Bool {
        (try? holds(bundle.directory.fd, bundle.path)) ?? true
    }

    /// Whether an open file lies on the file system that holds the store.
    func holds(_ fd: FileDescriptor, _ path: BytePath) throws -> Bool {
        let isBtrfs = try attempt("look at", path) { () throws(Errno) in try fd.fileSystem().isBtrfs }
        return try isBtrfs && fd.fileSystemUUID() == directory.fd.fileSystemUUID()
    }
}
