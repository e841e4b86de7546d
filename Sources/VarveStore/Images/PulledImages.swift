import Logging
import VarveOCI
import VarveSystem

/// The images in the store's own layout, as garbage collection sees them: those with a tag are kept, with their chains; of those that an
/// unpack brought, the ones that bundles and snapshots came from.
struct PulledImages {
    private let store: SnapshotStore
    private let layout: ImageLayout?
    /// Chains of images that have a tag.
    let keptChains: Set<ChainID>

    init(of store: SnapshotStore) throws {
        self.store = store
        layout = try store.imagesIfPresent()
        var chains: Set<ChainID> = []
        try layout?.selection(of: nil).forEach { image in
            if image.path.first?.referenceName != nil { chains.formUnion(image.chainIDs) }
        }
        keptChains = chains
    }

    /// Deletes what is not kept, or says what would be.
    func collect(_ options: GarbageCollection.Options, into report: inout GarbageCollection.Report) throws {
        guard let layout else { return }
        // What a transfer left that was killed.
        if !options.isDryRun { WorkDirectory.clean(in: layout.path, store.locks.cancellation) }
        var dropped: [String] = []
        var needed: Result<Set<Digest>, any Error> = .success([])
        do throws(OCIError) {
            // Whoever unpacks such an image writes into the layout until the bundle is there, and shows as its user.
            report.blobs = try layout.collectGarbage(dryRun: options.isDryRun) {
                needed = Result { try store.neededManifests() }
                return try? needed.get()
            } dropping: { entry in
                if (try? needed.get())?.contains(entry.descriptor.digest) != false { return false }
                if let limit = options.madeBefore, let used = entry.used, used >= limit { return false }
                dropped.append(entry.source)
                return true
            }
        } catch {
            // Somebody pulls or unpacks an image just now; what is not needed then is found the next time.
            guard error.kind == .inUse else { throw error }
            store.logger.debug("\(error.description)")
            return
        }
        _ = try needed.get()
        report.images = Set(dropped).sorted()
    }
}
