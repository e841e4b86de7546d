/// A reader of bytes from outside, with what must hold whatever they are.
package struct FuzzTarget: Sendable, CustomStringConvertible {
    package enum Outcome: Sendable {
        case taken
        /// By an error of the type that the reader promises.
        case refused
    }

    package let name: String
    /// Inputs to start from, made anew each time.
    package let seeds: @Sendable () -> [[UInt8]]
    /// Throws what the reader may not throw, and a `FuzzFinding` where a property does not hold.
    package let run: @Sendable ([UInt8]) throws -> Outcome

    package var description: String { name }

    package static let all: [FuzzTarget] = [
        .tar, .gzip, .zstd, .documents, .accounts, .stream, .apply, .hooks, .mtree, .record, .configuration,
        .bundles, .snapshots, .filters, .calls,
    ]
}

/// A property that does not hold.
package struct FuzzFinding: Error, CustomStringConvertible {
    package var description: String
    package init(_ description: String) { self.description = description }
}

/// Throws unless `condition` holds.
func require(_ condition: Bool, _ what: @autoclosure () -> String) throws(FuzzFinding) {
    if !condition { throw FuzzFinding(what()) }
}
