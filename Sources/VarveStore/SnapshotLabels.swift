package import VarveFormats
package import VarveSystem
import SystemPackage

/// What a user says of a snapshot: keys and values. They mean nothing to the store.
package struct SnapshotLabels: Sendable, Equatable {
    /// By key.
    package private(set) var pairs: [(key: String, value: String)] = []
    /// Bytes of all of them together, as they are kept: an extended attribute of btrfs lies in one leaf of 16 KiB.
    private static let limit = 8 << 10

    package init() {}

    /// - Parameter labels: `KEY=VALUE`; of two with one key the later counts.
    /// - Throws: `usage` for what can be no label.
    package init(_ labels: [String]) throws(VarveError) {
        var values: [ByteText: String] = [:]
        for label in labels {
            let parts = label.split(atByte: "=", maxSplits: 1)
            guard parts.count == 2, !parts[0].isEmpty, ShownText.isPlain(label) else {
                throw VarveError(
                    .usage, "\"\(BytePath.excerpt(label.utf8))\" is no label", subject: BytePath(label),
                    remedy: .follow("write KEY=VALUE, with no control characters"))
            }
            values[ByteText(parts[0])] = parts[1]
        }
        pairs = values.map { ($0.key.text, $0.value) }.sorted {
            $0.0.utf8.lexicographicallyPrecedes($1.0.utf8)
        }
        guard encoded.count <= Self.limit else {
            throw VarveError(
                .usage, "the labels of a snapshot have more than \(Self.limit) bytes together",
                remedy: .follow("keep what is long elsewhere, and a digest of it in a label"))
        }
    }

    /// What cannot be understood is no label: another program may have written the attribute.
    init(attribute: [UInt8]?) {
        guard let attribute, attribute.count <= Self.limit,
            let object = (try? JSONValue(parsing: attribute))?.object
        else { return }
        pairs = object.strings.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
    }

    package subscript(key: String) -> String? { pairs.first { sameBytes($0.key, key) }?.value }
    package var isEmpty: Bool { pairs.isEmpty }

    package var json: JSONObject {
        var object: JSONObject = [:]
        for (key, value) in pairs { object[key] = .string(value) }
        return object
    }

    var encoded: [UInt8] { JSONValue.object(json).serialized() }

    package static func == (left: SnapshotLabels, right: SnapshotLabels) -> Bool {
        left.encoded == right.encoded
    }
}

/// Which snapshots are meant: those with all of these labels that are old enough.
package struct SnapshotSelection: Sendable {
    /// Nil for any value.
    private var labels: [(key: String, value: String?)] = []
    /// Snapshots that were made later are not meant.
    package var madeBefore: Timestamp?

    /// - Parameter filters: `label=KEY` or `label=KEY=VALUE`.
    /// - Throws: `usage` for any other.
    package init(_ filters: [String] = [], madeBefore: Timestamp? = nil) throws(VarveError) {
        self.madeBefore = madeBefore
        for filter in filters {
            let parts = filter.split(atByte: "=", maxSplits: 2)
            guard parts.count >= 2, parts[0] == "label", !parts[1].isEmpty else {
                throw VarveError(
                    .usage, "\"\(BytePath.excerpt(filter.utf8))\" is no filter", subject: BytePath(filter),
                    remedy: .follow("write label=KEY or label=KEY=VALUE"))
            }
            labels.append((parts[1], parts.count == 3 ? parts[2] : nil))
        }
    }

    package var isEmpty: Bool { labels.isEmpty && madeBefore == nil }

    package func takes(_ snapshot: NamedSnapshot) -> Bool {
        if let madeBefore, snapshot.created >= madeBefore { return false }
        return labels.allSatisfy { label in
            snapshot.labels[label.key].map { found in label.value.map { sameBytes($0, found) } ?? true }
                ?? false
        }
    }
}
