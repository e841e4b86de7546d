import ArgumentParser
import VarveSystem

/// One of a few words.
///
/// What the parser does with such a type in general, and with a default value of it, asks the runtime for conformances, at
/// each start of the program and for each type: so they are listed here, and such options of `unpack` are optional.
protocol ChoiceArgument: ExpressibleByArgument, CaseIterable, RawRepresentable
where RawValue == String, AllCases == [Self] {}

extension ChoiceArgument {
    static var allValueStrings: [String] { allCases.map { $0.rawValue } }
    static var allValueDescriptions: [String: String] { [:] }

    /// The value of an option, as far as that shows before the command line is parsed: it may be what cannot be parsed.
    static func asked(_ name: String, in words: [BytePath]) -> Self? {
        let option = BytePath(name)
        var result: Self?
        var words = words.prefix { $0 != "--" }
        while let word = words.popFirst() {
            var value: BytePath?
            if word == option {
                value = words.first
            } else if word.hasPrefix(option.appendingBytes("=").bytes) {
                value = word.dropFirst(option.count + 1)
            }
            result = value?.string.flatMap(Self.init(rawValue:)) ?? result
        }
        return result
    }
}
