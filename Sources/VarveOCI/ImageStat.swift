package import VarveFormats
private import VarveSystem

/// The manifest, the configuration and the history of an image, with the layers that the entries of the history made, as
/// `umoci stat` shows them (umoci 0.6, utils.go). An artifact, whose configuration is that of no image, has no history.
public struct ImageStat: Hashable, Sendable {
    package struct Entry: Hashable, Sendable {
        /// Nil for an entry that made none.
        package var layer: Descriptor?
        package var diffID: DiffID?
        package var history: HistoryEntry
    }

    /// A document and what refers to it.
    public struct Document: Hashable, Sendable {
        /// The descriptor that refers to the document.
        public var descriptor: Descriptor
        package var json: JSONObject
        /// As it lies in the layout.
        public var bytes: [UInt8]
    }

    /// The manifest of the image.
    public let manifest: Document
    /// Nil for an artifact whose configuration is of a type that is not known here.
    public let config: Document?
    /// Whether it is an image; false for an OCI artifact, whose configuration is of another type.
    package let isImage: Bool
    /// Oldest first: the entries that the configuration has, and nothing for layers that none of them speaks of. An entry
    /// for which there is no layer has none.
    package let history: History

    /// The entries, one by one: an image may have very many.
    package struct History: Hashable, Sendable, Sequence {
        fileprivate var entries: [HistoryEntry] = []
        fileprivate var layers: [Descriptor] = []
        fileprivate var diffIDs: [DiffID] = []

        package var isEmpty: Bool { entries.isEmpty }

        package struct Iterator: IteratorProtocol {
            fileprivate var entries: IndexingIterator<[HistoryEntry]>
            fileprivate var layers: Zip2Sequence<[Descriptor], [DiffID]>.Iterator

            package mutating func next() -> Entry? {
                guard let entry = entries.next() else { return nil }
                let made = entry.isEmptyLayer ? nil : layers.next()
                return Entry(layer: made?.0, diffID: made?.1, history: entry)
            }
        }

        package func makeIterator() -> Iterator {
            Iterator(entries: entries.makeIterator(), layers: zip(layers, diffIDs).makeIterator())
        }
    }

    /// The empty document that artifacts have for a configuration (image-spec manifest.md, "Guidance for an Empty
    /// Descriptor").
    static let emptyType = "application/vnd.oci.empty.v1+json"

    /// - Parameter platform: which image of a multi-platform index; by default this host's.
    package init(_ reference: ImageReference, platform: Platform? = nil) throws(OCIError) {
        let layout = try ImageLayout.of(reference)
        let descriptor = try layout.manifest(of: reference, platform: platform)
        let document = try Document(descriptor, in: layout)
        let manifest = try ImageManifest(
            .object(document.json), of: "the manifest \(descriptor.digest) in \(layout.path)")
        self.manifest = document
        isImage = MediaType.isConfig(manifest.config.mediaType)
        guard isImage else {
            config =
                manifest.config.mediaType == Self.emptyType ? try Document(manifest.config, in: layout) : nil
            history = History()
            return
        }
        let image = try layout.image(at: [descriptor])
        // It has been read and checked; its values are those of the image, not a second copy of them.
        config = Document(
            descriptor: manifest.config, json: image.config.json, bytes: try layout.readBlob(manifest.config))
        history = History(
            entries: image.config.history, layers: image.layers, diffIDs: image.diffIDs)
    }

    /// The document that `umoci stat --json` prints since its version 0.6; earlier ones have the history alone.
    public var json: [UInt8] {
        var text = [UInt8]()
        writeJSON { text.append(contentsOf: $0) }
        return text
    }

    /// Writes `json` piece by piece: the history stands in it twice, and an image may have much of it.
    package func writeJSON<Failure: Error>(
        _ write: ([UInt8]) throws(Failure) -> Void
    ) throws(Failure) {
        var text = Array("{\"manifest\":".utf8)
        manifest.show(in: &text)
        if let config {
            text.append(contentsOf: ",\"config\":".utf8)
            config.show(in: &text)
        }
        if isImage {
            text.append(contentsOf: ",\"history\":[".utf8)
            for (index, entry) in history.enumerated() {
                if index > 0 { text.append(UInt8(ascii: ",")) }
                GoJSON.append(entry.json.serialized(), to: &text)
                if text.count < 1 << 16 { continue }
                try write(text)
                text = []
            }
            text.append(UInt8(ascii: "]"))
        }
        text.append(UInt8(ascii: "}"))
        try write(text)
    }
}

