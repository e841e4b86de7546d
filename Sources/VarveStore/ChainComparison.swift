package import Logging
package import VarveLayers
package import VarveOCI
package import VarveSystem
import SystemPackage

/// What an image differs in from another, by their chains in a store: those that the store has not are made, as by an unpack.
package struct ChainComparison {
    private let store: SnapshotStore
    private let logger: Logger
    private let cancellation: Cancellation
    private let progress: ProgressHandler

    package init(
        in store: SnapshotStore, logger: Logger, cancellation: Cancellation,
        progress: @escaping ProgressHandler
    ) {
        self.store = store
        self.logger = logger
        self.cancellation = cancellation
        self.progress = progress
    }

    package func delta(
        from old: ResolvedImage, to new: ResolvedImage, source: DeltaSource
    ) throws -> DeltaResult {
        let oldTree = try tree(of: old)
        let newTree = try tree(of: new)
        return try newTree.delta(from: oldTree, source: source, logger: logger) { [cancellation] in
            try cancellation.check()
        }.requireAll()
    }

    private func tree(of image: ResolvedImage) throws -> StillTree {
        guard let last = image.chainIDs.last else {
            return try StillTree(emptyIn: store.work, owners: OwnerMapping(), for: image.layout.path)
        }
        let name = ChainName(last, variant: "")
        if let chain = try store.chains.find(name) { return StillTree(chain) }
        // A bundle like any other, that is gone at once; the chain stays. What a process leaves that is killed goes with the next one.
        let bundles = store.path.appending(StoreLayout.bundles)
        let opened = try attempt("open", bundles) { [store] () throws(Errno) in
            do throws(Errno) {
                try store.directory.fd.makeDirectory(StoreLayout.bundles, mode: 0o755)
            } catch .fileExists {}
            return SharedDescriptor(try store.directory.fd.openDirectory(StoreLayout.bundles))
        }
        let work = try WorkDirectory(in: opened, path: bundles, cancellation: cancellation)
        let bundle = try work.path().appending("bundle")
        _ = try Unpacking(
            driver: BtrfsDriver(store: store), cancellation: cancellation, logger: logger, progress: progress
        ).unpack(image, into: bundle)
        defer {
            // Whoever ends it waits for that: nothing would take it away later.
            try? store.bound(to: Cancellation()).removeBundle(bundle)
            extendLifetime(work)
        }
        guard let chain = try store.chains.find(name) else {
            throw VarveError(
                .failed, "the chain \(name) was removed while it was compared", subject: BytePath("\(name)"),
                remedy: .tryAgain)
        }
        return StillTree(chain)
    }
}
