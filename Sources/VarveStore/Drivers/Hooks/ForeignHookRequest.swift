import VarveFormats
package import VarveOCI
package import VarveSystem

/// A request as another tool wrote it.
package struct ForeignHookRequest {
    private let members: JSONObject

    package init(_ bytes: [UInt8], _ name: HookName) throws(VarveError) {
        let value: JSONValue
        do throws(JSONSyntaxError) { value = try JSONValue(parsing: bytes, expansion: nil) } catch {
            throw Self.invalid("it is not valid JSON: \(error)")
        }
        guard let members = value.object else { throw Self.invalid("it is not a JSON object") }
        guard members["protocolVersion"]?.int64 == HookRunner.protocolVersion else {
            throw Self.invalid("its \"protocolVersion\" is not \(HookRunner.protocolVersion)")
        }
        guard members["hook"]?.string == name.rawValue else {
            throw Self.invalid("its \"hook\" is not \"\(name.rawValue)\"")
        }
        self.members = members
    }

    private static func invalid(_ reason: String) -> VarveError {
        VarveError(
            .invalidInput, "the request on standard input cannot be used: \(reason)",
            remedy: .follow("see Docs/hooks.md"))
    }

    func member(_ key: String) throws(VarveError) -> JSONValue {
        guard let value = members[key] else { throw Self.invalid("it has no \"\(key)\"") }
        return value
    }

    /// The names of all prefixes, counted from the DiffIDs.
    package func chains() throws(VarveError) -> [ChainName] {
        let variant: String
        switch members["variant"] {
        case nil, .null?: variant = ""
        case .string(let text)?: variant = text
        default: throw Self.invalid("its \"variant\" is not a string")
        }
        guard variant.isEmpty || variant == "-dirlinks" else {
            throw VarveError(
                .unsupported,
                "the btrfs store takes no layers with mapped owners through a hook",
                remedy: .follow("use it directly"))
        }
        guard let layers = try member("layers").array else {
            throw Self.invalid("its \"layers\" is not an array")
        }
        var diffIDs: [DiffID] = []
        for layer in layers {
            guard let text = layer.object?["diffID"]?.string, let digest = Digest(text) else {
                throw Self.invalid("a layer has no \"diffID\"")
            }
            diffIDs.append(DiffID(digest))
        }
        return ChainID.prefixes(of: diffIDs).map { ChainName($0, variant: variant) }
    }

    /// That of the layer in hand.
    package func chain() throws(VarveError) -> ChainName {
        let names = try chains()
        guard let index = try member("layer").int64, names.indices.contains(Int(clamping: index)) else {
            throw Self.invalid("its \"layer\" is not the index of one of its layers")
        }
        return names[Int(clamping: index)]
    }

    package func manifest() throws(VarveError) -> Digest {
        guard let text = try member("manifestDescriptor").object?["digest"]?.string, let digest = Digest(text)
        else {
            throw Self.invalid("its \"manifestDescriptor\" has no \"digest\"")
        }
        return digest
    }
}
