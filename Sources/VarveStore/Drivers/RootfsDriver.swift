import Glibc
import VarveLayers
import VarveSystem
import SystemPackage

/// Extracts a root file system alone into a plain directory of any file system: no bundle, no store, nothing beside it.
/// What it makes cannot be repacked.
package struct RootfsDriver: StorageDriver {
    package let name = "rootfs"

    package init() {}

    package func beginUnpack(_ context: UnpackContext) throws -> UnpackTransaction {
        .cumulative(try RootfsUnpack(context))
    }

    package func freeze(_ context: RepackContext) throws -> any FrozenBundle {
        throw VarveError(
            .usage,
            "\"\(context.bundle)\" is a root file system alone, which cannot be repacked",
            subject: context.bundle, remedy: .follow("unpack a bundle"))
    }
}

/// A directory beside its place until it is whole.
private final class RootfsUnpack: CumulativeUnpack {
    let layersInPlace = 0
    private let place: NewPlace
    private let work: WorkDirectory
    private let tree: SharedDescriptor

    init(_ context: UnpackContext) throws {
        let (path, owners) = (context.bundle, context.options.owners)
        place = try NewPlace(path, for: "root file system", .renaming)
        work = try WorkDirectory(in: place.parent, path: path, cancellation: context.cancellation)
        let owner = owners.isRootless ? nil : try owners.root()
        tree = try Self.makeTree(in: work, owner, path)
    }

    /// No layer need say anything of the root directory.
    private static func makeTree(
        in work: borrowing WorkDirectory, _ owner: (uid: UInt32, gid: UInt32)?, _ path: BytePath
    ) throws(VarveError) -> SharedDescriptor {
        do throws(Errno) {
            try work.opened.fd.makeRootfs(owner: owner)
            return SharedDescriptor(try work.opened.fd.openDirectory(StoreLayout.rootfs))
        } catch {
            throw VarveError.system("make the directory", path, error)
        }
    }

    func target(forLayer index: Int, whileWaiting: () throws -> Void) throws -> ExtractionTarget? {
        ExtractionTarget(root: tree, isBottom: index == 0)
    }

    func didExtract(layer index: Int) throws {}

    func rootfs() throws -> SharedDescriptor { tree }

    func finish(files: [BundleFile]) throws {
        try attempt("put the root file system in", place.path) { () throws(Errno) in
            let mode = try tree.fd.status().permissions
            // A directory that gets another parent must be writable for its owner, unless that is root (vfs_rename,
            // fs/namei.c).
            let isLocked = geteuid() != 0 && mode & 0o200 == 0
            if isLocked { try tree.fd.changeMode(to: mode | 0o200) }
            try work.move(StoreLayout.rootfs, to: place.parent.fd, place.name, replacing: true)
            if isLocked { try tree.fd.changeMode(to: mode) }
        }
    }
}
