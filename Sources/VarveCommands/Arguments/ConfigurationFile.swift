import SystemCalls
import SystemPackage

/// `config.toml`: lines of `key = "value"`, comments and empty lines, which is all of TOML that its keys need.
struct ConfigurationFile: Equatable {
    var store: BytePath?

    /// `$XDG_CONFIG_HOME/varve/config.toml`, by default in `~/.config` (XDG Base Directory Specification: a relative
    /// path there is not valid and passed over).
    static func path(_ environment: CommandEnvironment) -> BytePath? {
        if let home = environment.path("XDG_CONFIG_HOME"), home.isAbsolute {
            return home.appending("varve/config.toml")
        }
        return environment.path("HOME")?.appending(".config/varve/config.toml")
    }

    /// Nil if there is no such file.
    static func read(_ path: BytePath) throws -> ConfigurationFile? {
        let bytes: [UInt8]
        do throws(Errno) {
            let file = try FileDescriptor.workingDirectory.open(path, [.readOnly, .nonBlocking])
            bytes = try file.fd.readAll(limit: 1 << 20)
        } catch .noSuchFileOrDirectory {
            return nil
        } catch .notDirectory {
            return nil
        } catch {
            throw UsageError(
                "cannot read the configuration \"\(path)\": \(error); name the store with --store")
        }
        return try ConfigurationFile(parsing: bytes, of: path)
    }

    init(parsing bytes: [UInt8], of path: BytePath) throws(UsageError) {
        for (index, bytes) in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
            .enumerated()
        {
            func wrong(_ reason: String) -> UsageError {
                UsageError(
                    "line \(index + 1) of \"\(path)\" is wrong: \(reason); write for example: store = \"/srv/varve\""
                )
            }
            guard let text = String(validating: bytes, as: UTF8.self) else { throw wrong("it is not UTF-8") }
            let line = Substring(text).trimmed
            if line.isEmpty || line.hasPrefix("#") { continue }
            guard !line.hasPrefix("["), let equals = line.firstIndex(of: "=") else {
                throw wrong("it is not key = \"value\"")
            }
            let key = line[..<equals].trimmed
            guard key == "store" else { throw wrong("the key \"\(key)\" is not known") }
            guard store == nil else { throw wrong("store is set twice") }
            guard let value = Self.string(line[line.index(after: equals)...].trimmed) else {
                throw wrong("the value is not a string in quotes")
            }
            let path = BytePath(value)
            guard path.isAbsolute, !value.utf8.contains(0) else {
                throw wrong("the store must be an absolute path")
            }
            store = path
        }
    }

    /// A TOML basic or literal string on one line, and a comment behind it (TOML 1.0, "String").
    private static func string(_ text: Substring) -> String? {
        guard let quote = text.first, quote == "\"" || quote == "'" else { return nil }
        var result = String.UnicodeScalarView()
        var rest = text.unicodeScalars.dropFirst()
        while let scalar = rest.popFirst() {
            if String(scalar) == String(quote) {
                let behind = Substring(rest).trimmed
                return behind.isEmpty || behind.hasPrefix("#") ? String(result) : nil
            }
            guard scalar == "\\", quote == "\"" else {
                if scalar.value < 0x20, scalar != "\t" { return nil }
                result.append(scalar)
                continue
            }
            switch rest.popFirst() {
            case "\\": result.append("\\")
            case "\"": result.append("\"")
            default: return nil
            }
        }
        return nil
    }
}

extension Substring {
    /// Without blanks at either end; a carriage return at the end of a line is one.
    fileprivate var trimmed: Substring {
        let isBlank: (Unicode.Scalar) -> Bool = { $0 == " " || $0 == "\t" || $0 == "\r" }
        var scalars = unicodeScalars
        while let first = scalars.first, isBlank(first) { scalars.removeFirst() }
        while let last = scalars.last, isBlank(last) { scalars.removeLast() }
        return Substring(scalars)
    }
}
