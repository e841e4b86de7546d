import OCI
import SystemCalls

/// What `stat` prints for a person: the parts and their order are those of umoci 0.6, and may change.
struct StatText {
    private(set) var text = ""
    private var depth = 0

    init(_ stat: ImageStat) {
        section("MANIFEST")
        manifest(stat.manifest)
        section("CONFIG")
        configuration(stat.config)
        section("HISTORY")
        text += Self.history(stat).text
    }

    private mutating func manifest(_ document: ImageStat.Document) {
        if let version = document.json["schemaVersion"]?.int64 { line("Schema Version", "\(version)") }
        field("Media Type", document.json["mediaType"])
        group("Config") { $0.descriptor(document.json["config"]?.object) }
        group("Layers") { list in
            for layer in document.json["layers"]?.array ?? [] { list.descriptor(layer.object) }
        }
        members("Annotations", document.json["annotations"])
        descriptor(document.descriptor.json)
    }

    private mutating func configuration(_ document: ImageStat.Document) {
        field("Created", document.json["created"])
        field("Author", document.json["author"])
        group("Platform") { platform in
            platform.field("OS", document.json["os"])
            platform.field("Architecture", document.json["architecture"])
            platform.field("Variant", document.json["variant"])
        }
        let execution = document.json["config"]?.object ?? JSONObject()
        group("Image Config") { config in
            config.field("User", execution["User"] ?? "")
            config.names("Exposed Ports", execution["ExposedPorts"])
            config.words("Environment", execution["Env"])
            config.words("Entrypoint", execution["Entrypoint"])
            config.words("Command", execution["Cmd"])
            config.names("Volumes", execution["Volumes"])
            config.field("Working Directory", execution["WorkingDir"])
            config.members("Labels", execution["Labels"])
            config.field("Stop Signal", execution["StopSignal"])
        }
        descriptor(document.descriptor.json)
    }

    private static func history(_ stat: ImageStat) -> Table {
        var table = Table(["LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"])
        for entry in stat.history {
            table.append([
                entry.layer?.digest.description ?? "<none>", entry.history.created ?? "<none>",
                entry.history.createdBy ?? "", entry.layer.map { decimalSize($0.size) } ?? "<none>",
                entry.history.comment ?? "",
            ])
        }
        return table
    }

    private var indent: String { String(repeating: " ", count: 8 * depth) }

    private mutating func section(_ name: String) { text += (text.isEmpty ? "" : "\n") + "== \(name) ==\n" }

    private mutating func line(_ name: String, _ value: String?) {
        text += indent + name + ":" + (value.map { " " + $0 } ?? "") + "\n"
    }

    private mutating func field(_ name: String, _ value: JSONValue?) {
        if let value = value?.string { line(name, Self.quoted(value)) }
    }

    private mutating func group(_ name: String, _ body: (inout StatText) -> Void) {
        line(name, nil)
        depth += 1
        body(&self)
        depth -= 1
    }

    private mutating func descriptor(_ descriptor: JSONObject?) {
        guard let descriptor else { return }
        group("Descriptor") { group in
            group.field("Media Type", descriptor["mediaType"])
            group.field("Digest", descriptor["digest"])
            if let size = descriptor["size"]?.int64 { group.line("Size", decimalSize(size)) }
            group.members("Annotations", descriptor["annotations"])
        }
    }

    private mutating func words(_ name: String, _ value: JSONValue?) {
        guard let words = value?.array, !words.isEmpty else { return }
        group(name) { $0.rows(words.compactMap(\.string)) }
    }

    private mutating func names(_ name: String, _ value: JSONValue?) {
        guard let members = value?.object?.members, !members.isEmpty else { return }
        group(name) { $0.rows(members.map(\.key)) }
    }

    private mutating func members(_ name: String, _ value: JSONValue?) {
        guard let object = value?.object, !object.isEmpty else { return }
        group(name) { group in
            for (key, value) in object.strings { group.line(Self.quoted(key), Self.quoted(value)) }
        }
    }

    private mutating func rows(_ values: [String]) {
        for value in values { text += indent + Self.quoted(value) + "\n" }
    }

    /// In quotes where blanks or nothing at all would else not be seen; control bytes escaped.
    private static func quoted(_ value: String) -> String {
        let escaped = BytePath.escape(Array(value.utf8))
        let isPlain =
            !value.isEmpty && !value.utf8.contains { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\"") }
        return isPlain
            ? escaped
            : "\""
                + escaped.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\\\"")
                + "\""
    }
}
