import ArgumentParser

/// The commands that a command line names, as far as that shows before it is parsed.
struct NamedCommands {
    /// From those of `varve` itself down.
    private(set) var path: [any ParsableCommand.Type] = []
    /// The last of them, if it does something.
    private(set) var executable: (any ExecutableCommand.Type)?
    /// The words beside their names, if there is nothing else to be named.
    private(set) var rest: [String] = []
    /// What stands where a command of the last of them should.
    private(set) var unknown: String?

    init(in words: [String]) {
        var isValue = false
        for (index, word) in words.enumerated() {
            if executable != nil {
                rest += words[index...]
                return
            }
            if isValue || word.hasPrefix("-") {
                if !isValue, word == "--" { return }
                isValue = !isValue && GlobalOptions.withValue.contains(word)
                rest.append(word)
                continue
            }
            if word == "help" { return }
            guard let next = Self.command(word, of: path.last) else {
                unknown = word
                return
            }
            path.append(next.type)
            if case .command(let type) = next { executable = type }
        }
    }

    /// The command that is called `word` in `group`, or in `varve` itself.
    private static func command(_ word: String, of group: (any ParsableCommand.Type)?) -> RootCommand.Entry? {
        func isCalled(_ type: any ParsableCommand.Type) -> Bool {
            let configuration = type.configuration
            return configuration.commandName == word || configuration.aliases.contains(word)
        }
        guard let group else {
            return RootCommand.commands.lazy.flatMap(\.commands).map { $0() }.first { isCalled($0.type) }
        }
        guard let type = group.configuration.subcommands.first(where: isCalled) else { return nil }
        return (type as? any ExecutableCommand.Type).map { .command($0) } ?? .group(type)
    }
}
