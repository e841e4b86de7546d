/// JSON as the tests read it: a reader of their own, so that what the product writes is not judged by the product.
indirect enum LayoutDocument: Hashable, CustomStringConvertible {
    case null
    case bool(Bool)
    case number(String)
    case string(String)
    case array([LayoutDocument])
    case object([String: LayoutDocument])

    struct Invalid: Error, CustomStringConvertible {
        var description: String
    }

    init(_ bytes: [UInt8]) throws {
        guard String(validating: bytes, as: UTF8.self) != nil else { throw Invalid(description: "not UTF-8") }
        var reader = Reader(bytes: bytes)
        self = try reader.value()
        reader.skipBlanks()
        guard reader.isAtEnd else { throw Invalid(description: "something stands behind the document") }
    }

    var text: String? { if case .string(let text) = self { text } else { nil } }
    var elements: [LayoutDocument]? { if case .array(let elements) = self { elements } else { nil } }
    var members: [String: LayoutDocument]? { if case .object(let members) = self { members } else { nil } }
    var integer: Int64? { if case .number(let text) = self { Int64(text) } else { nil } }
    subscript(key: String) -> LayoutDocument? { members?[key] }

    /// With the members of objects in the order of their keys.
    var description: String {
        switch self {
        case .null: "null"
        case .bool(let value): "\(value)"
        case .number(let text): text
        case .string(let text): "\"\(text)\""
        case .array(let elements): "[" + elements.map(\.description).joined(separator: ",") + "]"
        case .object(let members):
            "{" + members.sorted { $0.key < $1.key }.map { "\($0.key):\($0.value)" }.joined(separator: ",")
                + "}"
        }
    }

    /// The same with `change` applied to every member of every object; nil takes a member away.
    func mapMembers(_ change: (String, LayoutDocument) -> LayoutDocument?) -> LayoutDocument {
        switch self {
        case .array(let elements): return .array(elements.map { $0.mapMembers(change) })
        case .object(let members):
            var result: [String: LayoutDocument] = [:]
            for (key, value) in members { result[key] = change(key, value.mapMembers(change)) }
            return .object(result)
        default: return self
        }
    }

    private struct Reader {
        var bytes: [UInt8]
        var place = 0
        var isAtEnd: Bool { place == bytes.count }
        var next: UInt8? { place < bytes.count ? bytes[place] : nil }

        mutating func skipBlanks() {
            while let byte = next, [0x20, 0x09, 0x0a, 0x0d].contains(byte) { place += 1 }
        }

        mutating func take(_ text: String) throws {
            guard bytes[place...].starts(with: text.utf8) else {
                throw Invalid(description: "\"\(text)\" is expected at byte \(place)")
            }
            place += text.utf8.count
        }

        mutating func value() throws -> LayoutDocument {
            skipBlanks()
            switch next {
            case UInt8(ascii: "{"): return .object(try object())
            case UInt8(ascii: "["):
                return .array(try list(until: "]") { reader in try reader.value() })
            case UInt8(ascii: "\""): return .string(try string())
            case UInt8(ascii: "t"):
                try take("true")
                return .bool(true)
            case UInt8(ascii: "f"):
                try take("false")
                return .bool(false)
            case UInt8(ascii: "n"):
                try take("null")
                return .null
            default:
                let digits = bytes[place...].prefix { Array("+-0123456789.eE".utf8).contains($0) }
                guard !digits.isEmpty else { throw Invalid(description: "no value stands at byte \(place)") }
                place += digits.count
                return .number(String(decoding: digits, as: UTF8.self))
            }
        }

        mutating func object() throws -> [String: LayoutDocument] {
            var members: [String: LayoutDocument] = [:]
            _ = try list(until: "}") { reader in
                reader.skipBlanks()
                let key = try reader.string()
                reader.skipBlanks()
                try reader.take(":")
                guard members.updateValue(try reader.value(), forKey: key) == nil else {
                    throw Invalid(description: "the key \"\(key)\" stands twice")
                }
            }
            return members
        }

        mutating func list<T>(until end: String, _ element: (inout Reader) throws -> T) throws -> [T] {
            place += 1
            skipBlanks()
            var result: [T] = []
            if bytes[place...].starts(with: end.utf8) {
                place += 1
                return result
            }
            while true {
                result.append(try element(&self))
                skipBlanks()
                if bytes[place...].starts(with: end.utf8) {
                    place += 1
                    return result
                }
                try take(",")
            }
        }

        mutating func string() throws -> String {
            try take("\"")
            var result: [UInt8] = []
            while let byte = next {
                place += 1
                if byte == UInt8(ascii: "\"") { return String(decoding: result, as: UTF8.self) }
                guard byte == UInt8(ascii: "\\") else {
                    guard byte >= 0x20 else {
                        throw Invalid(description: "a control byte stands in a string")
                    }
                    result.append(byte)
                    continue
                }
                guard let escaped = next else { break }
                place += 1
                switch escaped {
                case UInt8(ascii: "n"): result.append(0x0a)
                case UInt8(ascii: "t"): result.append(0x09)
                case UInt8(ascii: "r"): result.append(0x0d)
                case UInt8(ascii: "b"): result.append(0x08)
                case UInt8(ascii: "f"): result.append(0x0c)
                case UInt8(ascii: "u"):
                    let digits = String(decoding: bytes[place...].prefix(4), as: UTF8.self)
                    guard let code = UInt32(digits, radix: 16), let scalar = Unicode.Scalar(code) else {
                        throw Invalid(description: "\\u\(digits) is not read here")
                    }
                    place += 4
                    result.append(contentsOf: Array(String(scalar).utf8))
                default: result.append(escaped)
                }
            }
            throw Invalid(description: "a string does not end")
        }
    }
}
