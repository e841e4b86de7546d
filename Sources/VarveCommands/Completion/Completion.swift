import ArgumentParser
import VarveFormats
import VarveSystem

/// What may stand at the cursor of a command line.
struct Completion {
    struct Candidate {
        /// The whole word.
        var word: String
        /// What it is, for shells that show that.
        var about = ""
        /// False where the word goes on: no space follows.
        var isWhole = true
    }

    /// What the shell itself looks for where there is no candidate.
    enum Files: String {
        case none, files, directories
    }

    var candidates: [Candidate] = []
    var files = Files.none

    /// - Parameters:
    ///   - words: those before the cursor's, without the program.
    ///   - current: the cursor's, as far as the cursor.
    init(after words: [String], _ current: String, _ environment: CommandEnvironment) {
        let named = NamedCommands(in: words)
        if named.unknown != nil { return }
        // A group has no options of its own.
        var types: [any ParsableArguments.Type] = [GlobalOptions.self]
        if let command = named.executable { types.insert(command, at: 0) }
        let arguments = CommandArguments(of: types)
        let line = Line(named.rest, arguments)
        let names = NameSearch(named.rest, environment)

        if let option = line.pending {
            add(option.values, beginning: current, names)
        } else if !line.isOnlyArguments, let equals = current.firstIndex(of: "="),
            let option = arguments.option(String(current[..<equals])), option.takesValue
        {
            let head = String(current[...equals])
            add(option.values, beginning: String(current[current.index(after: equals)...]), names)
            for index in candidates.indices { candidates[index].word = head + candidates[index].word }
        } else if !line.isOnlyArguments, current.hasPrefix("-") {
            addOptions(arguments, line, beginning: current)
        } else if named.executable == nil {
            addCommands(of: named.path.last, beginning: current)
        } else if let argument = line.argument(arguments) {
            add(argument.values, beginning: current, names)
        }
        // What could steer a terminal, or end a line, is not shown, and could not be typed.
        candidates.removeAll { !ShownText.isPlain($0.word) || !$0.word.hasPrefix(current) }
    }

    /// The words of a command beside its name.
    private struct Line {
        /// The option whose value comes next.
        var pending: CommandArguments.Argument?
        /// Names of options and flags.
        var used: Set<String> = []
        /// How many arguments that belong to no option.
        var count = 0
        /// What looks like an option is none any more.
        var isOnlyArguments = false

        init(_ words: [String], _ arguments: CommandArguments) {
            for word in words {
                if pending != nil {
                    pending = nil
                } else if !isOnlyArguments, word == "--" {
                    isOnlyArguments = true
                } else if !isOnlyArguments, word.hasPrefix("-"), word != "-" {
                    let name = String(word.prefix { $0 != "=" })
                    used.insert(name)
                    if let option = arguments.option(name), option.takesValue, name == word {
                        pending = option
                    }
                } else {
                    count += 1
                    if argument(arguments, at: count - 1)?.takesRest == true { isOnlyArguments = true }
                }
            }
        }

        /// What stands at the cursor.
        func argument(_ arguments: CommandArguments) -> CommandArguments.Argument? {
            argument(arguments, at: count)
        }

        private func argument(_ arguments: CommandArguments, at place: Int) -> CommandArguments.Argument? {
            if place < arguments.positional.count { return arguments.positional[place] }
            return arguments.positional.last.flatMap { $0.isRepeating ? $0 : nil }
        }
    }

    private mutating func addOptions(_ arguments: CommandArguments, _ line: Line, beginning current: String) {
        for option in arguments.options {
            let isUsed = !option.isRepeating && option.names.contains { line.used.contains($0) }
            guard !isUsed, let name = option.names.first(where: { $0.hasPrefix(current) }) else { continue }
            candidates.append(Candidate(word: name, about: option.about))
        }
    }

    private mutating func addCommands(of group: (any ParsableCommand.Type)?, beginning current: String) {
        let types =
            group?.configuration.subcommands
            ?? RootCommand.commands.flatMap(\.commands).map { $0().type }
        for configuration in types.map({ $0.configuration }) where configuration.shouldDisplay {
            candidates.append(
                Candidate(word: configuration.commandName ?? "", about: configuration.abstract))
        }
    }

    private mutating func add(
        _ values: CommandArguments.Values, beginning current: String, _ names: NameSearch
    ) {
        switch values {
        case .anything: break
        case .files: files = .files
        case .directories: files = .directories
        case .words(let words): candidates += words.map { Candidate(word: $0) }
        case .names(let kind): (candidates, files) = names.find(kind, beginning: current)
        }
        candidates.removeAll { !$0.word.hasPrefix(current) }
    }
}
