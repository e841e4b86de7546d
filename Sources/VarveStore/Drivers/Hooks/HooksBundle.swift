import VarveFormats
import VarveLayers
import Logging
import VarveOCI
import VarveSystem
import SystemPackage

/// A bundle whose changes a hook program tells. It is not held still: nobody may write to it meanwhile.
final class HooksBundle: FrozenBundle {
    private let runner: HookRunner
    private let context: RepackContext
    private let request: HookRequest
    private let metadata: BundleMetadata
    private let lock: BundleLock
    let root: SharedDescriptor

    init(runner: HookRunner, context: RepackContext) throws {
        self.runner = runner
        self.context = context
        if context.refreshes, runner.has(.deltaList) {
            throw VarveError(
                .unsupported,
                "a bundle whose changes the hook \(HookName.deltaList.rawValue) tells cannot be refreshed",
                subject: context.bundle, remedy: .repackWithoutRefresh
            )
        }
        try requireOwnPath(of: context.bundle)
        let rootfs = context.bundle.appending(StoreLayout.rootfs)
        let opened: SharedDescriptor
        do throws(Errno) {
            opened = SharedDescriptor(try FileDescriptor.workingDirectory.openDirectory(context.bundle))
            root = SharedDescriptor(
                try FileDescriptor.workingDirectory.open(rootfs, [.directory, .noFollow]))
        } catch .noSuchFileOrDirectory {
            throw VarveError(
                .notFound,
                "there is no bundle \"\(context.bundle)\" with a rootfs in it", subject: context.bundle,
                remedy: .unpack(to: context.bundle, driver: "hooks")
            )
        } catch {
            throw VarveError.system("open", rootfs, error)
        }
        lock = try context.lock(opened.fd)
        metadata = try Repacking.metadata(of: context.bundle)
        try context.checkImage(metadata.path.last?.digest)
        request = try HookRequest(
            bundle: context.bundle, image: context.image, tag: context.tag, options: metadata.apply)
    }

    func delta(onEntry: @escaping @Sendable () throws -> Void) throws -> DeltaResult {
        do {
            guard
                let answer = try runner.ask(
                    .deltaList, bundle: request.bundle, request.members, cancellation: context.cancellation)
            else {
                return try wholeComparison("no hook tells the changes", onEntry)
            }
            let changes = try HookChanges(answer).checked(against: root.fd)
            return DeltaResult(
                changes: changes, source: .auto, reason: "the hook \(HookName.deltaList.rawValue) told them")
        } catch let error as VarveError
            where error.code == .hookFailed && runner.configuration.hooks[.deltaList]?.fallback == true
        {
            runner.logger.warning("\(error); the whole tree is compared instead, as hooks.toml allows")
            return try wholeComparison("the hook failed", onEntry)
        }
    }

    private func wholeComparison(_ reason: String, _ onEntry: @escaping @Sendable () throws -> Void) throws
        -> DeltaResult
    {
        guard let image = context.image else {
            throw VarveError(
                .unsupported,
                "the changes of \"\(context.bundle)\" can only be told by comparing it with its image, which is not named here",
                subject: context.bundle,
                remedy: .correctHooks("repack it, or set the hook \(HookName.deltaList.rawValue)")
            )
        }
        var result = try ImageComparison(image, options: metadata.apply, near: request.bundle).delta(
            of: root.fd, cancellation: context.cancellation, onEntry: onEntry)
        result.reason = reason
        return result
    }

    /// What a store of others would make of the layer is theirs to know.
    func publish(chainIDs: [ChainID], options: ApplyOptions, layer: (ExtractionTarget) throws -> Void) -> Bool
    { false }

    func refresh(manifest: Digest, chainID: ChainID?, options: ApplyOptions, files: [BundleFile]) throws {
        let bundle: SharedDescriptor
        do throws(PlaceError) {
            bundle = SharedDescriptor(try Place.directory(context.bundle, .safeLinks))
        } catch {
            throw VarveError(error, "open the bundle", context.bundle)
        }
        for file in files {
            try attempt("write", context.bundle.appending(file.name)) { () throws(Errno) in
                try bundle.fd.writeFileDurably(file.name, file.contents)
            }
        }
    }

    func didRepack(_ manifest: Descriptor, tag: String) throws {
        do {
            try runner.ask(
                .postRepack, bundle: request.bundle,
                request.adding("newManifestDescriptor", .object(manifest.json)),
                cancellation: context.cancellation)?.end()
        } catch let error as VarveError where error.code == .hookFailed {
            throw VarveError(
                .hookFailed, "\(error); the new image is stored and tagged all the same", cause: error)
        }
    }
}
