/// The standard alphabet, RFC 4648, section 4.
package enum Base64 {
    private static let alphabet = Array(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    /// With padding.
    package static func encode(_ bytes: some Collection<UInt8>) -> [UInt8] {
        let bytes = Array(bytes)
        var result: [UInt8] = []
        result.reserveCapacity((bytes.count + 2) / 3 * 4)
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(start + 3, bytes.count)]
            let bits = group.reduce(UInt32(0)) { $0 << 8 | UInt32($1) } << UInt32(8 * (3 - group.count))
            for position in 0..<4 {
                result.append(
                    position <= group.count
                        ? alphabet[Int(bits >> UInt32(18 - 6 * position) & 63)] : UInt8(ascii: "="))
            }
        }
        return result
    }

    package static func decode(_ text: some Collection<UInt8>) -> [UInt8]? {
        unsafe Array(text).withUnsafeBytes { unsafe decode($0) }
    }

    /// Nil for what is not base64. Padding may be left out, as libarchive does.
    package static func decode(_ text: UnsafeRawBufferPointer) -> [UInt8]? {
        var end = text.count
        while end > 0, text.count &- end < 2, unsafe text[end &- 1] == UInt8(ascii: "=") { end &-= 1 }
        if end & 3 == 1 { return nil }
        var result = [UInt8]()
        result.reserveCapacity(end / 4 &* 3 &+ 2)
        var bits: UInt32 = 0
        var count = 0
        for index in 0..<end {
            let byte = unsafe text[index]
            let digit: UInt8
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"): digit = byte - UInt8(ascii: "A")
            case UInt8(ascii: "a")...UInt8(ascii: "z"): digit = byte - UInt8(ascii: "a") + 26
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0") + 52
            case UInt8(ascii: "+"): digit = 62
            case UInt8(ascii: "/"): digit = 63
            default: return nil
            }
            bits = bits &<< 6 | UInt32(digit)
            count &+= 6
            if count >= 8 {
                count &-= 8
                result.append(UInt8(truncatingIfNeeded: bits &>> UInt32(count)))
            }
        }
        return result
    }
}
