import VarveLayers
import VarveOCI
import VarveSystem
import SystemPackage

/// An unpack into a plain directory, which is built beside its place and renamed to it.
final class DirectoryUnpack: CumulativeUnpack {
    private let context: UnpackContext
    private let place: BundlePlace
    private let work: WorkDirectory
    /// The bundle, in `work` until it is whole.
    private let bundle: SharedDescriptor
    private let root: SharedDescriptor
    private let digests = ContentDigests()
    private var recorded: RecordedTree?

    let layersInPlace = 0

    init(_ context: UnpackContext) throws {
        self.context = context
        place = try BundlePlace(context.bundle, store: nil)
        work = try WorkDirectory(
            in: place.parent, path: context.bundle, cancellation: context.cancellation)
        let owners = context.options.owners
        let owner = owners.isRootless ? nil : try owners.root()
        (bundle, root) = try Self.makeBundle(in: work, owner, context)
    }

    private static let name: BytePath = "bundle"

    private static func makeBundle(
        in work: borrowing WorkDirectory, _ owner: (uid: UInt32, gid: UInt32)?, _ context: UnpackContext
    ) throws(VarveError) -> (SharedDescriptor, SharedDescriptor) {
        do throws(Errno) {
            let bundle = try work.makeDirectory(name, mode: context.bundleMode)
            try bundle.fd.makeRootfs(owner: owner)
            return (bundle, SharedDescriptor(try bundle.fd.openDirectory(StoreLayout.rootfs)))
        } catch {
            throw VarveError.system("make the root directory of", context.bundle, error)
        }
    }

    func target(forLayer index: Int, whileWaiting: () throws -> Void) throws -> ExtractionTarget? {
        ExtractionTarget(root: root, isBottom: index == 0, digests: digests)
    }

    func didExtract(layer index: Int) throws {}
    func rootfs() throws -> SharedDescriptor { root }

    func record(onEntry: () throws -> Void) throws -> RecordedTree {
        if let recorded { return recorded }
        var record = try RecordedTree.scan(root.fd, known: digests.digest, onEntry: onEntry)
        record.trustChangeTimes(
            before: try FileSystemClock.pass(record.latestChange, in: work.opened.fd, path: context.bundle))
        recorded = record
        return record
    }

    func finish(files: [BundleFile]) throws {
        let manifest = context.image.manifestDescriptor.digest
        let record = BundleFile(
            name: BundleMetadata.recordName(manifest),
            contents: try record { try context.cancellation.check() }.encoded)
        for file in files + [record] {
            try attempt("write", context.bundle.appending(file.name)) { () throws(Errno) in
                let made = try bundle.fd.open(
                    file.name, [.writeOnly, .create, .exclusive, .noFollow], mode: 0o644)
                try made.fd.writeFull(file.contents)
                try made.close()
            }
        }
        try attempt("write out", context.bundle) { () throws(Errno) in
            // A bundle that is seen is on disk, whole: its record would else speak of files that the power took away.
            try bundle.fd.synchronizeFileSystem()
        }
        try context.cancellation.check()
        try place.put { () throws(Errno) in try work.move(Self.name, to: place.parent.fd, place.name) }
        try attempt("write out", context.bundle) { () throws(Errno) in try place.parent.fd.synchronize() }
    }
}
