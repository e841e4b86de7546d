/// Why bytes are not a JSON document that is taken here.
package struct JSONSyntaxError: Error, CustomStringConvertible, Sendable {
    /// Bytes from the start of the document.
    package var offset: Int
    package var reason: String
    package var description: String { "\(reason) at byte \(offset)" }
}

extension JSONValue {
    /// Deeper nesting than this is refused. Image documents have a handful of levels.
    package static let maximumDepth = 512

    /// Bytes in memory that the value of a document of an image may take for each of the document's own. Descriptors and
    /// configurations take 1 to 3. Reading takes no more than that and the document itself.
    package static let documentExpansion = 4
    /// Bytes in memory that the value of any document may take, however small the document is.
    package static let documentAllowance = 4 << 20

    /// Reads one JSON document (RFC 8259) in UTF-8. Refused are duplicate keys, invalid UTF-8, lone
    /// surrogates, more than `maximumDepth` levels, and anything after the document. How many bytes there may
    /// be is the caller's to decide.
    ///
    /// - Parameter expansion: how many times its size the document may take in memory, so that very many very small values are
    ///   refused; nil if it may take what it takes.
    package init(
        parsing bytes: [UInt8], maximumDepth: Int = JSONValue.maximumDepth,
        expansion: Int? = JSONValue.documentExpansion
    ) throws(JSONSyntaxError) {
        let (most, overflow) = (expansion ?? .max).multipliedReportingOverflow(by: bytes.count)
        var reader = JSONReader(
            bytes: bytes, maximumDepth: maximumDepth,
            memory: overflow ? .max : max(most, Self.documentAllowance))
        self = try reader.document()
    }
}

/// A reader with a stack of its own: how deep a document nests never decides how deep the machine's stack
/// goes.
private struct JSONReader {
    /// What is being read of an object or array.
    private struct Container {
        let isObject: Bool
        var elements: [JSONValue] = []
        var members: [JSONObject.Member] = []
        /// Of the member that is being read.
        var key = ""

        /// - Parameter count: of its values. Room for exactly as many is taken: arrays that grow take up to three times as much.
        init(isObject: Bool, count: Int) {
            self.isObject = isObject
            if isObject { members.reserveCapacity(count) } else { elements.reserveCapacity(count) }
        }
    }

    /// Bytes of a heap object beside what is in it: Swift's header of an array or a string (32), and malloc's with its rounding.
    private static let objectCost = 48
    /// Strings of up to as many bytes lie in the value itself.
    private static let inlineCount = 15
    /// More keys than this are not compared one by one.
    private static let fewKeys = 16

    private let bytes: [UInt8]
    private let maximumDepth: Int
    private var position = 0
    private var open: [Container] = []
    /// How many values each object and array has that has any, in the order in which they begin.
    private var counts: [UInt32] = []
    private var nextCount = 0
    /// Bytes in memory that the document may yet take.
    private var memory: Int
    private var repeated = RepeatedStrings()

    init(bytes: [UInt8], maximumDepth: Int, memory: Int) {
        self.bytes = bytes
        self.maximumDepth = maximumDepth
        self.memory = memory
    }

    private mutating func take(_ count: Int) throws(JSONSyntaxError) {
        memory -= count
        guard memory >= 0 else {
            throw failure("the document has too many small values for its size, which would fill the memory")
        }
    }

    private mutating func takeString(_ count: Int) throws(JSONSyntaxError) {
        // Swift rounds the bytes and the NUL behind them up to 16.
        if count > Self.inlineCount { try take(Self.objectCost + (count + 16) & ~15) }
    }

    private func failure(_ reason: String) -> JSONSyntaxError {
        JSONSyntaxError(offset: position, reason: reason)
    }

    private var next: UInt8? { position < bytes.count ? bytes[position] : nil }

    private mutating func skipWhitespace() {
        while let byte = next, byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 { position += 1 }
    }

    /// Counts the values of each object and array, and takes the memory that they need, before any of it is used. What is wrong
    /// with the document is found when it is read: here it may lead to a wrong count, which does no harm.
    private mutating func countValues() throws(JSONSyntaxError) {
        /// Those that are open, by their place in `counts`.
        var open: [(place: Int, isObject: Bool)] = []
        /// What was opened just now: it has a value if anything but its end follows.
        var opened: UInt8?
        var index = 0
        while index < bytes.count {
            let byte = bytes[index]
            index += 1
            if byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 { continue }
            let isEnd = byte == UInt8(ascii: "]") || byte == UInt8(ascii: "}")
            if let bracket = opened {
                opened = nil
                if isEnd { continue }
                // Deeper documents are refused when they are read.
                guard open.count < maximumDepth else { return }
                open.append((counts.count, bracket == UInt8(ascii: "{")))
                counts.append(0)
                try take(Self.objectCost)
                try takeValue(of: open)
            }
            switch byte {
            case UInt8(ascii: "["), UInt8(ascii: "{"): opened = byte
            case UInt8(ascii: ","): try takeValue(of: open)
            case UInt8(ascii: "\""):
                while index < bytes.count, bytes[index] != UInt8(ascii: "\"") {
                    index += bytes[index] == UInt8(ascii: "\\") ? 2 : 1
                }
                index += 1
            default: if isEnd { _ = open.popLast() }
            }
        }
    }

