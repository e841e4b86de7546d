extension JSONValue {
    /// The document in UTF-8, members in their order: the same value always gives the same bytes.
    ///
    /// `pretty` puts each member on a line of its own, indented by tabs, with a newline at the end.
    package func serialized(pretty: Bool = false) -> [UInt8] {
        var writer = JSONWriter(pretty: pretty)
        writer.write(self)
        return writer.output
    }
}

/// A writer with a stack of its own, as `JSONReader` has.
private struct JSONWriter {
    private struct Open {
        let members: [JSONObject.Member]
        let elements: [JSONValue]
        let isObject: Bool
        var next = 0
        var count: Int { isObject ? members.count : elements.count }
    }

    let pretty: Bool
    private(set) var output: [UInt8] = []
    private var open: [Open] = []

    init(pretty: Bool) { self.pretty = pretty }

    mutating func write(_ value: JSONValue) {
        start(value)
        while let top = open.indices.last {
            let index = open[top].next
            guard index < open[top].count else {
                let closed = open.removeLast()
                newLine()
                output.append(closed.isObject ? UInt8(ascii: "}") : UInt8(ascii: "]"))
                continue
            }
            open[top].next += 1
            if index > 0 { output.append(UInt8(ascii: ",")) }
            newLine()
            if open[top].isObject {
                let member = open[top].members[index]
                string(member.key)
                output.append(UInt8(ascii: ":"))
                if pretty { output.append(UInt8(ascii: " ")) }
                start(member.value)
            } else {
                start(open[top].elements[index])
            }
        }
        if pretty { output.append(UInt8(ascii: "\n")) }
    }

    private mutating func newLine() {
        guard pretty else { return }
        output.append(UInt8(ascii: "\n"))
        output.append(contentsOf: repeatElement(UInt8(ascii: "\t"), count: open.count))
    }

    /// Writes a scalar or an empty container whole; opens any other.
    private mutating func start(_ value: JSONValue) {
        switch value {
        case .null: output.append(contentsOf: "null".utf8)
        case .bool(let bool): output.append(contentsOf: (bool ? "true" : "false").utf8)
        case .number(let number): output.append(contentsOf: number.text.utf8)
        case .string(let text): string(text)
        case .array(let elements):
            output.append(contentsOf: (elements.isEmpty ? "[]" : "[").utf8)
            if !elements.isEmpty { open.append(Open(members: [], elements: elements, isObject: false)) }
        case .object(let object):
            output.append(contentsOf: (object.isEmpty ? "{}" : "{").utf8)
            if !object.isEmpty { open.append(Open(members: object.members, elements: [], isObject: true)) }
        }
    }

    /// What could steer a terminal (`ShownText`) is written as the escape that JSON has for it: it is read as the same text.
    private mutating func string(_ text: String) {
        output.append(UInt8(ascii: "\""))
        // All of those above ASCII begin with one of three bytes.
        if text.utf8.contains(where: { $0 == 0xc2 || $0 == 0xd8 || $0 == 0xe2 }) {
            for scalar in text.unicodeScalars {
                if scalar.value > 0x7f, ShownText.isControl(scalar.value) {
                    escape(UInt16(truncatingIfNeeded: scalar.value))
                } else {
                    for byte in UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter { append(byte) }
                }
            }
        } else {
            for byte in text.utf8 { append(byte) }
        }
        output.append(UInt8(ascii: "\""))
    }

    private mutating func append(_ byte: UInt8) {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"):
            output.append(UInt8(ascii: "\\"))
            output.append(byte)
        case 0x0a: output.append(contentsOf: "\\n".utf8)
        case 0x0d: output.append(contentsOf: "\\r".utf8)
        case 0x09: output.append(contentsOf: "\\t".utf8)
        case 0..<0x20, 0x7f: escape(UInt16(byte))
        default: output.append(byte)
        }
    }

    private mutating func escape(_ unit: UInt16) {
        output.append(contentsOf: "\\u".utf8)
        output.appendHex(UInt8(unit >> 8))
        output.appendHex(UInt8(truncatingIfNeeded: unit))
    }
}
