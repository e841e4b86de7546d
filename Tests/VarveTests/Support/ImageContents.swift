import SystemPackage
import VarveSystem

/// The images of a layout as lines of text: equal for layouts that mean the same.
struct ImageContents {
    private(set) var lines = Set<String>()
    /// The digests of all layers.
    private(set) var layers = Set<String>()

    struct Options {
        /// Else that there is a time is compared, not which.
        var comparesTimes = false
        /// What umoci writes since 0.5 and 0.6 is compared too: the media type in an index itself, and the annotation that
        /// tells the size of a compressed layer.
        var comparesNewMembers = false
        /// Layers of which what they change is compared, not how they say it.
        var repacked = Set<String>()
        /// A later time in a repacked layer is this one, in seconds.
        var latestTime = Int64.max
    }

    /// - Parameter cache: where the entries of layers are kept that are read again and again.
    init(_ path: BytePath, _ options: Options = Options(), cache: LayerCache = LayerCache()) throws {
        func read(_ name: String) throws -> [UInt8] {
            try FileDescriptor.workingDirectory.readFile(path.appending(name), limit: 1 << 30)
        }
        func blob(_ descriptor: LayoutDocument) throws -> [UInt8] {
            let hex = (descriptor["digest"]?.text ?? "").dropFirst("sha256:".count)
            return try read("blobs/sha256/\(hex)")
        }
        /// Without what depends on the bytes of other documents.
        func members(_ document: LayoutDocument, without keys: [String]) -> String {
            let left = (document.members ?? [:]).filter { !keys.contains($0.key) }
            return "\(LayoutDocument.object(left))"
        }
        let fromBytes = ["digest", "size"]
        let versions = options.comparesNewMembers ? [] : ["mediaType"]
        let marker = try LayoutDocument(try read("oci-layout"))
        let index = try LayoutDocument(try read("index.json"))
        lines = ["oci-layout \(marker)", "index \(members(index, without: ["manifests"] + versions))"]
        for (place, entry) in (index["manifests"]?.elements ?? []).enumerated() {
            let tag = entry["annotations"]?["org.opencontainers.image.ref.name"]?.text ?? "none"
            lines.insert("entry \(place) \(members(entry, without: fromBytes))")
            let manifest = try LayoutDocument(try blob(entry))
            // umoci leaves manifests without a media type that are.
            lines.insert("\(tag) manifest \(members(manifest, without: ["config", "layers", "mediaType"]))")
            guard let config = manifest["config"] else { continue }
            lines.insert("\(tag) config descriptor \(members(config, without: fromBytes))")
            let document = try LayoutDocument(try blob(config)).mapMembers { key, value in
                switch key {
                case "created": options.comparesTimes ? value : .string("some time")
                case "diff_ids": .string("\(value.elements?.count ?? 0) layers")
                default: value
                }
            }
            for (key, value) in document.members ?? [:] { lines.insert("\(tag) config \(key) \(value)") }
            var below = LayersBelow(latestTime: options.latestTime)
            for (number, layer) in (manifest["layers"]?.elements ?? []).enumerated() {
                let (type, digest) = (layer["mediaType"]?.text ?? "", layer["digest"]?.text ?? "")
                layers.insert(digest)
                let isRepacked = options.repacked.contains(digest)
                let sizes = options.comparesNewMembers && !isRepacked ? [] : ["annotations"]
                lines.insert("\(tag) layer \(number) \(members(layer, without: fromBytes + sizes))")
                let entries = try cache.entries(digest) { try LayerContent(try blob(layer), type) }
                var counts: [String: Int] = [:]
                let texts = isRepacked ? below.changes(entries) : entries.map(\.description)
                for text in texts {
                    counts[text, default: 0] += 1
                    lines.insert("\(tag) layer \(number) \(text), \(counts[text] ?? 1)")
                }
                below.apply(entries)
            }
        }
    }
}

/// The entries of layers by their digests.
final class LayerCache {
    private var entries: [String: [LayerContent.Entry]] = [:]

    func entries(_ digest: String, _ read: () throws -> LayerContent) rethrows -> [LayerContent.Entry] {
        if let known = entries[digest] { return known }
        let result = try read().entries
        entries[digest] = result
        return result
    }
}

/// What the layers below one say of every path.
private struct LayersBelow {
    /// What an entry of the path would say; of a hard link, that of the file.
    private var texts: [String: String] = [:]
    private let latestTime: Int64

    init(latestTime: Int64) { self.latestTime = latestTime }

    private static let whiteout = ".wh."

    private static func deleted(by entry: LayerContent.Entry) -> (path: String, isOpaque: Bool)? {
        var parts = entry.path.split(separator: "/").map(String.init)
        guard let name = parts.popLast(), name.hasPrefix(whiteout) else { return nil }
        if name == ".wh..wh..opq" { return (parts.joined(separator: "/"), true) }
        return ((parts + [String(name.dropFirst(whiteout.count))]).joined(separator: "/"), false)
    }

    private mutating func removeAll(below path: String) {
        texts = texts.filter { !$0.key.hasPrefix(path.isEmpty ? "" : path + "/") || $0.key.isEmpty }
    }

    /// With `entries` on top.
    mutating func apply(_ entries: [LayerContent.Entry]) {
        for entry in entries {
            guard let deleted = Self.deleted(by: entry) else { continue }
            removeAll(below: deleted.path)
            if !deleted.isOpaque { texts[deleted.path] = nil }
        }
        for entry in entries where Self.deleted(by: entry) == nil {
            if entry.kind != "directory" { removeAll(below: entry.path) }
            texts[entry.path] =
                entry.kind == "hardLink" ? texts[entry.target] : entry.text(atMost: latestTime)
        }
    }

    /// What `entries` say that is not so already: each tool repeats other things. umoci repeats all names of a file that
    /// has one name less, directories of which the size alone is another, deletions below what is no directory any more,
    /// and the attributes of a file at each of its names.
    func changes(_ entries: [LayerContent.Entry]) -> [String] {
        var above = self
        above.apply(entries)
        let others = Set(entries.filter { $0.kind != "directory" }.map(\.path))
        return entries.compactMap { entry in
            if Self.deleted(by: entry) != nil {
                var parts = entry.path.split(separator: "/").dropLast()
                while !parts.isEmpty {
                    if others.contains(parts.joined(separator: "/")) { return nil }
                    parts.removeLast()
                }
                return entry.description
            }
            if let text = above.texts[entry.path], text == texts[entry.path] { return nil }
            return entry.kind == "hardLink" ? "/\(entry.path) is \(entry.target)" : entry.description
        }
    }
}
