import VarveFormats
import VarveOCI
package import VarveSystem

/// The name of a snapshot. It is the client's, and means nothing: bytes that are compared as they are, with slashes, spaces and
/// all. Two strings that Unicode takes for the same text are two keys.
package struct SnapshotKey: Hashable, Sendable, Comparable {
    package let bytes: [UInt8]

    package init(_ text: String) { bytes = Array(text.utf8) }

    package var text: String { String(decoding: bytes, as: UTF8.self) }
    package var isEmpty: Bool { bytes.isEmpty }

    /// The name space of containerd's that it belongs to, as containerd names what it gives its plugins: `NAMESPACE/NUMBER/NAME`. Nil for
    /// another form.
    package var namespace: String? {
        let parts = text.split(atByte: "/", maxSplits: 2)
        guard parts.count == 3, !parts[0].isEmpty, UInt64(parts[1]) != nil else { return nil }
        return parts[0]
    }

    /// The name of its record: a key can be longer than a file name, and hold a slash.
    package var fileName: BytePath { BytePath(Digest(of: bytes).hex + SnapshotRecord.suffix) }

    /// Of the record while the tree is being made.
    var pendingFileName: BytePath { fileName.appendingBytes(BytePath(Self.pendingSuffix)) }
    private static let pendingSuffix = ".pending"

    /// The name of the record that has this name while the tree is being made; nil for other names.
    static func fileName(ofPending name: BytePath) -> BytePath? {
        guard let text = name.string, text.hasSuffix(pendingSuffix) else { return nil }
        let whole = BytePath(String(decoding: text.utf8.dropLast(pendingSuffix.utf8.count), as: UTF8.self))
        return isFileName(whole) ? whole : nil
    }

    /// Whether it can be the name of a record.
    static func isFileName(_ name: BytePath) -> Bool {
        guard let text = name.string, text.hasSuffix(SnapshotRecord.suffix) else { return false }
        let digits = text.utf8.dropLast(SnapshotRecord.suffix.utf8.count)
        return digits.count == 64 && digits.allSatisfy { "0123456789abcdef".utf8.contains($0) }
    }

    package static func < (left: SnapshotKey, right: SnapshotKey) -> Bool {
        left.bytes.lexicographicallyPrecedes(right.bytes)
    }
}
