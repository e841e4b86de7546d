import VarveLayers
import VarveOCI
import VarveSystem
import SystemPackage

/// An unpack whose layers are kept by hook programs.
///
/// The bundle is made under its own name at once, since the programs are told it and may mount something there. It is
/// one when `config.json` and `umoci.json` are in it, which are written last; until then, whatever goes wrong takes it
/// away again.
final class HooksUnpack: UnpackTransaction {
    private let runner: HookRunner
    private let context: UnpackContext
    private let request: HookRequest
    private let place: HookedBundlePlace
    private let directories: HookDirectories
    private(set) var layersInPlace = 0
    private(set) var layersInPlaceRoots: [LowerLayer] = []
    private var targets: [Int: (target: ExtractionTarget, directory: BytePath)] = [:]

    var supportsParallelExtraction: Bool { runner.has(.extractTo) }

    init(runner: HookRunner, context: UnpackContext) throws {
        self.runner = runner
        self.context = context
        request = try HookRequest(
            bundle: context.bundle, image: context.image, tag: context.image.tag, options: context.options)
        place = try HookedBundlePlace(request.bundle)
        let hooks = runner.configuration.hooks
        directories = HookDirectories(
            bundle: request.bundle, store: hooks[.extractTo]?.store ?? hooks[.trySkip]?.store)
        try trySkip()
        try place.complete(
            makesRootfs: layersInPlace == 0 || supportsParallelExtraction, owners: context.options.owners,
            mode: context.bundleMode)
    }

    private func ask(_ name: HookName, _ members: JSONObject) throws -> HookAnswer? {
        try runner.ask(name, bundle: request.bundle, members, cancellation: context.cancellation)
    }

    private func trySkip() throws {
        guard let given = try ask(.trySkip, request.members) else { return }
        let answer = try TrySkipAnswer(
            given, layers: context.diffIDs.count, needsDirectories: supportsParallelExtraction)
        let layers = answer.layers
        layersInPlaceRoots = try answer.directories.map {
            LowerLayer(root: try directories.open($0, given.failure), whiteouts: answer.whiteouts)
        }
        layersInPlace = layers
        switch try place.rootfsEntries() {
        case nil
        where layers == context.diffIDs.count && layers > 0 || layers > 0 && !supportsParallelExtraction:
            throw given.failure.wrongAnswer(
                "it says that \(layers) layers are in place, and there is no rootfs in the bundle")
        case let entries? where layers == 0 && entries > 0:
            throw given.failure.wrongAnswer(
                "it says that no layer is in place, and the bundle's rootfs is not empty")
        default: break
        }
    }

    func target(forLayer index: Int, whileWaiting: () throws -> Void) throws -> ExtractionTarget? {
        guard let given = try ask(.extractTo, request.layer(index)) else {
            return ExtractionTarget(root: try place.rootfs(), isBottom: index == 0)
        }
        let answer = try ExtractToAnswer(given, layer: index)
        let directory = answer.directory
        let root = try directories.open(directory, given.failure)
        if !answer.isInPlace {
            let isEmpty = try attempt("list the directory", directory) { () throws(Errno) in
                try root.fd.entries().isEmpty
            }
            guard isEmpty else {
                throw given.failure.wrongAnswer(
                    "the directory \"\(directory)\" for layer \(index) is not empty")
            }
            // Not by its path, which may be spelt in many ways.
            let other = try targets.filter { !$0.value.target.isInPlace }.first {
                try isSame($0.value.target.root, root, directory)
            }
            if let other {
                throw given.failure.wrongAnswer(
                    "the directory \"\(directory)\" is to take both layer \(other.key) and layer \(index)")
            }
        }
        let target = ExtractionTarget(
            root: root, isBottom: index == 0, standalone: StandaloneLayer(whiteouts: answer.whiteouts),
            isInPlace: answer.isInPlace)
        targets[index] = (target, directory)
        return target
    }

    private func isSame(_ one: SharedDescriptor, _ other: SharedDescriptor, _ path: BytePath)
        throws(StoreError) -> Bool
    {
        try attempt("look at the directory", path) { () throws(Errno) in
            let (one, other) = (try one.fd.status(), try other.fd.status())
            return one.device == other.device && one.inode == other.inode
        }
    }

    func didExtract(layer index: Int) throws {
        var members = request.layer(index)
        if let (target, directory) = targets[index], let standalone = target.standalone {
            members["directory"] = .string(directory.description)
            members["extracted"] = .bool(target.isInPlace)
            if !target.isInPlace {
                members["dependsOnLower"] = .bool(standalone.dependsOnLower)
                members["hasRootEntry"] = .bool(standalone.hasRootEntry)
            }
        }
        try ask(.postExtract, members)?.end()
    }

    func rootfs() throws -> SharedDescriptor { try place.rootfs() }

    func runtimeConfiguration(_ proposed: [UInt8]) throws -> [UInt8] {
        guard runner.has(.runtimeConfig) else { return proposed }
        let value: JSONValue
        do throws(JSONSyntaxError) { value = try JSONValue(parsing: proposed, expansion: nil) } catch {
            throw StoreError(.failed, "config.json cannot be given to a hook: \(error)")
        }
        guard let answer = try ask(.runtimeConfig, request.adding("runtimeConfig", value)) else {
            return proposed
        }
        return JSONValue.object(try RuntimeConfigAnswer(answer).configuration).serialized(pretty: true)
    }

    func finish(files: [BundleFile]) throws {
        try place.write(files)
        try ask(.postUnpack, request.members)?.end()
        place.keep()
    }
}
