/// What the rest of the program says in words of varve, in umoci's: hints name commands that there are.
enum UmociWording {
    static func of(_ message: String) -> String {
        var text = Substring(message)
        // The parser's own message ends in a usage text and a hint.
        for end in ["\nHelp: ", "\nUsage: varve ", "\n  See 'varve "] {
            if let usage = text.firstRange(of: end) { text = text[..<usage.lowerBound] }
        }
        // Commands that umoci has not stand in parentheses.
        while let hint = text.firstRange(of: " (varve "),
            let end = text[hint.upperBound...].firstIndex(of: ")")
        {
            text = text[..<hint.lowerBound] + text[text.index(after: end)...]
        }
        var words = String(text)
        for lead in ["with: ", "; ", "but ", "which ", "that "] {
            for name in ["varve ", "Varve "] { words = words.replacing(lead + name, with: lead + "umoci ") }
        }
        return words.replacing("error: ", with: "", maxReplacements: words.hasPrefix("error: ") ? 1 : 0)
    }
}
