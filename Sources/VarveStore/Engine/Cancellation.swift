public import VarveSystem

extension Cancellation {
    /// Throws if it was asked for.
    public func check() throws(StoreError) {
        if isCancelled { throw StoreError.cancelled }
    }
}

extension StoreError {
    static let cancelled = StoreError(.cancelled, "interrupted; nothing half-done was left behind")
}
