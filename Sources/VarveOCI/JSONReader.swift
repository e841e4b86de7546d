/// Why bytes are not a JSON document that is taken here.
public struct JSONSyntaxError: Error, CustomStringConvertible, Sendable {
    /// Bytes from the start of the document.
    public var offset: Int
    public var reason: String
    public var description: String { "\(reason) at byte \(offset)" }
}

extension JSONValue {
    /// Deeper nesting than this is refused. Image documents have a handful of levels.
    public static let maximumDepth = 512

    /// Bytes in memory that a document of an image may take for each of its own, `documentAllowance` apart. Descriptors and
    /// configurations take 2 to 3. While it is read, a document may take twice as much.
    public static let documentExpansion = 4
    /// Bytes in memory that any document may take.
    static let documentAllowance = 1 << 20

    /// Reads one JSON document (RFC 8259) in UTF-8. Refused are duplicate keys, invalid UTF-8, lone
    /// surrogates, more than `maximumDepth` levels, and anything after the document. How many bytes there may
    /// be is the caller's to decide.
    ///
    /// - Parameter expansion: how many times its size the document may take in memory, so that very many very small values are
    ///   refused; nil if it may take what it takes.
    public init(
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
    /// What is being read of an object or array. Its values lie at the end of `elements` or `members`.
    private struct Container {
        let isObject: Bool
        /// Where its values begin.
        let start: Int
        var key = ""
    }

    /// Bytes of a heap object beside what is in it: Swift's header of an array or a string, and malloc's.
    private static let objectCost = 48
    /// More keys than this are not compared one by one.
    private static let fewKeys = 16

    private let bytes: [UInt8]
    private let maximumDepth: Int
    private var position = 0
    private var open: [Container] = []
    /// The values of all open arrays, and the members of all open objects, the innermost last: each becomes an array of exactly
    /// its size when it is closed.
    private var elements: [JSONValue] = []
    private var members: [JSONObject.Member] = []
    /// Bytes in memory that the document may yet take.
    private var memory: Int

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

    private func failure(_ reason: String) -> JSONSyntaxError {
        JSONSyntaxError(offset: position, reason: reason)
    }

    private var next: UInt8? { position < bytes.count ? bytes[position] : nil }

    private mutating func skipWhitespace() {
        while let byte = next, byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 { position += 1 }
    }

    mutating func document() throws(JSONSyntaxError) -> JSONValue {
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
                    try take(MemoryLayout<JSONObject.Member>.stride)
                    members.append(JSONObject.Member(key: open[top].key, value: value))
                } else {
                    try take(MemoryLayout<JSONValue>.stride)
                    elements.append(value)
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
            open.append(Container(isObject: isObject, start: isObject ? members.count : elements.count))
            skipWhitespace()
            if next == (isObject ? UInt8(ascii: "}") : UInt8(ascii: "]")) {
                position += 1
                open.removeLast()
                return isObject ? .object(JSONObject()) : .array([])
            }
            try take(Self.objectCost)
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
        guard container.isObject else {
            defer { elements.removeLast(elements.count - container.start) }
            return .array(Array(elements[container.start...]))
        }
        if members.count - container.start > Self.fewKeys { try checkKeys(from: container.start) }
        defer { members.removeLast(members.count - container.start) }
        return .object(JSONObject(unique: Array(members[container.start...])))
    }

    /// Throws if two of very many keys are the same. Sorting takes less memory than a set of them.
    private func checkKeys(from start: Int) throws(JSONSyntaxError) {
        var order = Array(UInt32(start)..<UInt32(members.count))
        order.sort { members[Int($0)].key.utf8.lexicographicallyPrecedes(members[Int($1)].key.utf8) }
        for (one, next) in zip(order, order.dropFirst())
        where sameBytes(members[Int(one)].key, members[Int(next)].key) {
            throw failure(
                "the key \"\(shown(members[Int(one)].key))\" stands twice in one object, which ends")
        }
    }

    /// Reads a key and its colon into the innermost object.
    private mutating func key() throws(JSONSyntaxError) {
        skipWhitespace()
        let start = position
        guard next == UInt8(ascii: "\"") else { throw failure("a key in quotes was expected") }
        let key = try string()
        let top = open.count - 1
        let earlier = members[open[top].start...]
        guard earlier.count > Self.fewKeys || !earlier.contains(where: { sameBytes($0.key, key) }) else {
            position = start
            throw failure("the key \"\(shown(key))\" stands twice in one object")
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
        if position - start > 15 { try take(Self.objectCost + position - start) }
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
        // Up to 15 bytes lie in the string itself.
        if text.utf8.count > 15 { try take(Self.objectCost + text.utf8.count) }
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