    /// Counts one more value of the innermost of `open`.
    private mutating func takeValue(of open: [(place: Int, isObject: Bool)]) throws(JSONSyntaxError) {
        guard let last = open.last else { return }
        counts[last.place] += 1
        try take(
            last.isObject ? MemoryLayout<JSONObject.Member>.stride : MemoryLayout<JSONValue>.stride)
    }

    mutating func document() throws(JSONSyntaxError) -> JSONValue {
        try countValues()
        while true {
            guard var value = try startOfValue() else { continue }
            // The value is whole: hand it to what encloses it, and close whatever ends here.
            while true {
                guard let top = open.indices.last else {
                    skipWhitespace()
                    if next != nil { throw failure("there is something after the end of the document") }
                    return value
                }
                if open[top].isObject {
                    open[top].members.append(JSONObject.Member(key: open[top].key, value: value))
                } else {
                    open[top].elements.append(value)
                }
                skipWhitespace()
                let byte = next
                if byte == UInt8(ascii: ",") {
                    position += 1
                    if open[top].isObject { try key() }
                    break
                }
                guard byte == (open[top].isObject ? UInt8(ascii: "}") : UInt8(ascii: "]")) else {
                    throw failure(
                        byte == nil ? "the document ends early" : "a comma or a closing bracket is missing")
                }
                position += 1
                value = try close()
            }
        }
    }

    /// Reads a value; nil if it opened an object or array that has something in it.
    private mutating func startOfValue() throws(JSONSyntaxError) -> JSONValue? {
        skipWhitespace()
        switch next {
        case UInt8(ascii: "{"), UInt8(ascii: "["):
            guard open.count < maximumDepth else {
                throw failure("there are more than \(maximumDepth) levels")
            }
            let isObject = next == UInt8(ascii: "{")
            position += 1
            skipWhitespace()
            if next == (isObject ? UInt8(ascii: "}") : UInt8(ascii: "]")) {
                position += 1
                return isObject ? .object(JSONObject()) : .array([])
            }
            let count = nextCount < counts.count ? Int(counts[nextCount]) : 0
            nextCount += 1
            open.append(Container(isObject: isObject, count: count))
            if isObject { try key() }
            return nil
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        case UInt8(ascii: "-")?: return .number(try number())
        case let byte? where (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte):
            return .number(try number())
        case nil: throw failure("the document ends early")
        default: throw failure("a value was expected")
        }
    }

    /// The innermost object or array, which has something in it.
    private mutating func close() throws(JSONSyntaxError) -> JSONValue {
        let container = open.removeLast()
        guard container.isObject else { return .array(container.elements) }
        if container.members.count > Self.fewKeys { try checkKeys(of: container.members) }
        return .object(JSONObject(unique: container.members))
    }

    /// Throws if two of very many keys are the same. Sorting takes less memory than a set of them.
    private func checkKeys(of members: [JSONObject.Member]) throws(JSONSyntaxError) {
        var order = Array(0..<UInt32(members.count))
        order.sort { members[Int($0)].key.utf8.lexicographicallyPrecedes(members[Int($1)].key.utf8) }
        for (one, next) in zip(order, order.dropFirst())
        where sameBytes(members[Int(one)].key, members[Int(next)].key) {
            throw failure(
                "the key \"\(ShownText.excerpt(members[Int(one)].key.utf8))\" stands twice in one object, which ends"
            )
        }
    }

    /// Reads a key and its colon into the innermost object.
    private mutating func key() throws(JSONSyntaxError) {
        skipWhitespace()
        let start = position
        guard next == UInt8(ascii: "\"") else { throw failure("a key in quotes was expected") }
        let key = try string()
        let top = open.count - 1
        let count = open[top].members.count
        guard count > Self.fewKeys || !open[top].members.contains(where: { sameBytes($0.key, key) }) else {
            position = start
            throw failure("the key \"\(ShownText.excerpt(key.utf8))\" stands twice in one object")
        }
        open[top].key = key
        skipWhitespace()
        guard next == UInt8(ascii: ":") else { throw failure("a colon was expected") }
        position += 1
    }

    private mutating func word(_ word: String, _ value: JSONValue) throws(JSONSyntaxError) -> JSONValue {
        guard bytes[position...].starts(with: word.utf8) else { throw failure("a value was expected") }
        position += word.utf8.count
        return value
    }

