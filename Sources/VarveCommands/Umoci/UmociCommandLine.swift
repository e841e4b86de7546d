/// umoci's command line as one of varve: what a link to the binary by the name `umoci` takes.
///
/// The forms are those of umoci's own parser: one dash or two, `-flag value` and `-flag=value`, a toggle with
/// `=true` or `=false`, flags before and behind the arguments, `--` before what is none. What a flag's value means is
/// varve's to check.
enum UmociCommandLine: Equatable {
    /// The words of varve's command line.
    case command([String])
    /// Help or the version, asked for.
    case text(String)

    /// As umoci says it, and ends.
    struct Mistake: Error, Equatable, CustomStringConvertible {
        /// umoci's own: 1, and 3 for a command that there is not.
        var code: Int32 = 1
        var description: String
    }

    init(parsing words: [String]) throws(Mistake) {
        var reader = UmociWords(words)
        var level: String?
        var isVerbose = false
        /// What is wrong with the flags before the command is said when there is one.
        func globals() throws(Mistake) -> [String] {
            guard let level else { return isVerbose ? ["--log=info"] : [] }
            if isVerbose { throw Mistake(description: "--log=* and --verbose are mutually exclusive") }
            guard ["debug", "info", "warn", "warning", "error", "fatal"].contains(level) else {
                throw Mistake(
                    description: "--log is \"\(level)\", and debug, info, warn, error or fatal is right")
            }
            return ["--log=\(["fatal": "error", "warning": "warn"][level] ?? level)"]
        }
        while let word = reader.next() {
            guard let given = try reader.flag(word) else {
                self = try Self.command(word, globals(), &reader)
                return
            }
            switch given.name {
            case "help", "h":
                self = .text(UmociHelp.program)
                return
            case "version", "v":
                self = .text(
                    "umoci version \(Self.version)\nimage spec: 1.1.1\nruntime spec: 1.2.1\n")
                return
            case "verbose": isVerbose = try given.toggle()
            case "log": level = try reader.value(of: given)
            // umoci's developers look at how fast it is by this: taken, and nothing comes of it.
            case "cpu-profile": _ = try reader.value(of: given)
            default: throw Mistake(description: "there is no flag \"\(word)\" of umoci; see umoci --help")
            }
        }
        _ = try globals()
        self = .text(UmociHelp.program)
    }

    /// The release whose manual pages are followed.
    static let version = "0.6.0"

    private static func command(
        _ name: String, _ globals: [String], _ reader: inout UmociWords
    ) throws(Mistake) -> UmociCommandLine {
        switch name {
        case "help", "h":
            guard let topic = reader.next() else { return .text(UmociHelp.program) }
            if topic == "raw" { return .text(UmociHelp.raw) }
            return .text(UmociHelp.verb(try find(topic, in: UmociVerb.all), below: "umoci"))
        case "raw":
            guard let sub = reader.next() else { return .text(UmociHelp.raw) }
            if let flag = try reader.flag(sub) {
                guard flag.name == "help" || flag.name == "h" else {
                    throw Mistake(
                        description: "there is no flag \"\(sub)\" of umoci raw; see umoci raw --help")
                }
                return .text(UmociHelp.raw)
            }
            if sub == "help" || sub == "h" {
                guard let topic = reader.next() else { return .text(UmociHelp.raw) }
                return .text(UmociHelp.verb(try find(topic, in: UmociVerb.raw), below: "umoci raw"))
            }
            return try translate(try find(sub, in: UmociVerb.raw), below: "umoci raw", globals, &reader)
        default:
            return try translate(try find(name, in: UmociVerb.all), below: "umoci", globals, &reader)
        }
    }

    private static func find(_ name: String, in verbs: [UmociVerb]) throws(Mistake) -> UmociVerb {
        guard let verb = verbs.first(where: { $0.names.contains(name) }) else {
            throw Mistake(code: 3, description: "there is no command \"\(name)\"; see umoci --help")
        }
        return verb
    }

