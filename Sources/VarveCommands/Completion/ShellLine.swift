/// The words of a command line as bash reads them, up to the cursor. Nothing is expanded, and nothing runs.
struct ShellLine {
    /// Without quotes; the last is the cursor's.
    private(set) var words: [[UInt8]] = [[]]
    /// The quote that is open at the cursor.
    private(set) var quote: UInt8?
    /// The bytes of the last word without quotes, as they grew with each byte of the line.
    private var lengths: [Int] = []

    init(parsing line: [UInt8]) {
        var isInWord = false
        var isEscaped = false
        for byte in line {
            defer { lengths.append(words.last?.count ?? 0) }
            if isEscaped {
                isEscaped = false
                // In double quotes a backslash stands for itself but before these (POSIX, Shell Command Language, 2.2.3).
                if quote != nil, !Array("$`\"\\\n".utf8).contains(byte) { append(UInt8(ascii: "\\")) }
                append(byte)
                continue
            }
            switch byte {
            case UInt8(ascii: "\\") where quote != UInt8(ascii: "'"):
                isEscaped = true
                isInWord = true
            case UInt8(ascii: "'"), UInt8(ascii: "\""):
                if quote == nil {
                    quote = byte
                } else if quote == byte {
                    quote = nil
                } else {
                    append(byte)
                }
                isInWord = true
            case 0x20 where quote == nil, 0x09 where quote == nil, 0x0a where quote == nil:
                if isInWord {
                    words.append([])
                    isInWord = false
                }
            default:
                append(byte)
                isInWord = true
            }
        }
    }

    private mutating func append(_ byte: UInt8) { words[words.count - 1].append(byte) }

    /// How many bytes of the last word stand in all of the line but its last `count` bytes.
    func lengthOfWord(before count: Int) -> Int {
        let place = lengths.count - count - 1
        guard place >= 0, place < lengths.count else { return 0 }
        // A word that begins behind that has nothing there.
        return lengths[place...].contains(0) ? 0 : lengths[place]
    }

    /// What is to be typed at the cursor for these bytes, in the quotes that are open there.
    func typed(_ bytes: some Sequence<UInt8>) -> [UInt8] {
        var result: [UInt8] = []
        for byte in bytes {
            switch quote {
            case UInt8(ascii: "'"):
                result += byte == UInt8(ascii: "'") ? Array("'\\''".utf8) : [byte]
            case UInt8(ascii: "\""):
                if byte == UInt8(ascii: "!") {
                    // History expansion is done in double quotes too, and a backslash that keeps it away stays there (bash(1), QUOTING).
                    result += Array("\"\\!\"".utf8)
                    continue
                }
                if Array("$`\"\\".utf8).contains(byte) { result.append(UInt8(ascii: "\\")) }
                result.append(byte)
            default:
                if Self.special.contains(byte) { result.append(UInt8(ascii: "\\")) }
                result.append(byte)
            }
        }
        return result
    }

    /// What means something to a shell outside quotes.
    private static let special = Array(" \t|&;()<>$`\\\"'*?[]{}~#!^".utf8)
}
