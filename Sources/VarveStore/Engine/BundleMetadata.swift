import VarveFormats
package import VarveLayers
package import VarveOCI
package import VarveSystem

/// `umoci.json` of a bundle: which image it was unpacked from and how (umoci's version 2 of the format, which umoci
/// 0.4 and later read and write).
package struct BundleMetadata: Sendable {
    package static let fileName: BytePath = "umoci.json"
    static let version = "2"
    /// The file in which umoci keeps what it unpacked of a manifest.
    static func mtreeName(_ manifest: Digest) -> BytePath {
        BytePath("\(manifest.algorithm.rawValue)_\(manifest.hex).mtree")
    }
    /// The file in which the directory driver does.
    static func recordName(_ manifest: Digest) -> BytePath {
        BytePath("\(manifest.algorithm.rawValue)_\(manifest.hex).record")
    }
    /// Whether a file is one of these two, of whichever manifest.
    static func isState(_ name: BytePath) -> Bool {
        guard let text = name.string, let dot = text.lastIndex(of: "."),
            [".mtree", ".record"].contains(text[dot...])
        else { return false }
        return Digest(text[..<dot].replacing("_", with: ":")) != nil
    }
    /// No sane file is larger.
    static let limit = 1 << 20

    /// The descriptors from the layout's index to the manifest.
    package var path: [Descriptor]
    /// How the layers were applied, and the next one is made.
    package var apply: ApplyOptions
    /// Whether programs made the bundle, which nothing else in it shows.
    package var isOfHooks = false
    private static let driverKey = "varve_driver"
    private static let hooks = "hooks"
    /// Members that are not known here, as they were.
    private var json: JSONObject

    package init(path: [Descriptor], apply: ApplyOptions) {
        self.path = path
        self.apply = apply
        // Null for none: an empty array is to umoci a map in which nobody is, and it refuses to repack.
        func ranges(_ mappings: [IDMapping]) -> JSONValue {
            mappings.isEmpty ? .null : .array(mappings.map(\.json))
        }
        json = [
            "umoci_version": .string(Self.version),
            "from_descriptor_path": ["descriptor_walk": .array([])],
            "map_options": [
                "uid_mappings": ranges(apply.owners.uids),
                "gid_mappings": ranges(apply.owners.gids),
                "rootless": .bool(apply.owners.isRootless),
            ],
        ]
    }

    package init(parsing bytes: [UInt8], of file: BytePath) throws {
        func damaged(_ reason: String) -> VarveError {
            VarveError(
                .invalidInput, "\"\(file)\" is damaged: \(reason)", subject: file,
                remedy: .unpackAgain(losesChanges: false))
        }
        guard let object = (try? JSONValue(parsing: bytes))?.object else {
            throw damaged("it is not a JSON object")
        }
        guard object["umoci_version"]?.string == Self.version else {
            throw damaged("its umoci_version is not \"\(Self.version)\"")
        }
        guard let walk = object["from_descriptor_path"]?.object?["descriptor_walk"]?.array, !walk.isEmpty
        else {
            throw damaged("it does not say which image the bundle came from")
        }
        json = object
        path = try walk.map { try Descriptor($0, of: "\(file)") }
        let options: JSONObject?
        switch object["map_options"] {
        case nil, .null?: options = nil
        case .object(let members)?: options = members
        default: throw damaged("its map_options are not an object")
        }
        func ranges(_ key: String) throws -> [IDMapping] {
            // Go writes null for none.
            guard let value = options?[key], !value.isNull else { return [] }
            guard let array = value.array else { throw damaged("its \(key) is not an array") }
            guard array.count <= IDMap.limit else {
                throw damaged(
                    "its \(key) has \(array.count) ranges, and the kernel takes \(IDMap.limit) at most")
            }
            return try array.map {
                guard let range = IDMapping($0) else { throw damaged("a range in its \(key) is not valid") }
                return range
            }
        }
        func flag(_ key: String, in object: JSONObject?) throws -> Bool {
            guard let value = object?[key], !value.isNull else { return false }
            guard let flag = value.bool else { throw damaged("its \(key) is neither true nor false") }
            return flag
        }
        // umoci's OCIStandardWhiteout. With overlayfs's, devices in the tree mean deletions.
        if let mode = object["whiteout_mode"], !mode.isNull, mode.int64 != 0 {
            throw VarveError(
                .unsupported,
                "\"\(file)\" says that deletions in the bundle are kept as overlayfs keeps them, which is not known here",
                subject: file, remedy: .unpackAgain(losesChanges: false)
            )
        }
        apply = ApplyOptions(
            keepDirlinks: try flag("varve_keep_dirlinks", in: object),
            owners: OwnerMapping(
                uids: try ranges("uid_mappings"), gids: try ranges("gid_mappings"),
                isRootless: try flag("rootless", in: options)),
            refusesOddAttributes: try flag("varve_strict_xattrs", in: object))
        isOfHooks = object[Self.driverKey]?.string == Self.hooks
    }

    package var encoded: [UInt8] {
        var object = json
        var origin = object["from_descriptor_path"]?.object ?? [:]
        origin["descriptor_walk"] = .array(path.map { .object($0.json) })
        object["from_descriptor_path"] = .object(origin)
        // The tree that a layer makes depends on it, so the next layer must be made the same way.
        object["varve_keep_dirlinks"] = apply.keepDirlinks ? true : nil
        object[Self.driverKey] = isOfHooks ? .string(Self.hooks) : nil
        object["varve_strict_xattrs"] = apply.refusesOddAttributes ? true : nil
        return JSONValue.object(object).serialized() + [UInt8(ascii: "\n")]
    }
}
