import ArgumentParser

/// One of a few words.
///
/// What the parser does with such a type in general, and with a default value of it, asks the runtime for conformances, at
/// each start of the program and for each type: so they are listed here, and such options of `unpack` are optional.
protocol ChoiceArgument: ExpressibleByArgument, CaseIterable, RawRepresentable
where RawValue == String, AllCases == [Self] {}

extension ChoiceArgument {
    static var allValueStrings: [String] { allCases.map { $0.rawValue } }
    static var allValueDescriptions: [String: String] { [:] }
}
