public import VarveSystem

extension Cancellation {
    /// Throws if somebody asked to stop: what a driver calls between its steps.
    public func throwIfCancelled() throws { try check() }

    package func check() throws(StoreError) {
        if isCancelled { throw StoreError.cancelled }
    }
}

extension StoreError {
    static let cancelled = StoreError(.cancelled, "interrupted; nothing half-done was left behind")
}
