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
        let value = scalar.dropFirst().reduce(UInt32(scalar[scalar.startIndex])) { $0 << 8 | UInt32($1) }
        return switch value {
        // U+0080 to U+009F and U+061C.
        case 0xc280...0xc29f, 0xd89c: true
        // U+200E and U+200F; U+2028 to U+202E; U+2066 to U+2069.
        case 0xe2808e...0xe2808f, 0xe280a8...0xe280ae, 0xe281a6...0xe281a9: true
        default: false
        }
    }
}
