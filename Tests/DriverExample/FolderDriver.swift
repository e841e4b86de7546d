import SystemPackage
import Varve

/// The driver of Docs/embedding.md: bundles are plain directories, and what changed in one is found by comparing it with
/// its image, unpacked once more.
struct FolderDriver: StorageDriver {
    let name = "folder"

    func beginUnpack(_ context: UnpackContext) throws -> any UnpackTransaction {
        try FolderUnpack(context.bundle)
    }
    func freeze(_ context: RepackContext) throws -> any FrozenBundle {
        try FolderBundle(context, driver: self)
    }
}

/// The bundle has another name until it is whole, and is deleted if it never is.
final class FolderUnpack: UnpackTransaction {
    let layersInPlace = 0
    private let place: BytePath
    private let unfinished: BytePath
    private let directory: SharedDescriptor
    private var isFinished = false

    init(_ place: BytePath) throws {
        self.place = place
        unfinished = place.appendingBytes(BytePath(".unfinished-\(randomName())"))
        try FileDescriptor.workingDirectory.makeDirectory(unfinished, mode: 0o755)
        directory = SharedDescriptor(try FileDescriptor.workingDirectory.openDirectory(unfinished))
        try directory.fd.makeDirectory("rootfs", mode: 0o755)
        try directory.fd.setTimes(of: "rootfs", access: .epoch, modification: .epoch)
    }

    func rootfs() throws -> SharedDescriptor { SharedDescriptor(try directory.fd.openDirectory("rootfs")) }

    func target(forLayer index: Int, whileWaiting: () throws -> Void) throws -> ExtractionTarget? {
        ExtractionTarget(root: try rootfs(), isBottom: index == 0)
    }

    func didExtract(layer index: Int) {}

    func finish(files: [BundleFile]) throws {
        for file in files { try directory.fd.writeFileDurably(file.name, file.contents) }
        let here = FileDescriptor.workingDirectory
        try here.rename(unfinished, to: here, place, replacing: false)
        isFinished = true
    }

    deinit { if !isFinished { removeFolder(unfinished) } }
}

final class FolderBundle: FrozenBundle {
    let root: SharedDescriptor
    private let context: RepackContext
    private let driver: FolderDriver

    init(_ context: RepackContext, driver: FolderDriver) throws {
        self.context = context
        self.driver = driver
        root = SharedDescriptor(
            try FileDescriptor.workingDirectory.openDirectory(context.bundle.appending("rootfs")))
    }

    func delta(onEntry: @escaping @Sendable () throws -> Void) throws -> DeltaResult {
        guard let image = context.image else { throw StoreError(.unsupported, "name the image") }
        let original = context.bundle.appendingBytes(BytePath(".original-\(randomName())"))
        defer { removeFolder(original) }
        _ = try Unpacking(driver: driver, cancellation: context.cancellation).unpack(image, into: original)
        let old = try FileDescriptor.workingDirectory.openDirectory(original.appending("rootfs"))
        return try Delta.compareWhole(old: old.fd, new: root.fd, onEntry: onEntry)
    }

    func publish(chainIDs: [ChainID], options: ApplyOptions, layer: (ExtractionTarget) throws -> Void) -> Bool
    { false }

    func refresh(manifest: Digest, chainID: ChainID, options: ApplyOptions, files: [BundleFile]) throws {
        throw StoreError(.unsupported, "unpack the new image instead")
    }
}

private func removeFolder(_ path: BytePath) {
    guard
        let parent = try? FileDescriptor.workingDirectory.openDirectory(
            path.parent.isEmpty ? .current : path.parent)
    else { return }
    try? TreeRemoval.removeTree(path.lastComponent, in: parent.fd, path: path)
}
