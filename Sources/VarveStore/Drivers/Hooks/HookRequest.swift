import VarveFormats
import VarveLayers
import VarveOCI
import VarveSystem
import SystemPackage

/// What every hook is told: see Docs/hooks.md.
struct HookRequest {
    /// The bundle as an absolute path, as hooks get it.
    let bundle: BytePath
    private(set) var members: JSONObject

    init(bundle path: BytePath, image: ResolvedImage?, tag: String?, options: ApplyOptions) throws {
        bundle = try Self.absolute(path)
        members = [
            "bundle": .string(try Self.text(bundle)),
            "rootfs": .string(try Self.text(bundle.appending(StoreLayout.rootfs))),
        ]
        members["variant"] = .string(chainVariant(options))
        guard let image else { return }
        var place: JSONObject = ["path": .string(try Self.text(try Self.absolute(image.layout.path)))]
        place["tag"] = tag.map { .string($0) }
        members["image"] = .object(place)
        members["manifestDescriptor"] = .object(image.manifestDescriptor.json)
        members["manifest"] = .object(image.manifest.json)
        members["config"] = .object(image.config.json)
        let chainIDs = image.chainIDs
        members["layers"] = .array(
            image.layers.indices.map { index in
                [
                    "descriptor": .object(image.layers[index].json),
                    "diffID": .string(image.diffIDs[index].description),
                    "chainID": .string(chainIDs[index].description),
                ]
            })
    }

    /// The request with the index of the layer that it is about.
    func layer(_ index: Int) -> JSONObject {
        var result = members
        result["layer"] = .number(JSONNumber(index))
        return result
    }

    func adding(_ key: String, _ value: JSONValue) -> JSONObject {
        var result = members
        result[key] = value
        return result
    }

    private static func absolute(_ path: BytePath) throws(VarveError) -> BytePath {
        var result: BytePath = path
        if !path.isAbsolute {
            result = try attempt("look up the working directory for", path) { () throws(Errno) in
                try FileDescriptor.workingDirectory.readSymbolicLink("/proc/self/cwd").appending(path)
            }
        }
        let components = result.components.filter { $0 != .current }
        return components.reduce(BytePath("/")) { $0.appending($1) }
    }

    private static func text(_ path: BytePath) throws(VarveError) -> String {
        guard let text = path.string else {
            throw VarveError(
                .usage, "\"\(path)\" is not UTF-8, and hooks are told paths in JSON", subject: path,
                remedy: .name("another path"))
        }
        return text
    }
}
