import Glibc
import VarveDriverKit

/// The driver of Docs/embedding.md: bundles are plain directories, and what changed in one is found by comparing it with
/// its image, unpacked once more.
struct FolderDriver: StorageDriver {
    let name = "folder"

    func beginUnpack(_ context: UnpackContext) throws -> UnpackTransaction {
        .cumulative(try FolderUnpack(context.bundle, mode: context.bundleMode))
    }
    func freeze(_ context: RepackContext) throws -> any FrozenBundle {
        try FolderBundle(context, driver: self)
    }
}

/// The bundle has another name until it is whole, and is deleted if it never is.
final class FolderUnpack: CumulativeUnpack {
    let layersInPlace = 0
    private let place: BytePath
    private let unfinished: BytePath
    private let root: SharedDescriptor
    private var isFinished = false

    init(_ place: BytePath, mode: UInt32) throws {
        self.place = place
        unfinished = place.besides("unfinished")
        try check(unsafe mkdir(try text(unfinished), mode), "make", unfinished)
        root = try Trees.createRoot(unfinished.appending("rootfs"))
    }

    func rootfs() throws -> SharedDescriptor { root }

    func target(forLayer index: Int, whileWaiting: () throws -> Void) throws -> ExtractionTarget? {
        ExtractionTarget(root: root, isBottom: index == 0)
    }

    func didExtract(layer index: Int) {}

    func finish(files: [BundleFile]) throws {
        let directory = try Trees.open(unfinished)
        for file in files { try file.write(into: directory) }
        try check(unsafe rename(try text(unfinished), try text(place)), "rename", unfinished)
        isFinished = true
    }

    deinit { if !isFinished { try? Trees.remove(unfinished) } }
}

final class FolderBundle: FrozenBundle {
    let root: SharedDescriptor
    private let context: RepackContext
    private let driver: FolderDriver

    init(_ context: RepackContext, driver: FolderDriver) throws {
        self.context = context
        self.driver = driver
        root = try Trees.open(context.bundle.appending("rootfs"))
    }

    func delta(onEntry: @escaping @Sendable () throws -> Void) throws -> DeltaResult {
        let original = context.bundle.besides("original")
        defer { try? Trees.remove(original) }
        try context.unpackImage(into: original, with: driver)
        return try Trees.compare(old: Trees.open(original.appending("rootfs")), new: root, onEntry: onEntry)
    }

    func publish(chainIDs: [ChainID], options: ApplyOptions, layer: (ExtractionTarget) throws -> Void) -> Bool
    { false }

    func refresh(manifest: Digest, chainID: ChainID?, options: ApplyOptions, files: [BundleFile]) throws {
        throw FolderError(description: "a folder cannot be refreshed; unpack the new image instead")
    }
}

struct FolderError: Error, CustomStringConvertible { var description: String }

extension BytePath {
    /// A name beside this one that nobody else uses.
    fileprivate func besides(_ what: String) -> BytePath {
        let number = String(UInt64.random(in: .min ... .max), radix: 36)
        return parent.appending(".\(lastComponent).\(what)-\(number)")
    }
}

private func text(_ path: BytePath) throws -> String {
    guard let text = path.string else { throw FolderError(description: "\"\(path)\" is not UTF-8") }
    return text
}

private func check(_ result: CInt, _ what: String, _ path: BytePath) throws {
    if result != 0 { throw FolderError(description: "cannot \(what) \"\(path)\": error \(errno)") }
}
