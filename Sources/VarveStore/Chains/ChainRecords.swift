import VarveOCI

/// What a bundle's attribute `user.varve.chain` says: for an image's manifest, the chain that holds the image's tree.
/// One line each, `sha256:HEX sha256-HEX`; in place of the chain stands `empty` for an image with no layers.
///
/// After a refresh there are two: that of the image before it, and that of the new one. Which one counts is said by the
/// manifest in the bundle's `umoci.json`, so that replacing this file is the one step in which a refresh happens.
struct ChainRecords: Equatable {
    enum Base: Equatable {
        case chain(ChainName)
        case empty
    }

    private static let empty = "empty"
    private var records: [(manifest: String, base: Base)] = []

    init(_ base: Base, for manifest: Digest) { records = [(manifest.description, base)] }

    /// Lines that cannot be understood are passed over.
    init(_ attribute: [UInt8]) {
        for line in attribute.split(separator: UInt8(ascii: "\n")) {
            let words = String(decoding: line, as: UTF8.self).split(separator: " ")
            guard words.count == 2 else { continue }
            if words[1] == Self.empty {
                records.append((String(words[0]), .empty))
            } else if let name = ChainName(String(words[1])) {
                records.append((String(words[0]), .chain(name)))
            }
        }
    }

    var isEmpty: Bool { records.isEmpty }

    /// Every chain that is recorded.
    var chains: [ChainName] {
        records.compactMap { if case .chain(let name) = $0.base { name } else { nil } }
    }

    /// Every manifest that is recorded.
    var manifests: [Digest] { records.compactMap { Digest($0.manifest) } }

    /// The chain recorded last.
    var current: ChainName? { if case .chain(let name) = records.last?.base { name } else { nil } }

    func base(for manifest: Digest) -> Base? { records.last { $0.manifest == manifest.description }?.base }

    /// Adds a record, and drops all but that of `current`, the image that counts until `umoci.json` names the new one: it is
    /// not the one added last if an earlier command was ended between the two.
    mutating func add(_ base: Base, for manifest: Digest, keeping current: Digest?) {
        records.removeAll { $0.manifest != current?.description || $0.manifest == manifest.description }
        records.append((manifest.description, base))
    }

    var encoded: [UInt8] {
        records.flatMap { record in
            let base = if case .chain(let name) = record.base { name.description } else { Self.empty }
            return Array("\(record.manifest) \(base)\n".utf8)
        }
    }

    static func == (left: ChainRecords, right: ChainRecords) -> Bool { left.encoded == right.encoded }
}
