import ArgumentParser

/// A command that does something.
protocol ExecutableCommand: ParsableCommand {
    /// What `configuration` is, but where the command is parsed alone.
    static var about: CommandConfiguration { get }
    associatedtype Global: GlobalChoices
    var global: Global { get }
    func execute(_ context: CommandContext) throws
    /// The command that `words` mean, if that can be told without the parser; see `PlainCommand`. Nil if it refuses them.
    static func parse(plain words: [String]) -> (any ExecutableCommand)?
    /// The words of a command line as the parser takes them for what this command means by them.
    static func respelled(_ words: [String]) -> [String]
}

extension ExecutableCommand {
    static func parse(plain words: [String]) -> (any ExecutableCommand)? { nil }

    static func respelled(_ words: [String]) -> [String] { words }

    static var configuration: CommandConfiguration { ParsedAlone.configuration ?? about }

    /// The command that `words` mean, those beside its name, if they are in order and ask for nothing else. What else
    /// they may be, or what is wrong with them, `RootCommand.parseAsRoot` says.
    ///
    /// At each start of the program the parser looks into each command that it is told of, and each of their options
    /// costs: alone, a command takes half the time.
    static func parse(alone words: [String]) -> (any ExecutableCommand)? {
        ParsedAlone.$configuration.withValue(ParsedAlone.bare) { try? parseAsRoot(words) as? Self }
    }
}

/// How a command is parsed that no other is parsed with.
private enum ParsedAlone {
    /// Set meanwhile.
    @TaskLocal static var configuration: CommandConfiguration?

    /// Nothing but the command's own options: no help, and, with `_superCommandName`, no completion scripts.
    static let bare = CommandConfiguration(_superCommandName: "", helpNames: [])
}