extension ImageStat.Document {
    init(_ descriptor: Descriptor, in layout: ImageLayout) throws(OCIError) {
        let bytes = try layout.readBlob(descriptor)
        guard let json = try ImageLayout.parse(bytes, layout.describe(descriptor)).object else {
            throw .invalid("\(layout.describe(descriptor)) is invalid: it is not a JSON object")
        }
        self.init(descriptor: descriptor, json: json, bytes: bytes)
    }

    fileprivate func show(in text: inout [UInt8]) {
        text.append(contentsOf: "{\"descriptor\":".utf8)
        GoJSON.append(JSONValue.object(descriptor.known).serialized(), to: &text)
        text.append(contentsOf: ",\"blob\":".utf8)
        GoJSON.append(bytes, to: &text)
        text.append(UInt8(ascii: "}"))
    }
}

extension ImageStat.Entry {
    fileprivate var json: JSONValue {
        var object: JSONObject = [
            "layer": layer.map { .object($0.known) } ?? .null, "diff_id": .string(diffID?.description ?? ""),
        ]
        var history = history
        history.created = history.created.map { RFC3339.shortened($0) }
        for member in history.json.members { object[member.key] = member.value }
        return .object(object)
    }
}

extension Descriptor {
    /// The members that image-spec knows, in the order of its own types (specs-go/v1/descriptor.go); annotations sorted.
    fileprivate var known: JSONObject {
        var object = JSONObject()
        for key in ["mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType"]
        {
            guard let value = json[key], !value.isNull else { continue }
            switch (key, value) {
            case ("annotations", .object(let members)):
                if !members.isEmpty { object[key] = .object(members.sortedByKey) }
            case ("platform", .object(let members)):
                var platform = JSONObject()
                for key in ["architecture", "os", "os.version", "os.features", "variant"] {
                    platform[key] = members[key]
                }
                object[key] = .object(platform)
            case (_, .array([])), (_, .string("")): continue
            default: object[key] = value
            }
        }
        return object
    }
}

extension JSONObject {
    /// By the bytes of their keys, as Go writes maps.
    package var sortedByKey: JSONObject {
        JSONObject(
            unique: members.sorted(by: { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }))
    }
}

/// JSON as Go's encoding/json prints a document that it was given: without blanks, and with what means something in HTML
/// escaped (`json.Encoder`, `SetEscapeHTML`).
enum GoJSON {
    /// - Parameter document: valid JSON.
    static func append(_ document: [UInt8], to result: inout [UInt8]) {
        var isInString = false
        var isEscaped = false
        var index = document.startIndex
        while index < document.endIndex {
            let byte = document[index]
            defer { index += 1 }
            guard isInString else {
                if [0x20, 0x09, 0x0a, 0x0d].contains(byte) { continue }
                isInString = byte == UInt8(ascii: "\"")
                result.append(byte)
                continue
            }
            if isEscaped {
                isEscaped = false
                result.append(byte)
                continue
            }
            switch byte {
            case UInt8(ascii: "<"), UInt8(ascii: ">"), UInt8(ascii: "&"):
                result.append(contentsOf: "\\u00".utf8)
                result.appendHex(byte)
            // U+2028 and U+2029, which JavaScript takes for ends of lines.
            case 0xe2 where document[index...].starts(with: [0xe2, 0x80, 0xa8]),
                0xe2 where document[index...].starts(with: [0xe2, 0x80, 0xa9]):
                result.append(contentsOf: (document[index + 2] == 0xa8 ? "\\u2028" : "\\u2029").utf8)
                index += 2
            default:
                isEscaped = byte == UInt8(ascii: "\\")
                if byte == UInt8(ascii: "\"") { isInString = false }
                result.append(byte)
            }
        }
    }
}
