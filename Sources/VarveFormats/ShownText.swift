/// Text from elsewhere (names of files, tags, labels, what programs say) as a person is shown it: nothing in it can steer a
/// terminal, hide what stands beside it, or look like another line.
///
/// As `\xHH`, byte by byte, are shown
/// * control bytes: C0 (U+0000 to U+001F), DEL, and C1 (U+0080 to U+009F), which some terminals obey like ESC sequences;
/// * U+2028 and U+2029, which end a line;
/// * the controls of the bidirectional algorithm (Unicode Standard Annex 9, section 2), which turn the order of what is seen
///   around: U+061C, U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069;
/// * what is not UTF-8.
package enum ShownText {
    /// Appends `bytes` as they are shown.
    ///
    /// - Parameters:
    ///   - escapesBackslash: so that the bytes can be told from what is shown. False for text that holds such escapes already.
    ///   - keepsNewlines: for whole lines.
    package static func append(
        _ bytes: ArraySlice<UInt8>, to buffer: inout [UInt8], escapesBackslash: Bool = true,
        keepsNewlines: Bool = false
    ) {
        var rest = bytes
        while let start = rest.firstIndex(where: { needsLook($0) }) {
            buffer.append(contentsOf: rest[..<start])
            rest = rest[start...]
            guard let byte = rest.first else { return }
            let length = byte < 0x80 ? 1 : lengthOfScalar(rest)
            let isKept =
                switch byte {
                case UInt8(ascii: "\n"): keepsNewlines
                case UInt8(ascii: "\\"): !escapesBackslash
                case ..<0x80: false
                default: length > 1 && !isControl(rest.prefix(length))
                }
            for byte in rest.prefix(length) {
                if isKept {
                    buffer.append(byte)
                } else {
                    buffer.append(contentsOf: [UInt8(ascii: "\\"), UInt8(ascii: "x")])
                    buffer.appendHex(byte)
                }
            }
            rest = rest.dropFirst(length)
        }
        buffer.append(contentsOf: rest)
    }

    /// `bytes` as they are shown.
    package static func of(
        _ bytes: ArraySlice<UInt8>, escapesBackslash: Bool = true, keepsNewlines: Bool = false
    ) -> String {
        var buffer: [UInt8] = []
        buffer.reserveCapacity(bytes.count)
        append(bytes, to: &buffer, escapesBackslash: escapesBackslash, keepsNewlines: keepsNewlines)
        return String(decoding: buffer, as: UTF8.self)
    }

    /// `bytes` as they are shown, cut to `limit` bytes: what comes from outside does not decide how long a message is.
    package static func excerpt(_ bytes: some Collection<UInt8>, limit: Int = 200) -> String {
        bytes.count <= limit ? of(Array(bytes)[...]) : of(Array(bytes.prefix(limit))[...]) + "…"
    }

    /// Whether something in `text` would be shown in another way than it is, a backslash not counted.
    package static func isPlain(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        var shown: [UInt8] = []
        append(bytes[...], to: &shown, escapesBackslash: false)
        return shown == bytes
    }

    private static func needsLook(_ byte: UInt8) -> Bool {
        byte < 0x20 || byte >= 0x7f || byte == UInt8(ascii: "\\")
    }

    /// Bytes of the well-formed scalar that `bytes` begins with (The Unicode Standard, table 3-7); 1 if it is none.
    private static func lengthOfScalar(_ bytes: ArraySlice<UInt8>) -> Int {
        let start = bytes.startIndex
        let (count, second): (Int, ClosedRange<UInt8>) =
            switch bytes[start] {
            case 0xc2...0xdf: (2, 0x80...0xbf)
            case 0xe0: (3, 0xa0...0xbf)
            case 0xed: (3, 0x80...0x9f)
            case 0xe1...0xef: (3, 0x80...0xbf)
            case 0xf0: (4, 0x90...0xbf)
            case 0xf1...0xf3: (4, 0x80...0xbf)
            case 0xf4: (4, 0x80...0x8f)
            default: (1, 0x80...0xbf)
            }
        guard count > 1, bytes.count >= count, second.contains(bytes[start + 1]) else { return 1 }
        let isWhole = bytes[(start + 2)..<(start + count)].allSatisfy { $0 & 0xc0 == 0x80 }
        return isWhole ? count : 1
    }

    /// - Parameter scalar: a well-formed one of two bytes or more.
    private static func isControl(_ scalar: ArraySlice<UInt8>) -> Bool {
        guard let first = scalar.first, scalar.count < 4 else { return false }
        let bits = UInt32(first & (scalar.count == 2 ? 0x1f : 0x0f))
        return isControl(scalar.dropFirst().reduce(bits) { $0 << 6 | UInt32($1 & 0x3f) })
    }

    /// Whether a terminal obeys what has this number in Unicode, or shows by it what is beside it in another way.
    static func isControl(_ scalar: UInt32) -> Bool {
        switch scalar {
        case 0..<0x20, 0x7f...0x9f, 0x061c, 0x200e...0x200f, 0x2028...0x202e, 0x2066...0x2069: true
        default: false
        }
    }
}
