import ArgumentParser

/// What an option or an argument of a command names, where that is more than a file: completion looks for it.
enum NameKind: String {
    /// An image in a layout, `LAYOUT:TAG`.
    case image
    /// The same, or one elsewhere.
    case anyImage
    /// One elsewhere: a transport and what follows.
    case transport
    case bundle
    case snapshot
    case chain
    /// What `diff` compares: a bundle, a snapshot, a chain, an image.
    case tree
    /// The ID of a containerd.
    case containerd
    case hook
}

extension CompletionKind {
    /// Names that completion looks for when it is asked. The parser passes the word on in what it says of a command
    /// (`CommandArguments`); nothing runs it.
    static func names(_ kind: NameKind) -> CompletionKind { .shellCommand(kind.rawValue) }
}
