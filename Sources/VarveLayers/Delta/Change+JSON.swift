import VarveFormats
import VarveArchive
import VarveSystem

extension Change {
    /// The changes as an array of objects, one object a line.
    package static func json(_ changes: [Change]) -> [UInt8] {
        var result = Array("[".utf8)
        for (index, change) in changes.enumerated() {
            result.append(contentsOf: (index == 0 ? "\n" : ",\n").utf8)
            change.appendJSON(to: &result)
        }
        result.append(contentsOf: (changes.isEmpty ? "]\n" : "\n]\n").utf8)
        return result
    }

    /// Appends the change as an object, as `varve diff --format json` shows it. A path that is not UTF-8 is in base64.
    package func appendJSON(to buffer: inout [UInt8]) {
        buffer.append(contentsOf: "{\"change\":\"".utf8)
        buffer.append(contentsOf: kind.rawValue.utf8)
        if path.string != nil {
            buffer.append(contentsOf: "\",\"path\":\"".utf8)
            Self.appendQuoted(path.bytes, to: &buffer)
        } else {
            buffer.append(contentsOf: "\",\"pathBase64\":\"".utf8)
            buffer.append(contentsOf: Base64.encode(path.bytes))
        }
        buffer.append(contentsOf: "\",\"type\":\"".utf8)
        buffer.append(contentsOf: type.word.utf8)
        buffer.append(contentsOf: "\"}".utf8)
    }

    /// What stands between the quotes of a JSON string (RFC 8259, section 7); DEL too is escaped.
    private static func appendQuoted(_ text: ArraySlice<UInt8>, to buffer: inout [UInt8]) {
        for byte in text {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"):
                buffer.append(UInt8(ascii: "\\"))
                buffer.append(byte)
            case 0..<0x20, 0x7f:
                buffer.append(contentsOf: "\\u00".utf8)
                buffer.appendHex(byte)
            default: buffer.append(byte)
            }
        }
    }
}
