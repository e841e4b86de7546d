public import VarveSystem

extension Cancellation {
    /// Throws if somebody asked to stop: what a driver calls between its steps.
    public func throwIfCancelled() throws { try check() }

    package func check() throws(VarveError) {
        if isCancelled { throw VarveError.cancelled }
    }
}

extension VarveError {
    package static let cancelled = VarveError(
        .interrupted, "interrupted; nothing half-done was left behind")
}
