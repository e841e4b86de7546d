import Layers
import OCI
import SystemCalls
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
        try trySkip()
        try place.complete(
            makesRootfs: layersInPlace == 0 || supportsParallelExtraction, owners: context.options.owners)
    }

    private func ask(_ name: HookName, _ members: JSONObject) throws -> HookAnswer? {
        try runner.ask(name, bundle: request.bundle, members, cancellation: context.cancellation)
    }

    private func trySkip() throws {
        guard var answer = try ask(.trySkip, request.members) else { return }
        let count = context.diffIDs.count
        guard let layers = answer.take("layers")?.int64, layers >= 0 else {
            throw answer.failure.wrongAnswer("\"layers\" must say how many layers are in place")
        }
        guard layers <= Int64(count) else {
            throw answer.failure.wrongAnswer(
                "it says that \(layers) layers are in place, and the image has \(count)")
        }
        layersInPlace = Int(layers)
        let roots = try layerDirectories(&answer)
        try answer.end()
        if layersInPlace > 0, supportsParallelExtraction {
            guard roots.count == layersInPlace else {
                throw answer.failure.wrongAnswer(
                    "it says that \(layers) layers are in place, and names the directories of \(roots.count); layers extracted side by side may need those below them"
                )
            }
        }
        layersInPlaceRoots = roots
        switch try place.rootfsEntries() {
        case nil
        where layersInPlace == count && count > 0 || layersInPlace > 0 && !supportsParallelExtraction:
            throw answer.failure.wrongAnswer(
                "it says that \(layers) layers are in place, and there is no rootfs in the bundle")
        case let entries? where layersInPlace == 0 && entries > 0:
            throw answer.failure.wrongAnswer(
                "it says that no layer is in place, and the bundle's rootfs is not empty")
        default: break
        }
    }

    private func layerDirectories(_ answer: inout HookAnswer) throws -> [LowerLayer] {
        guard let value = answer.take("directories") else { return [] }
        guard let directories = value.array else {
            throw answer.failure.wrongAnswer("\"directories\" must be an array of strings")
        }
        let style = try whiteouts(&answer)
        return try directories.map { directory in
            guard let text = directory.string else {
                throw answer.failure.wrongAnswer("\"directories\" must be an array of strings")
            }
            return LowerLayer(root: try open(BytePath(text), answer.failure), whiteouts: style)
        }
    }

    private func whiteouts(_ answer: inout HookAnswer) throws(StoreError) -> WhiteoutStyle {
        guard let word = try answer.string("whiteouts") else { return .overlayfs }
        guard let style = WhiteoutStyle(rawValue: word) else {
            throw answer.failure.wrongAnswer(
                "\"whiteouts\" must be \"overlayfs\" or \"files\", not \"\(word)\"")
        }
        return style
    }

    /// A directory that a hook names: in the bundle, or in the store that its configuration names. Where this program
    /// writes is for the user to say, not for the output of another.
    private func open(_ path: BytePath, _ failure: HookFailure) throws(StoreError) -> SharedDescriptor {
        let store =
            runner.configuration.hooks[.extractTo]?.store ?? runner.configuration.hooks[.trySkip]?.store
        for above in [request.bundle, store].compactMap({ $0 }) {
            let (prefix, components) = (above.components, path.components)
            guard path.isAbsolute, components.starts(with: prefix), components.count > prefix.count else {
                continue
            }
            let below = components[prefix.count...].reduce(BytePath.empty) { $0.appending($1) }
            do throws(Errno) {
                let top = try FileDescriptor.workingDirectory.open(above, [.directory])
                return SharedDescriptor(
                    try top.fd.open(below, [.directory], resolve: [.beneath, .noSymlinks]))
            } catch {
                throw failure.wrongAnswer("the directory \"\(path)\" cannot be opened: \(error)")
            }
        }
        let place =
            store.map { "in the bundle or in \"\($0)\"" }
            ?? "in the bundle (and no store is set in hooks.toml)"
        throw failure.wrongAnswer("the directory \"\(path)\" does not lie \(place)")
    }

    func target(forLayer index: Int, whileWaiting: () throws -> Void) throws -> ExtractionTarget? {
        guard var answer = try ask(.extractTo, request.layer(index)) else {
            return ExtractionTarget(root: try place.rootfs(), isBottom: index == 0)
        }
        guard let text = try answer.string("directory"), !text.utf8.contains(0) else {
            throw answer.failure.wrongAnswer("\"directory\" must name the directory for layer \(index)")
        }
        let directory = BytePath(text)
        let isInPlace = try answer.bool("extracted") ?? false
        let style = try whiteouts(&answer)
        try answer.end()
        let root = try open(directory, answer.failure)
        if !isInPlace {
            let isEmpty = try attempt("list the directory", directory) { () throws(Errno) in
                try root.fd.entries().isEmpty
            }
            guard isEmpty else {
                throw answer.failure.wrongAnswer(
                    "the directory \"\(directory)\" for layer \(index) is not empty")
            }
            if let other = targets.first(where: {
                $0.value.directory == directory && !$0.value.target.isInPlace
            }) {
                throw answer.failure.wrongAnswer(
                    "the directory \"\(directory)\" is to take both layer \(other.key) and layer \(index)")
            }
        }
        let target = ExtractionTarget(
            root: root, isBottom: index == 0, standalone: StandaloneLayer(whiteouts: style),
            isInPlace: isInPlace)
        targets[index] = (target, directory)
        return target
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
        do throws(JSONSyntaxError) { value = try JSONValue(parsing: proposed) } catch {
            throw StoreError(.failed, "config.json cannot be given to a hook: \(error)")
        }
        guard var answer = try ask(.runtimeConfig, request.adding("runtimeConfig", value)) else {
            return proposed
        }
        guard let changed = answer.take("runtimeConfig"), changed.object != nil else {
            throw answer.failure.wrongAnswer("\"runtimeConfig\" must be the config.json to write")
        }
        try answer.end()
        return changed.serialized(pretty: true)
    }

    func finish(files: [BundleFile]) throws {
        try place.write(files)
        try ask(.postUnpack, request.members)?.end()
        place.keep()
    }
}
