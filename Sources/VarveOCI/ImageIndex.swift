package import VarveFormats
import VarveSystem

/// An image index (image-spec image-index.md) or a Docker manifest list. `index.json` is one too.
package struct ImageIndex: Hashable, Sendable {
    package private(set) var json: JSONObject

    /// The entries as they stand. One that nobody needs is never parsed, so an entry of a kind that is not
    /// known here does not keep the others from being read.
    package var entries: [JSONValue] {
        get { json["manifests"]?.array ?? [] }
        set { json["manifests"] = .array(newValue) }
    }

    /// An index with nothing in it.
    package init() {
        json = ["schemaVersion": 2, "mediaType": .string(MediaType.ociIndex), "manifests": []]
    }

    package init(_ value: JSONValue, of what: String) throws(OCIError) {
        json = try documentObject(value, what)
        try checkMediaType(json, MediaType.isIndex, "an image index", what)
        // A document that can be read as two things means different images to different tools
        // (CVE-2021-41190).
        for key in ["layers", "config", "fsLayers"] where json[key] != nil {
            throw .invalid(
                "\(what) is ambiguous: it is an image index and yet has \"\(key)\", which only a manifest has"
            )
        }
        _ = try json.array("manifests", of: what)
    }

    /// The entries that are tagged `name`, with their places.
    func entries(named name: String, of what: String) throws(OCIError) -> [(
        place: Int, descriptor: Descriptor
    )] {
        var result = [(place: Int, descriptor: Descriptor)]()
        for (place, entry) in entries.enumerated() where Self.isTagged(entry, name) {
            result.append((place, try Descriptor(entry, of: what)))
        }
        return result
    }

    static func referenceName(of entry: JSONValue) -> String? {
        entry.object?["annotations"]?.object?[Descriptor.referenceNameKey]?.string
    }

    /// Whether an entry bears the tag, byte for byte: there are several ways to write one accented letter, and each is a tag of its own.
    static func isTagged(_ entry: JSONValue, _ name: String) -> Bool {
        referenceName(of: entry).map { sameBytes($0, name) } ?? false
    }

    /// Whether an entry with a tag leads to this digest.
    package func holds(_ digest: Digest, tagged name: String) -> Bool {
        entries.contains {
            Self.isTagged($0, name) && $0.object?["digest"]?.string == digest.description
        }
    }

    /// Gives `descriptor` the tag `name`, as the last entry.
    ///
    /// Other entries of that name go, as umoci does it; an index among them stays in its place without the name, so
    /// that the images of other platforms that it holds are not lost.
    package mutating func tag(_ name: String, _ descriptor: Descriptor) {
        var result = [JSONValue]()
        for entry in entries {
            guard Self.isTagged(entry, name) else {
                result.append(entry)
                continue
            }
            guard var object = entry.object, let type = object["mediaType"]?.string, MediaType.isIndex(type),
                object["digest"]?.string != descriptor.digest.description
            else { continue }
            object.setAnnotation(Descriptor.referenceNameKey, nil)
            result.append(.object(object))
        }
        result.append(.object(descriptor.annotated(Descriptor.referenceNameKey, name).json))
        entries = result
    }

    /// Writes down that this is an image index, as older tools do not.
    mutating func setMediaType() {
        if json["mediaType"]?.string?.isEmpty ?? true { json["mediaType"] = .string(MediaType.ociIndex) }
    }

    /// Removes every entry tagged `name`; false if there was none.
    package mutating func removeTag(_ name: String) -> Bool {
        let kept = entries.filter { !Self.isTagged($0, name) }
        guard kept.count != entries.count else { return false }
        entries = kept
        return true
    }
}

/// The object that `value` is, with `schemaVersion` checked: 2, in every format that is read here.
func documentObject(_ value: JSONValue, _ what: String) throws(OCIError) -> JSONObject {
    guard let object = value.object else {
        throw .invalid("\(what) is invalid: it is \(value.kind), not an object")
    }
    guard let version = try object.integer("schemaVersion", of: what) else {
        throw .invalid("\(what) is invalid: it has no \"schemaVersion\"")
    }
    guard version == 2 else {
        throw .invalid(
            "\(what) has schemaVersion \(version), but Varve reads 2", remedy: .convertImage
        )
    }
    return object
}

func checkMediaType(
    _ object: JSONObject, _ isRight: (String) -> Bool, _ wanted: String, _ what: String
) throws(OCIError) {
    guard let type = try object.string("mediaType", of: what), !type.isEmpty, !isRight(type) else { return }
    throw .invalid("\(what) is invalid: it should be \(wanted), but says that it is \"\(shown(type))\"")
}
