import VarveBtrfs
import VarveLayers
package import VarveOCI
package import VarveSystem
import SystemPackage

extension StoreCheck {
    /// What became of a comparison of chains with the layers that they are made of.
    package struct DeepReport: Sendable {
        package var findings: [Finding] = []
        package var compared: [ChainName] = []
    }

    /// Derives every chain of `images` again, from its layers, and compares the tree with that in the store, byte for byte.
    /// Chains of other images, or with options that are not known here, are not looked at.
    package func compare(with images: [ImageSelection], cancellation: Cancellation = Cancellation()) throws
        -> DeepReport
    {
        var report = DeepReport()
        var seen: Set<ChainName> = []
        for selection in images {
            try selection.forEach { image in
                // Of an image whose layers were never fetched, there is nothing to compare with.
                if image.isOutline, !image.layout.missingLayers(of: image.manifest).isEmpty { return }
                for (keepsDirlinks, isStrict) in [(false, false), (true, false), (false, true), (true, true)]
                {
                    try cancellation.check()
                    let options = ApplyOptions(keepDirlinks: keepsDirlinks, refusesOddAttributes: isStrict)
                    try compare(image, options, &report, besides: &seen, cancellation)
                }
            }
        }
        return report
    }

    private func compare(
        _ image: ResolvedImage, _ options: ApplyOptions, _ report: inout DeepReport,
        besides seen: inout Set<ChainName>, _ cancellation: Cancellation
    ) throws {
        let names = image.chainIDs.map { ChainName($0, variant: chainVariant(options)) }
        let wanted = try names.indices.filter { index in
            try !seen.contains(names[index]) && store.chains.leased(names[index]) != nil
        }
        guard let last = wanted.last else { return }
        // Nothing of it is published.
        let builder = ChainBuilder(in: store, for: store.path, on: nil, owners: options.owners)
        let opened = try builder.subvolume()
        let root = try builder.tree()
        let extraction = LayerExtraction(from: image.layout, options: options, cancellation: cancellation)
        for index in 0...last {
            try cancellation.check()
            try extraction.apply(
                image.layers[index], diffID: image.diffIDs[index],
                to: ExtractionTarget(root: root, isBottom: index == 0))
            guard wanted.contains(index) else { continue }
            seen.insert(names[index])
            try compare(names[index], opened, &report, cancellation)
        }
        extendLifetime(builder)
    }

    private func compare(
        _ name: ChainName, _ built: SharedDescriptor, _ report: inout DeepReport,
        _ cancellation: Cancellation
    ) throws {
        // Gone since, by somebody else.
        guard let chain = try store.chains.leased(name) else { return }
        let chainRoot = try attempt("open", name.path) { () throws(Errno) in
            try chain.fd.openDirectory(StoreLayout.rootfs)
        }
        // Reading what is writable would set its access times, and so write to it.
        let frozen = try store.work.makeSnapshot(of: built, readOnly: true, for: store.path)
        let (subvolume, root) = (try frozen.open(), try frozen.openRootfs())
        let path = StoreLayout.chains.appending(name.path)
        let delta: DeltaResult
        do {
            delta = try Delta.compute(
                old: DeltaTree(subvolume: subvolume.fd, root: root.fd, state: .snapshot),
                new: DeltaTree(subvolume: chain.fd, root: chainRoot.fd, seesSubvolumes: true), source: .walk
            ) { try cancellation.check() }
        } catch let error as LayerError {
            // What one tree has must not keep the others from being looked at.
            report.findings.append(
                Finding(
                    path: path, problem: "it cannot be compared with its layers: \(error.reason)",
                    remedy: error.remedy))
            return
        }
        extendLifetime(frozen)
        report.compared.append(name)
        guard let first = delta.changes.first else { return }
        try report.findings.append(
            mendable(
                path,
                "its tree is not that of its layers: \(delta.changes.count) paths differ, the first \"\(first.path)\" (\(first.kind))",
                "deleted it; it is built anew where it is needed"
            ) {
                try store.locks.withRemovalLock(on: name) {
                    // Our own lease becomes a lock, unless somebody else has one.
                    guard
                        try attempt(
                            "lock the chain", path, { () throws(Errno) in try chain.fd.tryLock(.exclusive) })
                    else {
                        throw VarveError(
                            .failed, "the chain \(name) is in use by another command", subject: name.path,
                            remedy: .tryAgainLater)
                    }
                    _ = try store.chains.directory.deleteUnused(
                        name.path, "the chain \(name)", store.locks.cancellation)
                }
            })
        extendLifetime(chain)
    }
}
