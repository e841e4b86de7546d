/// An image's manifest, configuration and history with the layers that its entries made, as `umoci stat` shows them.
public struct ImageStat: Hashable, Sendable {
    public struct Entry: Hashable, Sendable {
        /// Nil for an entry that made none.
        public var layer: Descriptor?
        public var diffID: DiffID?
        public var history: HistoryEntry
    }

    /// A document and what refers to it.
    public struct Document: Hashable, Sendable {
        public var descriptor: Descriptor
        public var json: JSONObject
    }

    public let manifest: Document
    public let config: Document
    /// Oldest first.
    public let history: [Entry]

    /// Layers that the history does not speak of come last, with empty entries; entries for which there is no
    /// layer have none.
    public init(_ image: ResolvedImage) {
        manifest = Document(descriptor: image.manifestDescriptor, json: image.manifest.json)
        config = Document(descriptor: image.manifest.config, json: image.config.json)
        var entries = [Entry]()
        var next = 0
        func nextLayer(_ history: HistoryEntry) -> Entry {
            guard next < image.layers.count, next < image.diffIDs.count else {
                return Entry(layer: nil, diffID: nil, history: history)
            }
            defer { next += 1 }
            return Entry(layer: image.layers[next], diffID: image.diffIDs[next], history: history)
        }
        for entry in image.config.history {
            entries.append(
                entry.isEmptyLayer ? Entry(layer: nil, diffID: nil, history: entry) : nextLayer(entry))
        }
        while next < image.layers.count, next < image.diffIDs.count {
            entries.append(nextLayer(HistoryEntry()))
        }
        history = entries
    }

    /// The document that `umoci stat --json` prints since its version 0.6; earlier ones have the history alone.
    public var json: JSONValue {
        let entries = history.map { entry in
            var object: JSONObject = [
                "layer": entry.layer.map { .object($0.json) } ?? .null,
                "diff_id": .string(entry.diffID?.description ?? ""),
            ]
            for member in entry.history.json.members { object[member.key] = member.value }
            return JSONValue.object(object)
        }
        return ["manifest": manifest.value, "config": config.value, "history": .array(entries)]
    }
}

extension ImageStat.Document {
    fileprivate var value: JSONValue { ["descriptor": .object(descriptor.json), "blob": .object(json)] }
}
