import VarveFormats
import VarveArchive
import VarveOCI
import VarveSystem

/// What `stat` prints for a person, byte for byte what umoci 0.6 prints (utils.go, `ManifestStat.Format`).
struct StatText {
    private var text = ""
    private var indent = ""

    /// - Parameter write: gets the text, the table of the history line by line.
    static func write<E: Error>(_ stat: ImageStat, to write: (String) throws(E) -> Void) throws(E) {
        try write(StatText(stat).text)
        guard stat.config != nil, stat.isImage else { return }
        try write("\n== HISTORY ==\n")
        try history(stat, to: write)
    }

    private init(_ stat: ImageStat) {
        text += "== MANIFEST ==\n"
        manifest(stat.manifest)
        guard let config = stat.config else { return }
        text += "\n== CONFIG ==\n"
        if stat.isImage { configuration(config.json) }
        descriptor(config.descriptor.json)
    }

    private mutating func manifest(_ document: ImageStat.Document) {
        let json = document.json
        field("Schema Version", "\(json["schemaVersion"]?.int64 ?? 0)")
        field("Media Type", json["mediaType"]?.string ?? "")
        optional("Artifact Type", json["artifactType"])
        group("Config") { $0.descriptor(json["config"]?.object) }
        if let layers = json["layers"]?.array, !layers.isEmpty {
            group("Layers") { list in for layer in layers { list.descriptor(layer.object) } }
        }
        if let subject = json["subject"]?.object { group("Subject") { $0.descriptor(subject) } }
        map("Annotations", json["annotations"], ifEmpty: nil)
        descriptor(document.descriptor.json)
    }

    private mutating func configuration(_ json: JSONObject) {
        if let created = json["created"]?.string { field("Created", RFC3339.shortened(created)) }
        field("Author", json["author"]?.string ?? "")
        platform(json)
        let config = json["config"]?.object ?? JSONObject()
        group("Image Config") { part in
            part.field("User", config["User"]?.string ?? "")
            let suffix = config["ArgsEscaped"]?.bool == true ? " (escaped)" : ""
            part.list("Entrypoint" + suffix, config["Entrypoint"], ifEmpty: nil)
            part.list("Command" + suffix, config["Cmd"], ifEmpty: Self.empty)
            part.optional("Working Directory", config["WorkingDir"])
            part.list("Environment", config["Env"], ifEmpty: nil)
            part.optional("Stop Signal", config["StopSignal"])
            part.set("Exposed Ports", config["ExposedPorts"])
            part.set("Volumes", config["Volumes"])
            part.map("Labels", config["Labels"], ifEmpty: nil)
        }
    }

    private mutating func platform(_ json: JSONObject) {
        group("Platform") { part in
            part.field("OS", json["os"]?.string ?? "")
            part.optional("OS Version", json["os.version"])
            let features = json["os.features"]?.array?.compactMap(\.string) ?? []
            if !features.isEmpty { part.field("OS Features", features) }
            let variant = json["variant"]?.string ?? ""
            part.line(
                "Architecture: " + GoQuoting.quoted(json["architecture"]?.string ?? "")
                    + (variant.isEmpty ? "" : " (\(GoQuoting.quoted(variant, isPrecise: false)))"))
        }
    }

    private mutating func descriptor(_ json: JSONObject?) {
        guard let json else { return }
        group("Descriptor") { part in
            part.field("Media Type", json["mediaType"]?.string ?? "")
            part.optional("Artifact Type", json["artifactType"])
            part.field("Digest", json["digest"]?.string ?? "")
            part.field("Size", decimalSize(json["size"]?.int64 ?? 0))
            if let platform = json["platform"]?.object {
                // umoci does not indent it.
                let indent = part.indent
                part.indent = ""
                part.platform(platform)
                part.indent = indent
            }
            part.list("URLs", json["urls"], ifEmpty: nil)
            part.map("Annotations", json["annotations"], ifEmpty: nil)
            if let data = json["data"]?.string.flatMap({ Base64.decode(Array($0.utf8)) }), !data.isEmpty {
                part.line("Data: (\(data.count) bytes)")
                for line in HexDump.lines(data) { part.text += part.indent + "\t" + line + "\n" }
            }
        }
    }

    /// A table as Go's text/tabwriter makes it: no column narrower than four, blanks up to the last one also where that is
    /// empty.
    /// The cells are made twice, once for the widths: all of them at once would take several times the memory of the image.
    private static func history<E: Error>(_ stat: ImageStat, to write: (String) throws(E) -> Void) throws(E) {
        func shown(_ text: String?) -> String { GoQuoting.quoted(text ?? "", isPrecise: false) }
        func cells(_ entry: ImageStat.Entry) -> [String] {
            [
                entry.layer?.digest.description ?? "<none>",
                shown(entry.history.created.map { RFC3339.shortened($0) } ?? "<none>"),
                shown(entry.history.createdBy),
                entry.layer.map { decimalSize($0.size) } ?? "<none>", shown(entry.history.comment),
            ]
        }
        func width(_ text: String) -> Int { text.unicodeScalars.count }
        let head = ["LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"]
        var widths = head.dropLast().map { max(4, width($0) + 1) }
        for entry in stat.history {
            for (column, cell) in cells(entry).dropLast().enumerated() {
                widths[column] = max(widths[column], width(cell) + 1)
            }
        }
        func line(_ row: [String]) -> String {
            var line = ""
            for (cell, space) in zip(row, widths) {
                line += cell + String(repeating: " ", count: space - width(cell))
            }
            return line + row[4] + "\n"
        }
        try write(line(head))
        for entry in stat.history { try write(line(cells(entry))) }
    }

