public import VarveSystem

extension Cancellation {
    /// Throws if somebody asked to stop: what a driver calls between its steps.
    public func throwIfCancelled() throws { try check() }

    package func check() throws(StoreError) {
        if isCancelled { throw StoreError.cancelled }
    }
}

extension StoreError {
    package static let cancelled = StoreError(
        .interrupted, "interrupted; nothing half-done was left behind")
}
