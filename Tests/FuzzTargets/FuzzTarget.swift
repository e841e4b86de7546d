/// A reader of bytes from outside, with what must hold whatever they are.
public struct FuzzTarget: Sendable, CustomStringConvertible {
    public enum Outcome: Sendable {
        case taken
        /// By an error of the type that the reader promises.
        case refused
    }

    public let name: String
    /// Inputs to start from, made anew each time.
    public let seeds: @Sendable () -> [[UInt8]]
    /// Throws what the reader may not throw, and a `FuzzFinding` where a property does not hold.
    public let run: @Sendable ([UInt8]) throws -> Outcome

    public var description: String { name }

    public static let all: [FuzzTarget] = [
        .tar, .gzip, .zstd, .documents, .accounts, .stream, .apply, .hooks, .mtree, .record, .configuration,
        .bundles,
    ]
}

/// A property that does not hold.
public struct FuzzFinding: Error, CustomStringConvertible {
    public var description: String
    public init(_ description: String) { self.description = description }
}

/// Throws unless `condition` holds.
func require(_ condition: Bool, _ what: @autoclosure () -> String) throws(FuzzFinding) {
    if !condition { throw FuzzFinding(what()) }
}