    private static let empty = "(empty)"

    private mutating func line(_ line: String) { text += indent + line + "\n" }

    private mutating func field(_ name: String, _ values: [String]) {
        // What holds a comma is in quotes, as commas part the values.
        let shown = values.map {
            $0.utf8.contains(UInt8(ascii: ",")) ? GoQuoting.quote($0) : GoQuoting.quoted($0)
        }
        line("\(name): \(shown.joined(separator: ", "))")
    }

    private mutating func field(_ name: String, _ value: String) { field(name, [value]) }

    private mutating func optional(_ name: String, _ value: JSONValue?) {
        if let value = value?.string, !value.isEmpty { field(name, value) }
    }

    private mutating func group(_ name: String, _ body: (inout StatText) -> Void) {
        line("\(name):")
        let outer = indent
        indent += "\t"
        body(&self)
        indent = outer
    }

    private mutating func list(_ name: String, _ value: JSONValue?, ifEmpty: String?) {
        let words = value?.array?.compactMap(\.string) ?? []
        if words.isEmpty {
            if let ifEmpty { field(name, ifEmpty) }
            return
        }
        group(name) { part in for word in words { part.line(GoQuoting.quoted(word)) } }
    }

    private mutating func set(_ name: String, _ value: JSONValue?) {
        guard let members = value?.object?.sortedByKey.members, !members.isEmpty else { return }
        field(name, members.map(\.key))
    }

    private mutating func map(_ name: String, _ value: JSONValue?, ifEmpty: String?) {
        guard let object = value?.object, !object.isEmpty else { return }
        group(name) { part in
            for (key, value) in object.sortedByKey.strings { part.field(GoQuoting.quoted(key), value) }
        }
    }
}

/// Text in quotes as Go's strconv.Quote puts it, where it needs them.
enum GoQuoting {
    /// - Parameter isPrecise: white space and empty text are shown in quotes too.
    static func quoted(_ text: String, isPrecise: Bool = true) -> String {
        let isHidden = text.isEmpty || text.unicodeScalars.contains { $0.properties.isWhitespace }
        let quote = quote(text)
        let isPlain = quote.utf8.dropFirst().dropLast().elementsEqual(text.utf8)
        return isPlain && !(isPrecise && isHidden) ? text : quote
    }

    static func quote(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": result += "\\\(scalar)"
            case "\u{7}": result += "\\a"
            case "\u{8}": result += "\\b"
            case "\u{c}": result += "\\f"
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            case "\u{b}": result += "\\v"
            case _ where isPrintable(scalar): result.unicodeScalars.append(scalar)
            case _ where scalar.value < 0x20 || scalar.value == 0x7f: result += "\\x" + hex(scalar.value, 2)
            case _ where scalar.value < 0x10000: result += "\\u" + hex(scalar.value, 4)
            default: result += "\\U" + hex(scalar.value, 8)
            }
        }
        return result + "\""
    }

    /// unicode.IsPrint: letters, marks, numbers, punctuation, symbols and the ASCII space.
    private static func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator:
            false
        case .spaceSeparator: scalar == " "
        default: true
        }
    }

    private static func hex(_ value: UInt32, _ width: Int) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
}

/// Bytes as xxd shows them, the first 256 of them (umoci's `pprintBytes`).
private enum HexDump {
    static func lines(_ data: [UInt8]) -> [String] {
        let limit = 256
        var lines: [String] = []
        for start in stride(from: 0, to: min(data.count, limit), by: 16) {
            let row = data[start..<min(start + 16, data.count, limit)]
            var line =
                String(repeating: "0", count: 4 - min(4, String(start, radix: 16).count))
                + String(start, radix: 16) + ": "
            var shown = ""
            for offset in 0..<16 {
                if offset > 0, offset % 2 == 0 { line += " " }
                guard start + offset < row.endIndex else {
                    line += "  "
                    continue
                }
                let byte = row[start + offset]
                line += (byte < 16 ? "0" : "") + String(byte, radix: 16)
                // umoci writes bytes above 0x9f as they are, which is no UTF-8.
                shown += (0x20..<0x7f).contains(byte) ? String(UnicodeScalar(byte)) : "."
            }
            lines.append(line + "  " + shown)
        }
        if data.count > limit { lines.append("....  (extra \(data.count - limit) bytes omitted)") }
        return lines
    }
}
