import VarveFormats
import VarveSystem

/// The text form of POSIX ACLs that star and GNU tar keep in pax records (`SCHILY.acl.access`), turned into the
/// kernel's xattr value (linux/posix_acl_xattr.h: version 2, entries of tag, permissions and id in little-endian).
enum PosixACL {
    static let accessName = BytePath("system.posix_acl_access")
    static let defaultName = BytePath("system.posix_acl_default")

    static func isACL(_ attribute: BytePath) -> Bool { attribute == accessName || attribute == defaultName }

    /// An ACL as text, with whom it names.
    struct Parsed {
        fileprivate struct Entry {
            var tag: UInt16
            var permissions: UInt16
            /// Nil for who is known by name alone.
            var id: UInt32?
            var name: String
        }
        fileprivate var entries: [Entry]

        /// Whether it names users or groups that have no number in it.
        var needsNames: Bool { entries.contains { $0.id == nil } }
        /// Whether it names users or groups besides the file's own.
        var namesOthers: Bool { entries.contains { $0.tag == 0x02 || $0.tag == 0x08 } }

        /// The kernel's value. Whom `lookUp` does not know has no part in it, and is in `unknown`.
        func value(
            _ lookUp: (_ name: String, _ isUser: Bool) -> UInt32? = { _, _ in nil }
        ) -> (bytes: [UInt8], unknown: [String]) {
            var unknown: [String] = []
            var known: [(tag: UInt16, permissions: UInt16, id: UInt32)] = []
            for entry in entries {
                if let id = entry.id ?? lookUp(entry.name, entry.tag == 0x02) {
                    known.append((entry.tag, entry.permissions, id))
                } else {
                    unknown.append(entry.name)
                }
            }
            known.sort { ($0.tag, $0.id) < ($1.tag, $1.id) }
            var value: [UInt8] = [2, 0, 0, 0]
            for entry in known {
                unsafe withUnsafeBytes(of: entry.tag.littleEndian) { unsafe value.append(contentsOf: $0) }
                unsafe withUnsafeBytes(of: entry.permissions.littleEndian) {
                    unsafe value.append(contentsOf: $0)
                }
                unsafe withUnsafeBytes(of: entry.id.littleEndian) { unsafe value.append(contentsOf: $0) }
            }
            return (value, unknown)
        }
    }

    /// Entries are separated by commas or line ends: `user::rwx`, `user:1000:r-x`, `user:lisa:rwx:502`, `user:lisa:rwx`,
    /// `mask::r--`, each up to a `#`. Nil if the text is not of that form.
    static func parse(_ text: [UInt8]) -> Parsed? {
        var entries: [Parsed.Entry] = []
        for line in text.split(whereSeparator: { $0 == UInt8(ascii: ",") || $0 == UInt8(ascii: "\n") }) {
            let body = line.prefix { $0 != UInt8(ascii: "#") }
            guard let string = String(validating: body, as: UTF8.self) else { return nil }
            let words = string.split(atByte: ":").map { word in
                String(word.filter { $0 != " " && $0 != "\t" })
            }
            if words.count == 1, words[0].isEmpty { continue }
            guard words.count == 3 || words.count == 4 else { return nil }
            var permissions: UInt16 = 0
            for letter in words[2] {
                switch letter {
                case "r": permissions |= 4
                case "w": permissions |= 2
                case "x": permissions |= 1
                case "-": break
                default: return nil
                }
            }
            let isNamed = !words[1].isEmpty
            let tag: UInt16
            switch words[0] {
            case "user", "u": tag = isNamed ? 0x02 : 0x01
            case "group", "g": tag = isNamed ? 0x08 : 0x04
            case "mask", "m": tag = 0x10
            case "other", "o": tag = 0x20
            default: return nil
            }
            var id: UInt32? = UInt32.max
            if isNamed {
                let number = words.count == 4 ? words[3] : words[1]
                if number.utf8.allSatisfy({ (0x30...0x39).contains($0) }), !number.isEmpty {
                    guard let value = UInt32(number), value != .max else { return nil }
                    id = value
                } else {
                    guard words.count == 3 else { return nil }
                    id = nil
                }
            }
            entries.append(Parsed.Entry(tag: tag, permissions: permissions, id: id, name: words[1]))
        }
        return entries.isEmpty ? nil : Parsed(entries: entries)
    }

    /// Bytes of the header, and of an entry behind it.
    private static let headerSize = 4
    private static let entrySize = 8

    /// Whether a value names users or groups besides the file's own.
    static func namesOthers(_ value: [UInt8]) -> Bool { namedEntries(value).contains { _ in true } }

    /// Whether a value names somebody who has no number in the caller's user name space: the kernel then gives the
    /// highest one, which is nobody's (posix_acl_to_xattr, fs/posix_acl.c).
    static func namesUnknown(_ value: [UInt8]) -> Bool {
        namedEntries(value).contains { entry in
            value[(entry.start + 4)...].prefix(4).allSatisfy { $0 == 0xff }
        }
    }

    /// The value with the ids of the users and groups that it names replaced.
    static func mapped(
        _ value: [UInt8], _ id: (_ id: UInt32, _ isUser: Bool) throws(LayerError) -> UInt32
    ) throws(LayerError) -> [UInt8] {
        var result = value
        for entry in namedEntries(value) {
            let old = (4..<8).reduce(UInt32(0)) {
                $0 | UInt32(value[entry.start + $1]) << UInt32(8 * ($1 - 4))
            }
            let new = try id(old, entry.isUser)
            for byte in 0..<4 {
                result[entry.start + 4 + byte] = UInt8(truncatingIfNeeded: new >> UInt32(8 * byte))
            }
        }
        return result
    }

    /// Where entries of named users and groups begin.
    private static func namedEntries(_ value: [UInt8]) -> [(start: Int, isUser: Bool)] {
        stride(from: headerSize, through: value.count - entrySize, by: entrySize).compactMap { start in
            switch value[start] {
            case 0x02: (start, true)
            case 0x08: (start, false)
            default: nil
            }
        }
    }
}
