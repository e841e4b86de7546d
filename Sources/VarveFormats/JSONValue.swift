/// A JSON document as it stands: the members of an object in their order, numbers as they were written, and
/// whatever nobody here knows. What is read and written back loses nothing (`Docs/decisions/oci-json.md`).
package enum JSONValue: Hashable, Sendable {
    case null
    case bool(Bool)
    case number(JSONNumber)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)

    package var string: String? { if case .string(let value) = self { value } else { nil } }
    package var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    package var array: [JSONValue]? { if case .array(let value) = self { value } else { nil } }
    package var object: JSONObject? { if case .object(let value) = self { value } else { nil } }
    /// Nil unless it is written as a plain integer that fits.
    package var int64: Int64? { if case .number(let value) = self { value.int64 } else { nil } }
    package var isNull: Bool { if case .null = self { true } else { false } }

    /// A word for messages.
    package var kind: String {
        switch self {
        case .null: "null"
        case .bool: "a boolean"
        case .number: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }

    // Strings are compared by their bytes: Swift's `==` would take two spellings of one accented letter for
    // the same.
    package static func == (left: JSONValue, right: JSONValue) -> Bool {
        switch (left, right) {
        case (.null, .null): true
        case (.bool(let a), .bool(let b)): a == b
        case (.number(let a), .number(let b)): a == b
        case (.string(let a), .string(let b)): sameBytes(a, b)
        case (.array(let a), .array(let b)): a == b
        case (.object(let a), .object(let b)): a == b
        default: false
        }
    }

    package func hash(into hasher: inout Hasher) {
        switch self {
        case .null: hasher.combine(0)
        case .bool(let value): hasher.combine(value)
        case .number(let value): hasher.combine(value)
        case .string(let value): hashBytes(value, into: &hasher)
        case .array(let value): hasher.combine(value)
        case .object(let value): hasher.combine(value)
        }
    }
}

/// A number in the digits it was written with.
package struct JSONNumber: Hashable, Sendable {
    /// As in RFC 8259, section 6.
    package let text: String

    init(validated text: String) { self.text = text }
    package init(_ value: some FixedWidthInteger) { text = String(value) }

    /// Nil for a fraction, an exponent, or what does not fit.
    package var int64: Int64? { Int64(text) }
}

/// The members of a JSON object in their order; each key stands once. Equal means the same members in the
/// same order.
package struct JSONObject: Hashable, Sendable {
    package struct Member: Hashable, Sendable {
        package let key: String
        package internal(set) var value: JSONValue

        package static func == (left: Member, right: Member) -> Bool {
            sameBytes(left.key, right.key) && left.value == right.value
        }

        package func hash(into hasher: inout Hasher) {
            hashBytes(key, into: &hasher)
            hasher.combine(value)
        }
    }

    package private(set) var members: [Member]

    package init() { members = [] }

    /// The caller knows that no key stands twice.
    package init(unique members: [Member]) { self.members = members }

    package var isEmpty: Bool { members.isEmpty }

    /// Setting replaces a value where it stands, or appends a member; nil removes it.
    package subscript(key: String) -> JSONValue? {
        get { members.first { sameBytes($0.key, key) }?.value }
        set {
            guard let index = members.firstIndex(where: { sameBytes($0.key, key) }) else {
                if let newValue { members.append(Member(key: key, value: newValue)) }
                return
            }
            if let newValue {
                members[index].value = newValue
            } else {
                members.remove(at: index)
            }
        }
    }

    /// The members whose value is a string, in order.
    package var strings: [(key: String, value: String)] {
        members.compactMap { member in member.value.string.map { (member.key, $0) } }
    }
}

/// The members of an object while they are collected: each key stands where it came first, with the value that came last. Keys are
/// found by hash, so that n of them cost n.
package struct JSONMembers {
    private var members: [JSONObject.Member]
    private var places: [ByteText: Int]

    package init(_ object: JSONObject = JSONObject()) {
        members = object.members
        places = [:]
        places.reserveCapacity(members.count)
        for (place, member) in members.enumerated() { places[ByteText(member.key)] = place }
    }

    package mutating func set(_ key: String, _ value: JSONValue) {
        let name = ByteText(key)
        if let place = places[name] {
            members[place].value = value
        } else {
            places[name] = members.count
            members.append(JSONObject.Member(key: key, value: value))
        }
    }

    package var object: JSONObject { JSONObject(unique: members) }
}

/// A text as a key, equal where its bytes are. It shares the memory of the string that it was made of.
package struct ByteText: Hashable {
    package let text: String
    package init(_ text: String) { self.text = text }

    package static func == (left: ByteText, right: ByteText) -> Bool { sameBytes(left.text, right.text) }
    package func hash(into hasher: inout Hasher) { hashBytes(text, into: &hasher) }
}

package func sameBytes(_ left: String, _ right: String) -> Bool {
    left.utf8.count == right.utf8.count && left.utf8.elementsEqual(right.utf8)
}

extension Dictionary where Key == String {
    /// The value of a key that is equal byte for byte. A dictionary takes two ways to write one accented letter for the same key.
    package func value(ofBytes key: String) -> Value? {
        guard let place = index(forKey: key), sameBytes(self[place].key, key) else { return nil }
        return self[place].value
    }
}

private func hashBytes(_ string: String, into hasher: inout Hasher) {
    for byte in string.utf8 { hasher.combine(byte) }
    hasher.combine(0xff as UInt8)
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral {
    package init(stringLiteral value: String) { self = .string(value) }
    package init(integerLiteral value: Int64) { self = .number(JSONNumber(value)) }
    package init(booleanLiteral value: Bool) { self = .bool(value) }
}

extension JSONValue: ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral {
    package init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        var object = JSONObject()
        for (key, value) in elements { object[key] = value }
        self = .object(object)
    }
}

extension JSONObject: ExpressibleByDictionaryLiteral {
    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        self.init()
        for (key, value) in elements { self[key] = value }
    }
}
