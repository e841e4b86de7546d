/// A value of a TOML document, of the kinds that this program's configuration has.
package enum TOMLValue: Sendable, Equatable {
    case string(String)
    case integer(Int64)
    case boolean(Bool)
    case array([TOMLValue])
    case table(TOMLTable)
}

/// A table of a TOML document: its members in their order, each key once.
package struct TOMLTable: Sendable, Equatable {
    package struct Member: Sendable, Equatable {
        package var key: String
        package var value: TOMLValue
        /// Where the key stands, counted from 1.
        package var line: Int
    }

    package var members: [Member] = []

    package subscript(key: String) -> TOMLValue? {
        members.first { $0.key.utf8.elementsEqual(key.utf8) }?.value
    }
}

/// Why bytes are not a TOML document that is taken here.
package struct TOMLError: Error, Sendable, CustomStringConvertible {
    /// Counted from 1.
    package var line: Int
    package var reason: String
    package var description: String { "line \(line): \(reason)" }
}

extension TOMLTable {
    /// Reads a document (TOML 1.0): tables, dotted keys, inline tables, arrays, strings on one line, integers and
    /// booleans. What no configuration here needs (floats, times, strings of several lines, arrays of tables) is refused
    /// by its name, and so is whatever TOML itself forbids: a key set twice, a table defined twice or added to from
    /// elsewhere.
    package init(parsing bytes: [UInt8]) throws(TOMLError) {
        var reader = TOMLReader(bytes)
        self = try reader.document()
    }
}

private struct TOMLReader {
    /// A table while it is being read.
    private final class Table {
        /// How it came to be decides what may be added to it.
        enum Origin {
            /// Named on the way to another, `[a]` of `[a.b]`: a header of its own may still follow.
            case implied
            case header
            /// By dotted keys, which alone may add to it.
            case dotted
            /// Inline: whole where it ends.
            case inline
        }

        var origin: Origin
        private var members: [(key: String, node: Node, line: Int)] = []
        /// Where each key is, by its bytes.
        private var places: [[UInt8]: Int] = [:]
        init(_ origin: Origin) { self.origin = origin }

        func find(_ key: String) -> Node? { places[Array(key.utf8)].map { members[$0].node } }

        /// The key must be new.
        func add(_ key: String, _ node: Node, line: Int) {
            places[Array(key.utf8)] = members.count
            members.append((key, node, line))
        }

        var finished: TOMLTable {
            TOMLTable(
                members: members.map { member in
                    switch member.node {
                    case .value(let value):
                        TOMLTable.Member(key: member.key, value: value, line: member.line)
                    case .table(let table):
                        TOMLTable.Member(key: member.key, value: .table(table.finished), line: member.line)
                    }
                })
        }
    }

    private enum Node {
        case value(TOMLValue)
        case table(Table)
    }

    private static let depthLimit = 64

    private let text: [UInt8]
    private var position = 0
    private var line = 1

    init(_ bytes: [UInt8]) { text = bytes }

    private func wrong(_ reason: String) -> TOMLError { TOMLError(line: line, reason: reason) }

    private func shown(_ key: String) -> String { "\"\(ShownText.excerpt(key.utf8))\"" }

    private var next: UInt8? { position < text.count ? text[position] : nil }

    private func isNext(_ word: String) -> Bool { text[position...].starts(with: word.utf8) }

    private mutating func take(_ byte: Character) -> Bool {
        guard let ascii = byte.asciiValue, next == ascii else { return false }
        position += 1
        return true
    }

    private mutating func skipBlanks() {
        while let byte = next, byte == 0x20 || byte == 0x09 { position += 1 }
    }

    /// Blanks, a comment and the end of the line, which must come now.
    private mutating func endOfLine(after what: String) throws(TOMLError) {
        skipBlanks()
        try skipComment()
        if isNext("\r\n") { position += 1 }
        guard let byte = next else { return }
        guard byte == 0x0a else { throw wrong("there is something behind \(what)") }
        position += 1
        line += 1
    }

    private mutating func skipComment() throws(TOMLError) {
        guard next == UInt8(ascii: "#") else { return }
        while let byte = next, byte != 0x0a {
            if byte == 0x0d, isNext("\r\n") { return }
            if byte < 0x20 && byte != 0x09 || byte == 0x7f {
                throw wrong("a control character stands in a comment")
            }
            position += 1
        }
    }

