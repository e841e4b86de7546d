/// The encoding of names in mtree files: vis(3) with `VIS_WHITE | VIS_OCTAL | VIS_GLOB`, as go-mtree writes it.
package enum VisEncoding {
    /// White space, control bytes, bytes above 0x7f and `*?[#` become `\` and three octal digits, a backslash is doubled.
    package static func encode(_ bytes: some Sequence<UInt8>) -> [UInt8] {
        var result: [UInt8] = []
        let backslash = UInt8(ascii: "\\")
        let globs = Array("*?[#".utf8)
        for byte in bytes {
            if byte == backslash {
                result.append(contentsOf: [backslash, backslash])
            } else if byte > 0x20, byte < 0x7f, !globs.contains(byte) {
                result.append(byte)
            } else {
                let zero = UInt8(ascii: "0")
                result.append(contentsOf: [
                    backslash, zero + (byte >> 6), zero + (byte >> 3 & 7), zero + (byte & 7),
                ])
            }
        }
        return result
    }

    /// unvis(3): octal digits and the escapes of C and of vis's own style. Nil for what is none of them.
    package static func decode(_ text: some Sequence<UInt8>) -> [UInt8]? {
        var result: [UInt8] = []
        var rest = ArraySlice(Array(text))
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "\\") else {
                result.append(byte)
                continue
            }
            guard let kind = rest.popFirst() else { return nil }
            switch kind {
            case UInt8(ascii: "0")...UInt8(ascii: "7"):
                var value = Int(kind - UInt8(ascii: "0"))
                var digits = 1
                while digits < 3, let next = rest.first,
                    (UInt8(ascii: "0")...UInt8(ascii: "7")).contains(next)
                {
                    value = value * 8 + Int(next - UInt8(ascii: "0"))
                    digits += 1
                    rest.removeFirst()
                }
                guard value < 256 else { return nil }
                result.append(UInt8(value))
            case UInt8(ascii: "M"):
                guard let style = rest.popFirst(), let next = rest.popFirst() else { return nil }
                if style == UInt8(ascii: "-") {
                    result.append(next | 0x80)
                } else if style == UInt8(ascii: "^") {
                    result.append(control(next) | 0x80)
                } else {
                    return nil
                }
            case UInt8(ascii: "^"):
                guard let next = rest.popFirst() else { return nil }
                result.append(control(next))
            default:
                guard let plain = escapes[kind] else { return nil }
                result.append(plain)
            }
        }
        return result
    }

    private static func control(_ byte: UInt8) -> UInt8 {
        byte == UInt8(ascii: "?") ? 0x7f : byte & 0x1f
    }

    private static let escapes: [UInt8: UInt8] = [
        UInt8(ascii: "\\"): UInt8(ascii: "\\"), UInt8(ascii: "\""): UInt8(ascii: "\""),
        UInt8(ascii: "#"): UInt8(ascii: "#"), UInt8(ascii: "s"): 0x20, UInt8(ascii: "n"): 0x0a,
        UInt8(ascii: "r"): 0x0d, UInt8(ascii: "b"): 0x08, UInt8(ascii: "a"): 0x07, UInt8(ascii: "v"): 0x0b,
        UInt8(ascii: "t"): 0x09, UInt8(ascii: "f"): 0x0c,
    ]
}
