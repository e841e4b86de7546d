package import VarveFormats
package import VarveLayers
import VarveOCI
package import VarveSystem
import SystemPackage

/// What `try-skip` answers: how many layers are in place, and where each of them is.
package struct TrySkipAnswer {
    package let layers: Int
    /// As many as there are layers in place, or none.
    package let directories: [BytePath]
    package let whiteouts: WhiteoutStyle

    /// - Parameters:
    ///   - count: layers of the image.
    ///   - needsDirectories: layers above may look for what lies below them.
    package init(_ answer: HookAnswer, layers count: Int, needsDirectories: Bool) throws(VarveError) {
        var answer = answer
        let failure = answer.failure
        guard let layers = answer.take("layers")?.int64, layers >= 0 else {
            throw failure.wrongAnswer("\"layers\" must say how many layers are in place")
        }
        guard layers <= Int64(count) else {
            throw failure.wrongAnswer(
                "it says that \(layers) layers are in place, and the image has \(count)")
        }
        var directories: [BytePath] = []
        var whiteouts = WhiteoutStyle.overlayfs
        if let value = answer.take("directories") {
            let paths = value.array?.map { $0.string.flatMap { BytePath(Array($0.utf8)) } }
            guard let paths else { throw failure.wrongAnswer("\"directories\" must be an array of paths") }
            for path in paths {
                guard let path else { throw failure.wrongAnswer("\"directories\" must be an array of paths") }
                directories.append(path)
            }
            whiteouts = try answer.whiteouts()
        }
        try answer.end()
        guard directories.count == Int(layers) || directories.isEmpty && !needsDirectories else {
            throw failure.wrongAnswer(
                "it says that \(layers) layers are in place, and names the directories of \(directories.count); layers extracted side by side may need those below them"
            )
        }
        self.layers = Int(layers)
        self.directories = directories
        self.whiteouts = whiteouts
    }
}

/// What `extract-to` answers: the directory for one layer.
package struct ExtractToAnswer {
    package let directory: BytePath
    /// The layer is there already.
    package let isInPlace: Bool
    package let whiteouts: WhiteoutStyle

    package init(_ answer: HookAnswer, layer index: Int) throws(VarveError) {
        var answer = answer
        guard let text = try answer.string("directory"), let path = BytePath(Array(text.utf8)) else {
            throw answer.failure.wrongAnswer("\"directory\" must name the directory for layer \(index)")
        }
        directory = path
        isInPlace = try answer.bool("extracted") ?? false
        whiteouts = try answer.whiteouts()
        try answer.end()
    }
}

/// What `runtime-config` answers: the `config.json` to write.
package struct RuntimeConfigAnswer {
    package let configuration: JSONObject

    package init(_ answer: HookAnswer) throws(VarveError) {
        var answer = answer
        guard let configuration = answer.take("runtimeConfig")?.object else {
            throw answer.failure.wrongAnswer("\"runtimeConfig\" must be the config.json to write")
        }
        self.configuration = configuration
        try answer.end()
        if let fault = Self.fault(of: configuration) {
            throw answer.failure.wrongAnswer("\"runtimeConfig\" is no runtime configuration: \(fault)")
        }
    }

    /// What no runtime would take (runtime-spec config.md); nil if nothing is wrong with what is looked at.
    private static func fault(of configuration: JSONObject) -> String? {
        guard configuration["ociVersion"]?.string?.hasPrefix("1.") == true else {
            return "it has no \"ociVersion\" 1"
        }
        guard configuration["root"]?.object?["path"]?.string?.isEmpty == false else {
            return "it has no \"root\" with a \"path\""
        }
        if let process = configuration["process"] {
            guard let process = process.object else { return "its \"process\" is not an object" }
            guard process["cwd"]?.string?.beginsWithByte("/") == true else {
                return "the \"cwd\" of its \"process\" is no absolute path"
            }
            for key in ["args", "env"] {
                guard let words = process[key], !words.isNull else { continue }
                guard let words = words.array, words.allSatisfy({ $0.string != nil }) else {
                    return "the \"\(key)\" of its \"process\" are no list of strings"
                }
            }
        }
        guard let mounts = configuration["mounts"], !mounts.isNull else { return nil }
        guard let mounts = mounts.array,
            mounts.allSatisfy({ $0.object?["destination"]?.string?.isEmpty == false })
        else { return "its \"mounts\" are no list of mounts, each with a \"destination\"" }
        return nil
    }
}

extension HookAnswer {
    fileprivate mutating func whiteouts() throws(VarveError) -> WhiteoutStyle {
        guard let word = try string("whiteouts") else { return .overlayfs }
        guard let style = WhiteoutStyle(rawValue: word) else {
            throw failure.wrongAnswer(
                "\"whiteouts\" must be \"overlayfs\" or \"files\", not \"\(BytePath.excerpt(word.utf8))\"")
        }
        return style
    }
}

/// Where programs may name directories: in the bundle, or in the store that their configuration names. Where this program
/// writes is for the user to say, not for the output of another.
package struct HookDirectories {
    private let bundle: BytePath
    private let store: BytePath?

    package init(bundle: BytePath, store: BytePath?) {
        self.bundle = bundle
        self.store = store
    }

    package func open(_ path: BytePath, _ failure: HookFailure) throws(VarveError) -> SharedDescriptor {
        for above in [bundle, store].compactMap({ $0 }) {
            let (prefix, components) = (above.components, path.components)
            guard path.isAbsolute, components.starts(with: prefix), components.count > prefix.count else {
                continue
            }
            let below = components[prefix.count...].reduce(BytePath.empty) { $0.appending($1) }
            let top: OwnedDescriptor
            do throws(PlaceError) { top = try Place.ownDirectory(above) } catch {
                throw failure.error(
                    "\(error.errno == nil ? "layers are not safe in \"\(above)\": " : "")\(error.problem)",
                    remedy: error.remedy)
            }
            do throws(Errno) {
                return SharedDescriptor(
                    try top.fd.open(below, [.directory], resolve: [.beneath, .noSymlinks]))
            } catch {
                throw failure.wrongAnswer(
                    "the directory \"\(BytePath.excerpt(path.bytes))\" cannot be opened: \(error)")
            }
        }
        let place =
            store.map { "in the bundle or in \"\($0)\"" }
            ?? "in the bundle (and no store is set in hooks.toml)"
        throw failure.wrongAnswer(
            "the directory \"\(BytePath.excerpt(path.bytes))\" does not lie \(place)")
    }
}