    /// What may stand between the elements of an array.
    private mutating func skipLines() throws(TOMLError) {
        while true {
            skipBlanks()
            try skipComment()
            if isNext("\r\n") { position += 1 }
            guard next == 0x0a else { return }
            position += 1
            line += 1
        }
    }

    mutating func document() throws(TOMLError) -> TOMLTable {
        guard String(validating: text, as: UTF8.self) != nil else {
            let lines = text.split(separator: 0x0a, omittingEmptySubsequences: false)
            line = 1 + (lines.firstIndex { String(validating: $0, as: UTF8.self) == nil } ?? 0)
            throw wrong("it is not UTF-8")
        }
        let root = Table(.header)
        var current = root
        while next != nil {
            skipBlanks()
            switch next {
            case nil, 0x0a, 0x0d, UInt8(ascii: "#"): break
            case UInt8(ascii: "["):
                if isNext("[[") { throw wrong("an array of tables has no meaning here") }
                position += 1
                let keys = try keys()
                guard take("]") else { throw wrong("the name of a table has no closing bracket") }
                current = try open(keys, in: root)
            default:
                try setting(in: current)
            }
            try endOfLine(after: "the value")
        }
        return root.finished
    }

    /// The table of a header.
    private mutating func open(_ keys: [String], in root: Table) throws(TOMLError) -> Table {
        var table = root
        for (index, key) in keys.enumerated() {
            let isLast = index == keys.count - 1
            switch table.find(key) {
            case nil:
                let made = Table(isLast ? .header : .implied)
                table.add(key, .table(made), line: line)
                table = made
            case .table(let found):
                switch found.origin {
                case .inline: throw wrong("the table \(shown(key)) was written whole before")
                case .dotted: throw wrong("the table \(shown(key)) was made by dotted keys before")
                case .header where isLast: throw wrong("the table \(shown(key)) stands here twice")
                case .header, .implied: break
                }
                if isLast { found.origin = .header }
                table = found
            case .value: throw wrong("\(shown(key)) is set already, and is no table")
            }
        }
        return table
    }

    /// `key = value`.
    private mutating func setting(in start: Table) throws(TOMLError) {
        let keys = try keys()
        guard take("=") else { throw wrong("it is not key = value") }
        let keyLine = line
        var table = start
        for key in keys.dropLast() {
            switch table.find(key) {
            case nil:
                let made = Table(.dotted)
                table.add(key, .table(made), line: keyLine)
                table = made
            case .table(let found) where found.origin == .dotted: table = found
            case .table: throw wrong("the table \(shown(key)) cannot be added to from here")
            case .value: throw wrong("\(shown(key)) is set already, and is no table")
            }
        }
        guard let key = keys.last else { throw wrong("it is not key = value") }
        guard table.find(key) == nil else { throw wrong("\(shown(key)) is set twice") }
        skipBlanks()
        let value = try value(depth: 0)
        table.add(key, value, line: keyLine)
    }

    /// Keys joined by dots, with blanks around.
    private mutating func keys() throws(TOMLError) -> [String] {
        var keys: [String] = []
        repeat {
            skipBlanks()
            if next == UInt8(ascii: "\"") || next == UInt8(ascii: "'") {
                keys.append(try string())
            } else {
                let start = position
                while let byte = next, Self.isBare(byte) { position += 1 }
                guard position > start else { throw wrong("it is not key = value") }
                keys.append(String(decoding: text[start..<position], as: UTF8.self))
            }
            guard keys.count <= Self.depthLimit else { throw wrong("a key has too many parts") }
            skipBlanks()
        } while take(".")
        return keys
    }

