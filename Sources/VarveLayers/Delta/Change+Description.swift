extension ChangeKind {
    /// A, M or D, as `varve diff` shows it.
    package var letter: Character {
        switch self {
        case .added: "A"
        case .modified: "M"
        case .deleted: "D"
        }
    }
}

extension Change: CustomStringConvertible {
    /// As `varve diff` shows it: `A etc/motd`.
    public var description: String { "\(kind.letter) \(path)" }
}

extension DeltaResult: CustomStringConvertible {
    public var description: String {
        "\(changes.count) \(changes.count == 1 ? "change" : "changes"), found by \(source.rawValue) because \(reason)"
    }
}
