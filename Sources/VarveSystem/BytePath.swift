import VarveFormats
import Glibc

/// A path or a file name as the kernel has it: any bytes but NUL. It is never forced through UTF-8; a `String` is
/// made of it only to show it to a person (`description`).
public struct BytePath: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// The bytes with the closing NUL, so that a system call can use them where they lie.
    private var storage: [UInt8]

    /// The bytes of a path without the closing NUL.
    public var bytes: ArraySlice<UInt8> { storage[..<(storage.count - 1)] }
    package var count: Int { storage.count - 1 }
    package var isEmpty: Bool { storage.count == 1 }

    /// Fails if a byte is NUL: no file can have such a name.
    @inlinable
    public init?(_ bytes: some Sequence<UInt8>) {
        var copy = [UInt8]()
        copy.reserveCapacity(bytes.underestimatedCount + 1)
        copy.append(contentsOf: bytes)
        self.init(unterminated: copy)
    }

    @usableFromInline
    init?(unterminated bytes: consuming [UInt8]) {
        guard !bytes.contains(0) else { return nil }
        bytes.append(0)
        storage = bytes
    }

    /// The UTF-8 bytes of `string`, up to the first NUL if it holds one.
    public init(_ string: String) {
        storage = Array(string.utf8.prefix { $0 != 0 })
        storage.append(0)
    }

    private init(terminated: [UInt8]) { storage = terminated }

    /// The names with a slash between each two.
    package init(joining names: [BytePath]) {
        var joined = [UInt8]()
        joined.reserveCapacity(names.reduce(1) { $0 + $1.count + 1 })
        for name in names {
            if !joined.isEmpty { joined.append(UInt8(ascii: "/")) }
            joined.append(contentsOf: name.bytes)
        }
        joined.append(0)
        storage = joined
    }

    package static let empty = BytePath("")
    /// The directory itself, as the last argument of an `*at` call.
    package static let current = BytePath(".")

    /// Calls `body` with the path as a C string, valid during the call.
    @inlinable
    package func withCString<R, E: Error>(_ body: (UnsafePointer<CChar>) throws(E) -> R) throws(E) -> R {
        var result: Result<R, E>?
        unsafe terminatedBytes.withUnsafeBytes { buffer in
            do throws(E) {
                // The storage always holds at least the NUL, so the base address exists.
                guard let base = buffer.baseAddress else { return }
                result = .success(try unsafe body(base.assumingMemoryBound(to: CChar.self)))
            } catch {
                result = .failure(error)
            }
        }
        guard let result else { preconditionFailure("an array with one element has a base address") }
        return try result.get()
    }

    @usableFromInline
    var terminatedBytes: [UInt8] { storage }

    /// This path, a slash and `name`; `name` alone if this path is empty.
    public func appending(_ name: BytePath) -> BytePath {
        if isEmpty { return name }
        if name.isEmpty { return self }
        var joined = [UInt8]()
        joined.reserveCapacity(storage.count + name.storage.count)
        joined.append(contentsOf: bytes)
        if joined.last != UInt8(ascii: "/") { joined.append(UInt8(ascii: "/")) }
        joined.append(contentsOf: name.storage)
        return BytePath(terminated: joined)
    }

    package func appending(_ name: String) -> BytePath { appending(BytePath(name)) }

    /// This path and the bytes of `suffix`, with no slash between them.
    package func appendingBytes(_ suffix: BytePath) -> BytePath {
        BytePath(terminated: bytes + suffix.storage)
    }

    /// The parts between slashes, empty ones left out; `.` and `..` are not resolved.
    package var components: [BytePath] {
        bytes.split(separator: UInt8(ascii: "/")).map { BytePath(terminated: Array($0) + [0]) }
    }

    /// The components without `.`, each `..` taken away with the one before it: the path below a root that it cannot leave.
    /// Relative, and empty for the root itself. Symbolic links are not asked for. Takes no more memory than the path.
    package var cleaned: BytePath {
        let slash = UInt8(ascii: "/")
        let dot = UInt8(ascii: ".")
        var result = [UInt8]()
        result.reserveCapacity(storage.count)
        for part in parts {
            if part.count == 1, part.first == dot { continue }
            guard part.count == 2, part.first == dot, part.last == dot else {
                if !result.isEmpty { result.append(slash) }
                result.append(contentsOf: part)
                continue
            }
            while let last = result.popLast(), last != slash {}
        }
        result.append(0)
        return BytePath(terminated: result)
    }

    /// The first part between slashes; nil for the empty path and for `/`.
    package var firstComponent: BytePath? {
        var parts = parts
        return parts.next().map { BytePath(terminated: Array($0) + [0]) }
    }

    /// The bytes between slashes, empty parts left out, one after another: nothing is copied.
    package var parts: Parts { Parts(rest: bytes) }

    /// See `parts`.
    package struct Parts: Sequence, IteratorProtocol {
        fileprivate var rest: ArraySlice<UInt8>

        package mutating func next() -> ArraySlice<UInt8>? {
            let slash = UInt8(ascii: "/")
            guard let start = rest.firstIndex(where: { $0 != slash }) else { return nil }
            let end = rest[start...].firstIndex(of: slash) ?? rest.endIndex
            defer { rest = rest[end...] }
            return rest[start..<end]
        }
    }

    package var isAbsolute: Bool { storage[0] == UInt8(ascii: "/") }

    /// The last part between slashes; empty for the empty path and for `/`.
    public var lastComponent: BytePath { BytePath(terminated: Array(storage[placeOfLastComponent]) + [0]) }

    private var placeOfLastComponent: Range<Int> {
        var end = storage.count - 1
        while end > 0, storage[end - 1] == UInt8(ascii: "/") { end -= 1 }
        var start = end
        while start > 0, storage[start - 1] != UInt8(ascii: "/") { start -= 1 }
        return start..<end
    }

    /// All but the last component, without a closing slash: empty for a path of one part, `/` for one below the root.
    public var parent: BytePath {
        var end = placeOfLastComponent.lowerBound
        while end > 1, storage[end - 1] == UInt8(ascii: "/") { end -= 1 }
        return BytePath(terminated: Array(storage[..<end]) + [0])
    }

    /// The directory in which it lies, `parent`, as a path that can be opened: `.` for a path of one part.
    package var directory: BytePath { parent.isEmpty ? .current : parent }

    @inlinable
    package func hasPrefix(_ prefix: some Collection<UInt8>) -> Bool { bytes.starts(with: prefix) }

    /// Without its first `count` bytes.
    package func dropFirst(_ count: Int) -> BytePath {
        BytePath(terminated: Array(storage.dropFirst(min(count, self.count))))
    }

    /// The path as text if it is valid UTF-8.
    public var string: String? { String(validating: bytes, as: UTF8.self) }

    /// The path as text for a person (`ShownText`).
    public var description: String { ShownText.of(bytes) }

    /// Bytes as text for a person (`ShownText`).
    package static func escape(_ bytes: some Collection<UInt8>) -> String { ShownText.of(Array(bytes)[...]) }

    /// Bytes as text for a message, cut to `limit` bytes: what comes from outside does not decide how long a message is.
    package static func excerpt(_ bytes: some Collection<UInt8>, limit: Int = 200) -> String {
        ShownText.excerpt(bytes, limit: limit)
    }

    /// The path as one word of a shell's command line (`shellQuoted`) that no program takes for an option: with `./` before a
    /// dash.
    package var shellWord: String {
        hasPrefix([UInt8(ascii: "-")]) ? BytePath.current.appending(self).shellQuoted : shellQuoted
    }

    /// A name, which is no path, as the operand of a command: with `--` before it where it could be taken for an option.
    package var shellOperand: String {
        (hasPrefix([UInt8(ascii: "-")]) ? "-- " : "") + shellQuoted
    }

    /// The bytes as one word of a shell's command line: as they are where no shell gives one of them a meaning, else in quotes;
    /// with control bytes or what is not UTF-8 in the form `$'\ooo'` of bash and POSIX.1-2024.
    package var shellQuoted: String {
        let isPlain = { (byte: UInt8) in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "/"), UInt8(ascii: "."),
                UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: "+"), UInt8(ascii: ","),
                UInt8(ascii: ":"), UInt8(ascii: "@"), UInt8(ascii: "%"), UInt8(ascii: "="):
                true
            default: false
            }
        }
        if !isEmpty, bytes.allSatisfy(isPlain) { return String(decoding: bytes, as: UTF8.self) }
        let quote = UInt8(ascii: "'")
        let backslash = UInt8(ascii: "\\")
        var result: [UInt8] = []
        if let string, ShownText.isPlain(string) {
            result.append(quote)
            for byte in bytes { result.append(contentsOf: byte == quote ? Array("'\\''".utf8) : [byte]) }
        } else {
            result.append(contentsOf: [UInt8(ascii: "$"), quote])
            for byte in bytes {
                if isPlain(byte) || byte == UInt8(ascii: " ") {
                    result.append(byte)
                } else {
                    // Three octal digits: the next byte cannot be taken for one more.
                    result.append(backslash)
                    for shift in [6, 3, 0] { result.append(UInt8(ascii: "0") + (byte >> UInt8(shift)) & 7) }
                }
            }
        }
        result.append(quote)
        return String(decoding: result, as: UTF8.self)
    }

    /// Byte order, as `memcmp` has it.
    public static func < (left: BytePath, right: BytePath) -> Bool {
        // The closing NULs may take part: none lies before them, and it is less than any byte.
        unsafe left.storage.withUnsafeBytes { a in
            unsafe right.storage.withUnsafeBytes { b in
                guard let x = a.baseAddress, let y = b.baseAddress else { return false }
                return unsafe memcmp(x, y, min(a.count, b.count)) < 0
            }
        }
    }
}

extension BytePath: ExpressibleByStringLiteral {
    public init(stringLiteral value: String) { self.init(value) }
}