    private static func translate(
        _ verb: UmociVerb, below program: String, _ globals: [String], _ reader: inout UmociWords
    ) throws(Mistake) -> UmociCommandLine {
        let name = "\(program) \(verb.names[0])"
        var toggles = Set<String>()
        var values: [(name: String, value: String)] = []
        var arguments: [String] = []
        var isPastFlags = false
        /// The name by which a flag of varve's was given.
        var forms: [String: String] = [:]
        while let word = reader.next() {
            guard !isPastFlags, word != "--" else {
                if isPastFlags { arguments.append(word) }
                isPastFlags = true
                continue
            }
            guard let given = try reader.flag(word) else {
                arguments.append(word)
                continue
            }
            if given.name == "help" || given.name == "h" {
                return .text(UmociHelp.verb(verb, below: program))
            }
            guard let flag = verb.flags.first(where: { $0.name == given.name }) else {
                throw Mistake(description: "there is no flag \"\(word)\" of \(name); see \(name) --help")
            }
            let form = forms[flag.ours] ?? flag.name
            guard form == flag.name else {
                throw Mistake(
                    description: "--\(form) and --\(flag.name) are two names of one flag: give one of them")
            }
            forms[flag.ours] = form
            switch flag.kind {
            case .toggle:
                if try given.toggle() { toggles.insert(flag.ours) } else { toggles.remove(flag.ours) }
            case .value:
                values.removeAll { $0.name == flag.ours }
                let value = try reader.value(of: given)
                // Of all flags, this one may be empty, and is then as if it were not there.
                if flag.ours == "rootfs", value.isEmpty { continue }
                values.append((flag.ours, value))
            case .list:
                let value = try reader.value(of: given)
                // Of several values umoci drops the empty ones, and of several empty ones all but one.
                let isKnown = values.contains { $0.name == flag.ours }
                if isKnown, value.isEmpty { continue }
                values.removeAll { $0.name == flag.ours && $0.value.isEmpty }
                values.append((flag.ours, value))
            }
        }
        guard values.contains(where: { $0.name == verb.mandatory }) else {
            throw Mistake(description: "missing mandatory argument: --\(verb.mandatory)")
        }
        let wanted =
            verb.shortening.map(toggles.contains) == true
            ? Array(verb.arguments.dropFirst()) : verb.arguments
        guard arguments.count == wanted.count else {
            let expected =
                wanted.isEmpty ? "none" : wanted.map { "<\($0)>" }.joined(separator: " ")
            throw Mistake(
                description:
                    "\(name) has \(arguments.count) arguments behind its flags, and \(expected) is expected")
        }
        return .command(
            globals + verb.ours + toggles.sorted().map { "--\($0)" }
                + values.map { "--\($0.name)=\($0.value)" } + ["--"] + arguments)
    }
}

/// The words of a command line, and the flags among them.
private struct UmociWords {
    struct Given {
        var word: String
        var name: String
        /// What stands behind the equals sign.
        var attached: String?

        /// As Go's strconv.ParseBool has it.
        func toggle() throws(UmociCommandLine.Mistake) -> Bool {
            switch attached {
            case nil, "1", "t", "T", "true", "TRUE", "True": return true
            case "0", "f", "F", "false", "FALSE", "False": return false
            default:
                throw UmociCommandLine.Mistake(
                    description: "\"\(word)\" is neither on nor off: write --\(name) or --\(name)=false")
            }
        }
    }

    private var words: ArraySlice<String>

    init(_ words: [String]) { self.words = words[...] }

    mutating func next() -> String? { words.popFirst() }

    /// Nil for what is no flag: `-` and `--` alone are none.
    func flag(_ word: String) throws(UmociCommandLine.Mistake) -> Given? {
        guard word.hasPrefix("-"), word != "-", word != "--" else { return nil }
        let text = word.dropFirst(word.hasPrefix("--") ? 2 : 1)
        let equals = text.firstIndex(of: "=")
        let name = text[..<(equals ?? text.endIndex)]
        guard !name.isEmpty, !name.hasPrefix("-") else {
            throw UmociCommandLine.Mistake(description: "\"\(word)\" is no flag; see umoci --help")
        }
        return Given(
            word: word, name: String(name), attached: equals.map { String(text[text.index(after: $0)...]) })
    }

    mutating func value(of flag: Given) throws(UmociCommandLine.Mistake) -> String {
        if let attached = flag.attached { return attached }
        guard let next = next() else {
            throw UmociCommandLine.Mistake(description: "the flag --\(flag.name) needs a value")
        }
        return next
    }
}
