import ArgumentParser

/// A command that is often run, many times a second: where its words are plain, it is made of them without the parser.
///
/// The parser finds out what options a command has by reflection, at each start of the program, which takes more than half of a
/// millisecond. Words that are not plain, wrong ones among them, go to the parser: what it says of them is what a user sees.
protocol PlainCommand: ExecutableCommand, PlainArguments {}

/// Options and arguments that are made of plain words: those of a command, or of a group of options.
protocol PlainArguments: ParsableArguments {
    /// Gives each option and argument a value, that of `words` or what it is by default. The parser's wrappers have none before.
    mutating func take(_ words: inout PlainWords) throws
}

extension PlainArguments {
    static func plain(_ words: inout PlainWords) throws -> Self {
        // No initializer does this: in one, the compiler makes a wrapper anew of a value that is assigned.
        var arguments = Self()
        try arguments.take(&words)
        return arguments
    }
}

extension PlainCommand {
    static func parse(plain words: [String]) -> (any ExecutableCommand)? {
        var words = PlainWords(words)
        guard var command = try? plain(&words), words.isUsedUp, (try? command.validate()) != nil else {
            return nil
        }
        return command
    }
}

/// The words behind a command's name: options, each at most once if it is not a list, and arguments. A value begins with no dash.
struct PlainWords {
    struct NotPlain: Error {}

    private let words: [String]
    private var isUsed: [Bool]

    init(_ words: [String]) {
        self.words = words
        isUsed = Array(repeating: false, count: words.count)
    }

    /// Whether each word has been taken.
    var isUsedUp: Bool { isUsed.allSatisfy { $0 } }

    /// Whether a flag is there.
    mutating func has(_ flag: String) throws(NotPlain) -> Bool {
        var isThere = false
        for index in words.indices where !isUsed[index] && words[index] == flag {
            if isThere { throw NotPlain() }
            isUsed[index] = true
            isThere = true
        }
        return isThere
    }

    /// The value of an option; nil if it is not there.
    mutating func value<T: ExpressibleByArgument>(of option: String) throws(NotPlain) -> T? {
        let values: [T] = try values(of: option)
        if values.count > 1 { throw NotPlain() }
        return values.first
    }

    /// The values of an option that may be repeated.
    mutating func values<T: ExpressibleByArgument>(of option: String) throws(NotPlain) -> [T] {
        var values: [T] = []
        for index in words.indices where !isUsed[index] && words[index].hasPrefix(option) {
            let rest = words[index].utf8.dropFirst(option.utf8.count)
            let text: String
            if rest.isEmpty {
                let next = index + 1
                guard next < words.count, !isUsed[next], !words[next].hasPrefix("-") else { throw NotPlain() }
                isUsed[next] = true
                text = words[next]
            } else if rest.first == UInt8(ascii: "=") {
                text = String(Substring(rest.dropFirst()))
            } else {
                continue
            }
            guard let value = T(argument: text) else { throw NotPlain() }
            isUsed[index] = true
            values.append(value)
        }
        return values
    }

    /// The next argument that belongs to no option. Options are taken before arguments.
    mutating func argument<T: ExpressibleByArgument>() throws(NotPlain) -> T {
        guard let index = isUsed.firstIndex(of: false), !words[index].hasPrefix("-"),
            let value = T(argument: words[index])
        else { throw NotPlain() }
        isUsed[index] = true
        return value
    }

    /// All that are left, at least one.
    mutating func arguments<T: ExpressibleByArgument>() throws(NotPlain) -> [T] {
        var values: [T] = []
        repeat { values.append(try argument()) } while !isUsedUp
        return values
    }
}

extension GlobalOptions: PlainArguments {
    mutating func take(_ words: inout PlainWords) throws(PlainWords.NotPlain) {
        store = try words.value(of: "--store")
        log = try words.value(of: "--log")
        logFormat = try words.value(of: "--log-format")
        errorFormat = try words.value(of: "--error-format")
        noProgress = try words.has("--no-progress")
    }
}
