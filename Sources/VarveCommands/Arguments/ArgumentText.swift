/// Arguments as the parser takes them, which is as text, without losing a byte of those that are not UTF-8.
///
/// An argument that is UTF-8 stands for itself. In any other, each byte above 0x7f becomes the private-use scalar
/// U+10FF00 plus the byte, as it does in one that holds such a scalar itself, so that no two arguments become one.
enum ArgumentText {
    private static let base: UInt32 = 0x10_ff00
    /// Stands at the end of `--option=`, whose value is empty: the parser would else take the next word for it.
    private static let nothing = Unicode.Scalar(base) ?? "\0"

    static func encode(_ bytes: some Collection<UInt8>) -> String {
        if let text = String(validating: bytes, as: UTF8.self), !isEncoded(text) { return text }
        var text = String.UnicodeScalarView()
        for byte in bytes {
            let value = byte < 0x80 ? UInt32(byte) : base + UInt32(byte)
            if let scalar = Unicode.Scalar(value) { text.append(scalar) }
        }
        return String(text)
    }

    /// `word` for the parser.
    static func marked(_ word: String) -> String {
        guard word.hasPrefix("--"), word.hasSuffix("=") else { return word }
        var scalars = word.unicodeScalars
        scalars.append(nothing)
        return String(scalars)
    }

    /// The word, or the value in one, that was marked.
    static func unmarked(_ text: String) -> String {
        guard text.unicodeScalars.last == nothing else { return text }
        return String(text.unicodeScalars.dropLast())
    }

    static func decode(_ text: String) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count)
        for scalar in unmarked(text).unicodeScalars {
            if let byte = byte(scalar) {
                bytes.append(byte)
            } else {
                bytes.append(contentsOf: UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter)
            }
        }
        return bytes
    }

    /// Whether bytes that are not UTF-8 are in it.
    static func isEncoded(_ text: String) -> Bool {
        text.unicodeScalars.contains { byte($0) != nil || $0 == nothing }
    }

    /// For a person: what is not UTF-8 as `\xHH`.
    static func shown(_ text: String) -> String {
        guard isEncoded(text) else { return text }
        var result = ""
        for scalar in text.unicodeScalars {
            if let byte = byte(scalar) {
                result += "\\x" + String(byte, radix: 16)
            } else if scalar != nothing {
                result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    private static func byte(_ scalar: Unicode.Scalar) -> UInt8? {
        guard scalar.value >= base + 0x80, scalar.value <= base + 0xff else { return nil }
        return UInt8(truncatingIfNeeded: scalar.value)
    }
}
