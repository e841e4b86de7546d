import VarveFormats
package import VarveStore

/// A filter of List: selectors with commas between them, all of which must match. Of several filters, one must.
///
///     kind==active,labels."containerd.io/gc.root"
///     name~=^sha256:.*$
///
/// It is the language of containerd's package `filters`: a path of fields, and perhaps an operator (`==`, `!=`, `~=`) and a
/// value. Without an operator the field must be there.
package struct SnapshotFilter: Sendable {
    private enum Operator: Sendable {
        case present
        case equal(String)
        case notEqual(String)
        case matches(LinearPattern)
    }

    private struct Selector: Sendable {
        var path: [String]
        var test: Operator
    }

    private let selectors: [Selector]

    /// Throws `ServiceError` with `invalidArgument`.
    package init(_ text: String) throws(ServiceError) {
        if text.isEmpty {
            selectors = []
            return
        }
        var scanner = Scanner(text)
        var selectors = [try scanner.selector()]
        while scanner.takeSeparator(",") { selectors.append(try scanner.selector()) }
        guard scanner.isAtEnd else {
            throw scanner.error("something follows that is neither a comma nor an operator")
        }
        self.selectors = selectors
    }

    /// Whether one of the filters matches; with no filter at all, everything does.
    package static func anyMatches(_ filters: [SnapshotFilter], _ record: SnapshotRecord) -> Bool {
        filters.isEmpty || filters.contains { $0.matches(record) }
    }

    package func matches(_ record: SnapshotRecord) -> Bool {
        selectors.allSatisfy { selector in
            let value = Self.field(selector.path, of: record)
            switch selector.test {
            case .present: return value != nil
            case .equal(let wanted): return value.map { $0.utf8.elementsEqual(wanted.utf8) } ?? false
            // What is not there is not equal either.
            case .notEqual(let wanted): return !(value ?? "").utf8.elementsEqual(wanted.utf8)
            case .matches(let pattern): return value.map { pattern.matches($0) } ?? false
            }
        }
    }

    private static func field(_ path: [String], of record: SnapshotRecord) -> String? {
        switch path.first {
        case "kind": record.kind.rawValue
        case "name": record.key.text
        case "parent": record.parent.text
        case "labels": record.labels.value(ofBytes: path.dropFirst().joined(separator: "."))
        default: nil
        }
    }

    /// Reads the text from left to right.
    private struct Scanner {
        private let text: String
        private let scalars: [Unicode.Scalar]
        private var position = 0

        init(_ text: String) {
            self.text = text
            scalars = Array(text.unicodeScalars)
        }

        private var next: Unicode.Scalar? { position < scalars.count ? scalars[position] : nil }

        var isAtEnd: Bool {
            mutating get {
                skipSpace()
                return next == nil
            }
        }

        func error(_ problem: String) -> ServiceError {
            ServiceError(
                .invalidArgument,
                "the filter \(text.shown) is not valid at its character \(position + 1): \(problem)")
        }

        private mutating func skipSpace() {
            while let scalar = next, scalar.properties.isWhitespace { position += 1 }
        }

        mutating func takeSeparator(_ separator: Unicode.Scalar) -> Bool {
            skipSpace()
            guard next == separator else { return false }
            position += 1
            return true
        }

        mutating func selector() throws(ServiceError) -> Selector {
            var path = [try field()]
            while takeSeparator(".") { path.append(try field()) }
            skipSpace()
            var name = ""
            while let scalar = next, "=!~".unicodeScalars.contains(scalar) {
                name.unicodeScalars.append(scalar)
                position += 1
            }
            switch name {
            case "": return Selector(path: path, test: .present)
            case "==": return Selector(path: path, test: .equal(try value(isPattern: false)))
            case "!=": return Selector(path: path, test: .notEqual(try value(isPattern: false)))
            case "~=":
                let pattern = try value(isPattern: true)
                do throws(LinearPattern.Fault) {
                    return Selector(path: path, test: .matches(try LinearPattern(pattern)))
                } catch {
                    throw self.error("the expression \(pattern.shown) cannot be used: \(error.description)")
                }
            default: throw error("\"\(name)\" is no operator")
            }
        }

        private mutating func field() throws(ServiceError) -> String {
            skipSpace()
            if let quote = next, quote == "\"" || quote == "'" { return try quoted() }
            var result = ""
            while let scalar = next,
                scalar == "_" || scalar.properties.isAlphabetic || ("0"..."9").contains(scalar)
            {
                result.unicodeScalars.append(scalar)
                position += 1
            }
            guard !result.isEmpty else { throw error("a field is expected") }
            return result
        }

        private mutating func value(isPattern: Bool) throws(ServiceError) -> String {
            skipSpace()
            let quotes: [Unicode.Scalar] = isPattern ? ["\"", "'", "/", "|"] : ["\"", "'"]
            if let quote = next, quotes.contains(quote) { return try quoted() }
            var result = ""
            while let scalar = next, scalar != ",", !scalar.properties.isWhitespace {
                result.unicodeScalars.append(scalar)
                position += 1
            }
            guard !result.isEmpty else { throw error("a value is expected") }
            return result
        }

        /// A literal as Go has it; the quote may be another.
        private mutating func quoted() throws(ServiceError) -> String {
            guard let quote = next else { throw error("a quoted text is expected") }
            position += 1
            var bytes: [UInt8] = []
            while let scalar = next, scalar != quote {
                position += 1
                guard scalar != "\n" else { throw error("a quoted text ends in its line") }
                guard scalar == "\\" else {
                    bytes += Array(String(scalar).utf8)
                    continue
                }
                guard let escape = next else { throw error("a quoted text is not closed") }
                position += 1
                switch escape {
                case "a": bytes.append(7)
                case "b": bytes.append(8)
                case "f": bytes.append(12)
                case "n": bytes.append(10)
                case "r": bytes.append(13)
                case "t": bytes.append(9)
                case "v": bytes.append(11)
                case "\\", quote: bytes += Array(String(escape).utf8)
                case "x": bytes.append(UInt8(truncatingIfNeeded: try digits(2, radix: 16)))
                case "u", "U":
                    guard let scalar = Unicode.Scalar(try digits(escape == "u" ? 4 : 8, radix: 16)) else {
                        throw error("there is no such character")
                    }
                    bytes += Array(String(scalar).utf8)
                case "0"..."7":
                    position -= 1
                    let value = try digits(3, radix: 8)
                    guard value < 256 else { throw error("there is no such character") }
                    bytes.append(UInt8(value))
                default: throw error("\"\\\(escape)\" means nothing")
                }
            }
            guard next == quote else { throw error("a quoted text is not closed") }
            position += 1
            return String(decoding: bytes, as: UTF8.self)
        }

        private mutating func digits(_ count: Int, radix: Int) throws(ServiceError) -> UInt32 {
            var text = ""
            while text.count < count, let scalar = next, Character(scalar).isHexDigit {
                text.unicodeScalars.append(scalar)
                position += 1
            }
            guard text.count == count, let value = UInt32(text, radix: radix) else {
                throw error("\(count) digits are expected")
            }
            return value
        }
    }
}