    /// RFC 8259, section 6: -? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?
    private mutating func number() throws(JSONSyntaxError) -> JSONNumber {
        let start = position
        if next == UInt8(ascii: "-") { position += 1 }
        if next == UInt8(ascii: "0") {
            position += 1
        } else {
            try digits()
        }
        if next == UInt8(ascii: ".") {
            position += 1
            try digits()
        }
        if next == UInt8(ascii: "e") || next == UInt8(ascii: "E") {
            position += 1
            if next == UInt8(ascii: "+") || next == UInt8(ascii: "-") { position += 1 }
            try digits()
        }
        try takeString(position - start)
        return JSONNumber(validated: String(decoding: bytes[start..<position], as: UTF8.self))
    }

    private mutating func digits() throws(JSONSyntaxError) {
        let start = position
        while let byte = next, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { position += 1 }
        if position == start { throw failure("a digit was expected") }
    }

    private mutating func string() throws(JSONSyntaxError) -> String {
        let start = position
        position += 1
        var runStart = position
        var unescaped = [UInt8]()
        var isASCII = true
        while true {
            isASCII = skipPlainText() && isASCII
            guard let byte = next else { throw failure("a string has no end") }
            if byte == UInt8(ascii: "\"") { break }
            if byte < 0x20 { throw failure("a control character stands unescaped in a string") }
            position += 1
            unescaped.append(contentsOf: bytes[runStart..<(position - 1)])
            try escape(into: &unescaped)
            runStart = position
        }
        let text: String?
        if unescaped.isEmpty {
            let plain = bytes[runStart..<position]
            if let known = repeated.find(plain) {
                position += 1
                return known
            }
            // Validating takes ten times as long, and nothing in ASCII is invalid.
            text =
                isASCII
                ? String(decoding: plain, as: UTF8.self) : String(validating: plain, as: UTF8.self)
        } else {
            unescaped.append(contentsOf: bytes[runStart..<position])
            text = String(validating: unescaped, as: UTF8.self)
        }
        guard let text else {
            position = start
            throw failure("a string is not valid UTF-8")
        }
        position += 1
        try takeString(text.utf8.count)
        repeated.note(text)
        return text
    }

    /// Up to what is not taken as it stands in a string. Says whether all of it was ASCII.
    private mutating func skipPlainText() -> Bool {
        var seen: UInt8 = 0
        var end = position
        while end < bytes.count {
            let byte = bytes[end]
            if byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") { break }
            seen |= byte
            end += 1
        }
        position = end
        return seen < 0x80
    }

    /// What follows a backslash.
    private mutating func escape(into text: inout [UInt8]) throws(JSONSyntaxError) {
        guard let byte = next else { throw failure("a string has no end") }
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(byte)
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "f"): text.append(0x0c)
        case UInt8(ascii: "n"): text.append(0x0a)
        case UInt8(ascii: "r"): text.append(0x0d)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "u"):
            var code = try fourDigits()
            if (0xd800..<0xdc00).contains(code) {
                guard next == UInt8(ascii: "\\") else { throw failure("half a surrogate pair") }
                position += 1
                guard next == UInt8(ascii: "u") else { throw failure("half a surrogate pair") }
                position += 1
                let low = try fourDigits()
                guard (0xdc00..<0xe000).contains(low) else { throw failure("half a surrogate pair") }
                code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00)
            }
            guard let scalar = Unicode.Scalar(code) else { throw failure("half a surrogate pair") }
            text.append(contentsOf: String(Character(scalar)).utf8)
        default: throw failure("an unknown escape in a string")
        }
    }

    private mutating func fourDigits() throws(JSONSyntaxError) -> UInt32 {
        var code: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = next, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
                throw failure("four hexadecimal digits were expected")
            }
            code = code << 4 | UInt32(digit)
            position += 1
        }
        return code
    }
}

/// Strings of a document that may come again: media types, keys of annotations. Each is kept in memory once.
private struct RepeatedStrings {
    /// What is shorter lies in the value itself; what is longer seldom comes twice.
    private static let counts = 16...128
    private var slots = [String?](repeating: nil, count: 64)

    /// By the count and the last bytes, in which digests differ, and keys of one name space too.
    private static func slot(_ text: some BidirectionalCollection<UInt8>) -> Int {
        var hash = text.count
        for byte in text.suffix(4) { hash = hash &* 31 &+ Int(byte) }
        return hash & 63
    }

    func find(_ text: ArraySlice<UInt8>) -> String? {
        guard Self.counts.contains(text.count), let known = slots[Self.slot(text)],
            known.utf8.count == text.count, known.utf8.elementsEqual(text)
        else { return nil }
        return known
    }

    mutating func note(_ text: String) {
        if Self.counts.contains(text.utf8.count) { slots[Self.slot(text.utf8)] = text }
    }
}
