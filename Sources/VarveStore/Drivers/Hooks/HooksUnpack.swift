import VarveFormats
import VarveLayers
import VarveOCI
import VarveSystem
import SystemPackage

/// An unpack whose layers are kept by hook programs: what it is like however they keep them.
///
/// The bundle is made under its own name at once, since the programs are told it and may mount something there. It is
/// one when `config.json` and `umoci.json` are in it, which are written last; until then, whatever goes wrong takes it
/// away again.
class HooksUnpack {
    fileprivate let runner: HookRunner
    fileprivate let request: HookRequest
    fileprivate let place: HookedBundlePlace
    fileprivate let directories: HookDirectories
    private let cancellation: Cancellation
    fileprivate(set) var layersInPlace = 0
    /// The directories of the layers in place, where each has one of its own.
    fileprivate(set) var lowerLayers: [LowerLayer] = []

    /// Begins an unpack: whether a program gives a directory for each layer decides how.
    static func begin(runner: HookRunner, context: UnpackContext) throws -> UnpackTransaction {
        runner.has(.extractTo)
            ? .stacking(try HooksStackingUnpack(runner, context, isStacking: true))
            : .cumulative(try HooksCumulativeUnpack(runner, context, isStacking: false))
    }

    fileprivate init(_ runner: HookRunner, _ context: UnpackContext, isStacking: Bool) throws {
        self.runner = runner
        cancellation = context.cancellation
        request = try HookRequest(
            bundle: context.bundle, image: context.image, tag: context.image.tag, options: context.options)
        place = try HookedBundlePlace(request.bundle)
        let hooks = runner.configuration.hooks
        directories = HookDirectories(
            bundle: request.bundle, store: hooks[.extractTo]?.store ?? hooks[.trySkip]?.store)
        try trySkip(context.diffIDs.count, isStacking: isStacking)
        try place.complete(
            makesRootfs: layersInPlace == 0 || isStacking, owners: context.options.owners,
            mode: context.bundleMode)
    }

    fileprivate func ask(_ name: HookName, _ members: JSONObject) throws -> HookAnswer? {
        try runner.ask(name, bundle: request.bundle, members, cancellation: cancellation)
    }

    private func trySkip(_ count: Int, isStacking: Bool) throws {
        guard let given = try ask(.trySkip, request.members) else { return }
        let answer = try TrySkipAnswer(given, layers: count, needsDirectories: isStacking)
        let layers = answer.layers
        lowerLayers = try answer.directories.map {
            LowerLayer(root: try directories.open($0, given.failure), whiteouts: answer.whiteouts)
        }
        layersInPlace = layers
        switch try place.rootfsEntries() {
        case nil where layers == count && layers > 0 || layers > 0 && !isStacking:
            throw given.failure.wrongAnswer(
                "it says that \(layers) layers are in place, and there is no rootfs in the bundle")
        case let entries? where layers == 0 && entries > 0:
            throw given.failure.wrongAnswer(
                "it says that no layer is in place, and the bundle's rootfs is not empty")
        default: break
        }
    }

    func didExtract(layer index: Int) throws {
        try ask(.postExtract, request.layer(index))?.end()
    }

    func rootfs() throws -> SharedDescriptor { try place.rootfs() }

    func runtimeConfiguration(_ proposed: [UInt8]) throws -> [UInt8] {
        guard runner.has(.runtimeConfig) else { return proposed }
        let value: JSONValue
        do throws(JSONSyntaxError) { value = try JSONValue(parsing: proposed, expansion: nil) } catch {
            throw VarveError(.failed, "config.json cannot be given to a hook: \(error)")
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

/// Layers go into the bundle's own `rootfs/`, and a program may keep it after each.
private final class HooksCumulativeUnpack: HooksUnpack, CumulativeUnpack {
    func target(forLayer index: Int, whileWaiting: () throws -> Void) throws -> ExtractionTarget? {
        ExtractionTarget(root: try place.rootfs(), isBottom: index == 0)
    }
}

/// A program gives a directory for each layer.
private final class HooksStackingUnpack: HooksUnpack, StackingUnpack {
    private var targets: [Int: (target: LayerDirectory, path: BytePath)] = [:]

    func directory(forLayer index: Int, whileWaiting: () throws -> Void) throws -> LayerDirectory {
        guard let given = try ask(.extractTo, request.layer(index)) else {
            throw VarveError(
                .failed, "the hook \(HookName.extractTo.rawValue) gave no directory for layer \(index)")
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
        let target = LayerDirectory(
            root: root, layer: StandaloneLayer(whiteouts: answer.whiteouts), isInPlace: answer.isInPlace)
        targets[index] = (target, directory)
        return target
    }

    private func isSame(_ one: SharedDescriptor, _ other: SharedDescriptor, _ path: BytePath)
        throws(VarveError) -> Bool
    {
        try attempt("look at the directory", path) { () throws(Errno) in
            let (one, other) = (try one.fd.status(), try other.fd.status())
            return one.device == other.device && one.inode == other.inode
        }
    }

    override func didExtract(layer index: Int) throws {
        var members = request.layer(index)
        if let (target, directory) = targets[index] {
            members["directory"] = .string(directory.description)
            members["extracted"] = .bool(target.isInPlace)
            if !target.isInPlace {
                members["dependsOnLower"] = .bool(target.layer.dependsOnLower)
                members["hasRootEntry"] = .bool(target.layer.hasRootEntry)
            }
        }
        try ask(.postExtract, members)?.end()
    }
}