    private static func isBare(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
            true
        default: false
        }
    }

    private mutating func value(depth: Int) throws(TOMLError) -> Node {
        guard depth < Self.depthLimit else { throw wrong("values are nested too deep") }
        switch next {
        case UInt8(ascii: "\""), UInt8(ascii: "'"):
            return .value(.string(try string()))
        case UInt8(ascii: "["):
            return .value(.array(try array(depth: depth)))
        case UInt8(ascii: "{"):
            return .table(try inlineTable(depth: depth))
        default:
            return .value(try word())
        }
    }

    private mutating func array(depth: Int) throws(TOMLError) -> [TOMLValue] {
        position += 1
        var elements: [TOMLValue] = []
        while true {
            try skipLines()
            if take("]") { return elements }
            switch try value(depth: depth + 1) {
            case .value(let value): elements.append(value)
            case .table(let table): elements.append(.table(table.finished))
            }
            try skipLines()
            if take(",") { continue }
            guard take("]") else { throw wrong("an array has no closing bracket") }
            return elements
        }
    }

    private mutating func inlineTable(depth: Int) throws(TOMLError) -> Table {
        position += 1
        let table = Table(.inline)
        skipBlanks()
        if take("}") { return table }
        while true {
            let keys = try keys()
            guard let key = keys.first, keys.count == 1 else {
                throw wrong("a dotted key in an inline table is not taken here")
            }
            guard take("=") else { throw wrong("it is not key = value") }
            guard table.find(key) == nil else { throw wrong("\(shown(key)) is set twice") }
            skipBlanks()
            table.add(key, try value(depth: depth + 1), line: line)
            skipBlanks()
            if take("}") { return table }
            guard take(",") else { throw wrong("a table in braces must end on its line") }
        }
    }

    /// An integer or a boolean: what has no quotes.
    private mutating func word() throws(TOMLError) -> TOMLValue {
        let start = position
        while let byte = next,
            Self.isBare(byte) || byte == UInt8(ascii: "+") || byte == UInt8(ascii: ".")
                || byte == UInt8(ascii: ":")
        {
            position += 1
        }
        let word = String(decoding: text[start..<position], as: UTF8.self)
        switch word {
        case "true": return .boolean(true)
        case "false": return .boolean(false)
        default: break
        }
        // An underscore may stand between two digits; no zero may lead.
        let digits = word.hasPrefix("+") || word.hasPrefix("-") ? word.dropFirst() : Substring(word)
        let groups = digits.split(separator: "_", omittingEmptySubsequences: false)
        let isDecimal = groups.allSatisfy { group in
            !group.isEmpty && group.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
        }
        guard isDecimal, digits == "0" || !digits.hasPrefix("0") else {
            throw wrong("the value is not a string in quotes, a whole number, true or false")
        }
        guard let number = Int64(word.filter { $0 != "_" }) else {
            throw wrong("the number does not fit 64 bits")
        }
        return .integer(number)
    }

    /// A basic or literal string on one line (TOML 1.0, "String").
    private mutating func string() throws(TOMLError) -> String {
        guard let quote = next else { throw wrong("a string is missing") }
        if text[position...].starts(with: [quote, quote, quote]) {
            throw wrong("a string of several lines is not taken here")
        }
        position += 1
        var bytes: [UInt8] = []
        while let byte = next {
            guard byte >= 0x20 || byte == 0x09, byte != 0x7f else { break }
            position += 1
            if byte == quote { return String(decoding: bytes, as: UTF8.self) }
            if byte == UInt8(ascii: "\\"), quote == UInt8(ascii: "\"") {
                bytes.append(contentsOf: try escaped())
            } else {
                bytes.append(byte)
            }
        }
        throw wrong("a string does not end on its line")
    }

    private mutating func escaped() throws(TOMLError) -> [UInt8] {
        let byte = next
        position += 1
        switch byte {
        case UInt8(ascii: "\\"), UInt8(ascii: "\""): return [byte ?? 0]
        case UInt8(ascii: "b"): return [0x08]
        case UInt8(ascii: "t"): return [0x09]
        case UInt8(ascii: "n"): return [0x0a]
        case UInt8(ascii: "f"): return [0x0c]
        case UInt8(ascii: "r"): return [0x0d]
        case UInt8(ascii: "u"): return try scalar(digits: 4)
        case UInt8(ascii: "U"): return try scalar(digits: 8)
        default: throw wrong("an unknown escape in a string")
        }
    }

    private mutating func scalar(digits: Int) throws(TOMLError) -> [UInt8] {
        let end = position + digits
        guard end <= text.count,
            text[position..<end].allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
            let value = UInt32(String(decoding: text[position..<end], as: UTF8.self), radix: 16),
            let scalar = Unicode.Scalar(value)
        else { throw wrong("an escape in a string names no character") }
        position = end
        return Array(String(Character(scalar)).utf8)
    }
}
