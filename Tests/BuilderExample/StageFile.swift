import SystemPackage
import Varve
// The reader of TOML is the package's own; a program elsewhere takes one of a package.
import VarveFormats

/// A file of stages.
struct StageFile: Sendable {
    let stages: [Stage]
    /// The directory that the file is in: what is copied lies below it.
    let folder: String

    subscript(name: String) -> Stage? { stages.first { $0.name == name } }

    init(reading path: String) throws {
        let file = try FileDescriptor.open(FilePath(path), .readOnly)
        let bytes = try file.closeAfter {
            var bytes: [UInt8] = []
            while case let part = try file.readPart(), !part.isEmpty { bytes += part }
            return bytes
        }
        let folder = FilePath(path).removingLastComponent()
        self.folder = folder.isEmpty ? "." : folder.string
        stages = try TOMLTable(parsing: bytes).members.map { member in
            guard case .table(let table) = member.value else {
                throw Failure("line \(member.line): \(member.key) is no stage")
            }
            return try Stage(member.key, table)
        }
        for stage in stages { try check(stage.name, []) }
    }

    /// A stage must be there, and must not need itself: it would wait for its own end.
    private func check(_ name: String, _ path: [String]) throws {
        guard let stage = self[name] else { throw Failure("there is no stage \(name)") }
        guard !path.contains(name) else {
            throw Failure("stages need each other: " + (path + [name]).joined(separator: " "))
        }
        for other in stage.needs { try check(other, path + [name]) }
    }
}

/// A stage: where it begins, and its steps.
struct Stage: Sendable {
    enum Base: Sendable {
        case nothing
        case stage(String)
        case elsewhere(String)
    }

    enum Step: Sendable {
        case run(String)
        case copy(source: String, target: String)
        case copyFrom(stage: String, source: String, target: String)
        case config([(key: String, values: [String])])

        /// As the file names it.
        var kind: String {
            switch self {
            case .run: "run"
            case .copy, .copyFrom: "copy"
            case .config: "config"
            }
        }
    }

    let name: String
    private(set) var base = Base.nothing
    private(set) var isBuildOnly = false
    private(set) var steps: [Step] = []

    /// The stages that must be there before it.
    var needs: [String] {
        var names: [String] = []
        if case .stage(let name) = base { names.append(name) }
        for case .copyFrom(let name, _, _) in steps { names.append(name) }
        return names
    }

    fileprivate init(_ name: String, _ table: TOMLTable) throws {
        self.name = name
        for member in table.members {
            switch (member.key, member.value) {
            case ("from", .string(let source)):
                base = Self.stage(source).map { .stage($0) } ?? .elsewhere(source)
            case ("build_only", .boolean(let isSet)): isBuildOnly = isSet
            case ("run", let value): steps += Self.list(value).compactMap(Self.text).map { .run($0) }
            case ("copy", .array(let pairs)): steps += try pairs.map(copy)
            case ("config", .table(let options)):
                steps.append(
                    .config(options.members.map { ($0.key, Self.list($0.value).compactMap(Self.text)) }))
            default:
                throw Failure("line \(member.line): \(member.key) of the stage \(name) is not known")
            }
        }
    }

    private func copy(_ pair: TOMLValue) throws -> Step {
        let words = Self.list(pair).compactMap(Self.text)
        guard words.count == 2 else { throw Failure("stage \(name): copy takes pairs of paths") }
        guard let source = Self.stage(words[0]) else { return .copy(source: words[0], target: words[1]) }
        let parts = source.split(separator: ":", maxSplits: 1).map(String.init)
        guard parts.count == 2 else {
            throw Failure("stage \(name): \(words[0]) is not stage:NAME:/path")
        }
        return .copyFrom(stage: parts[0], source: parts[1], target: words[1])
    }

    private static func stage(_ source: String) -> String? {
        source.hasPrefix("stage:") ? String(source.dropFirst("stage:".count)) : nil
    }

    private static func list(_ value: TOMLValue) -> [TOMLValue] {
        if case .array(let elements) = value { elements } else { [value] }
    }

    private static func text(_ value: TOMLValue) -> String? {
        if case .string(let text) = value { text } else { nil }
    }
}
