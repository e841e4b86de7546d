/// The history of an image with the layers that its entries made, as `umoci stat` shows it.
public struct ImageStat: Hashable, Sendable {
    public struct Entry: Hashable, Sendable {
        /// Nil for an entry that made none.
        public var layer: Descriptor?
        public var diffID: DiffID?
        public var history: HistoryEntry
    }

    /// Oldest first.
    public let history: [Entry]

    /// Layers that the history does not speak of come last, with empty entries; entries for which there is no
    /// layer have none.
    public init(_ image: ResolvedImage) {
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

    /// The document that `umoci stat --json` prints.
    public var json: JSONValue {
        let entries = history.map { entry in
            var object: JSONObject = [
                "layer": entry.layer.map { .object($0.json) } ?? .null,
                "diff_id": .string(entry.diffID?.description ?? ""),
            ]
            for member in entry.history.json.members { object[member.key] = member.value }
            return JSONValue.object(object)
        }
        return ["history": .array(entries)]
    }
}
