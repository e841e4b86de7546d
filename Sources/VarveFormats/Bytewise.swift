/// Texts taken as their bytes. To `String`, a slash before a combining mark is another character than a slash; to the kernel and to other
/// programs it is a slash.
extension StringProtocol {
    /// Whether an ASCII character is among the bytes.
    package func hasByte(_ character: Unicode.Scalar) -> Bool { utf8.contains(UInt8(ascii: character)) }

    /// Whether the first byte is this ASCII character.
    package func beginsWithByte(_ character: Unicode.Scalar) -> Bool {
        utf8.first == UInt8(ascii: character)
    }

    /// The parts between the bytes that are this ASCII character; empty ones as well.
    package func split(atByte character: Unicode.Scalar, maxSplits: Int = .max) -> [String] {
        utf8.split(separator: UInt8(ascii: character), maxSplits: maxSplits, omittingEmptySubsequences: false)
            .map { String(decoding: $0, as: UTF8.self) }
    }
}

extension ArraySlice<UInt8> {
    /// Takes the next line away from the front, and returns it without its end; nil when nothing is left. Of a text with very many lines no
    /// array is made, as `split` makes one.
    package mutating func removeLine() -> Self? {
        if isEmpty { return nil }
        let line = prefix { $0 != UInt8(ascii: "\n") }
        self = dropFirst(line.count + 1)
        return line
    }
}
