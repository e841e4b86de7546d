import ArgumentParser
import VarveFormats

/// The options and arguments of one command, as the parser's `--experimental-dump-help` has them. Of one command alone that takes a
/// millisecond; of all of them it would take thirty.
struct CommandArguments {
    struct Argument {
        /// `--image`, `-q`; empty for one by its place.
        var names: [String]
        var takesValue: Bool
        var isRepeating: Bool
        /// All words from it on are its values, whatever they look like.
        var takesRest: Bool
        var about: String
        var values: Values
    }

    /// What a value may be.
    enum Values {
        case anything
        case files
        case directories
        case words([String])
        case names(NameKind)
    }

    private(set) var options: [Argument] = []
    private(set) var positional: [Argument] = []

    /// - Parameter types: a command, or groups of options; what one has that another had before is passed over.
    init(of types: [any ParsableArguments.Type]) {
        for type in types {
            let json = try? JSONValue(parsing: Array(type._dumpHelp().utf8))
            for value in json?.object?["command"]?.object?["arguments"]?.array ?? [] {
                guard let argument = value.object.flatMap(Argument.init) else { continue }
                if argument.names.isEmpty {
                    positional.append(argument)
                } else if option(argument.names[0]) == nil {
                    options.append(argument)
                }
            }
        }
    }

    func option(_ name: String) -> Argument? { options.first { $0.names.contains(name) } }
}

extension CommandArguments.Argument {
    fileprivate init?(_ json: JSONObject) {
        guard let kind = json["kind"]?.string else { return nil }
        names = (json["names"]?.array ?? []).compactMap(\.object).compactMap { name in
            name["name"]?.string.map { (name["kind"]?.string == "long" ? "--" : "-") + $0 }
        }
        // What is spelled out comes first.
        names.sort { $0.utf8.count > $1.utf8.count }
        takesValue = kind == "option"
        isRepeating = json["isRepeating"]?.bool ?? false
        takesRest = ["allRemainingInput", "postTerminator"].contains(json["parsingStrategy"]?.string)
        about = json["abstract"]?.string ?? ""
        values = CommandArguments.Values(json["completionKind"]?.object, json["allValues"]?.array)
    }
}

extension CommandArguments.Values {
    /// - Parameters:
    ///   - kind: an enumeration with one member, its name (`ToolInfoV0`, `CompletionKindV0`).
    ///   - all: all values, where there are few.
    fileprivate init(_ kind: JSONObject?, _ all: [JSONValue]?) {
        let details = kind?.members.first?.value.object
        switch kind?.members.first?.key {
        case "shellCommand":
            self = details?["command"]?.string.flatMap(NameKind.init).map { .names($0) } ?? .anything
        case "file": self = .files
        case "directory": self = .directories
        case "list": self = .words((details?["values"]?.array ?? []).compactMap(\.string))
        default: self = all.map { .words($0.compactMap(\.string)) } ?? .anything
        }
    }
}
