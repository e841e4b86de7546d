import Layers
import SystemCalls
import SystemPackage

/// Extracts a root file system alone into a plain directory of any file system: no bundle, no store, nothing beside it.
/// What it makes cannot be repacked.
public struct RootfsDriver: StorageDriver {
    public let name = "rootfs"

    public init() {}

    public func beginUnpack(_ context: UnpackContext) throws -> any UnpackTransaction {
        try RootfsTransaction(context.bundle, owners: context.options.owners)
    }

    public func freeze(_ context: RepackContext) throws -> any FrozenBundle {
        throw StoreError(
            .usage,
            "\"\(context.bundle)\" is a root file system alone, which cannot be repacked; unpack a bundle")
    }
}

/// A directory beside its place until it is whole.
private final class RootfsTransaction: UnpackTransaction {
    let layersInPlace = 0
    private let path: BytePath
    private let parent: SharedDescriptor
    private var work: WorkDirectory
    private let tree: SharedDescriptor

    init(_ path: BytePath, owners: OwnerMapping) throws {
        self.path = path
        let name = path.lastComponent
        guard !name.isEmpty, name != .current, name != BytePath("..") else {
            throw StoreError(
                .usage, "\"\(path)\" cannot be a root file system; name a directory that is yet to be made")
        }
        parent = try SnapshotStore.makeDirectory(path.parent.isEmpty ? .current : path.parent)
        if let existing = try attempt(
            "look at", path,
            { [parent] () throws(Errno) in
                try parent.fd.statusIfPresent(of: name)
            })
        {
            let isEmpty =
                try existing.isDirectory
                && attempt("list the directory", path) { [parent] () throws(Errno) in
                    let opened = try parent.fd.openDirectory(name)
                    return try opened.fd.entries().isEmpty
                }
            guard isEmpty else {
                throw StoreError(.failed, "\"\(path)\" exists already; remove it or name another directory")
            }
        }
        work = try WorkDirectory(in: parent, path: path)
        tree = work.opened
        // No layer need say anything of the root directory: it is the same whatever the umask and the clock are.
        let owner = try owners.root()
        try attempt("give owner, mode and time to", path) { [tree] () throws(Errno) in
            if !owners.isIdentity, !owners.isRootless {
                try tree.fd.changeOwner(uid: owner.uid, gid: owner.gid)
            }
            try tree.fd.changeMode(to: 0o755)
            try tree.fd.setTimes(access: .epoch, modification: .epoch)
        }
    }

    func target(forLayer index: Int, whileWaiting: () throws -> Void) throws -> ExtractionTarget? {
        ExtractionTarget(root: tree, isBottom: index == 0)
    }

    func didExtract(layer index: Int) throws {}

    func rootfs() throws -> SharedDescriptor { tree }

    func finish(files: [BundleFile]) throws {
        try attempt("put the root file system in", path) { () throws(Errno) in
            try work.move(to: parent.fd, path.lastComponent, replacing: true)
        }
    }
}
