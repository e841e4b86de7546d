/// RFC 4648, section 4.
public enum Base64 {
    /// The bytes that `text` stands for; nil if it is not base64. libarchive leaves the padding out, so it need not be there.
    public static func decode(_ text: UnsafeRawBufferPointer) -> [UInt8]? {
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
