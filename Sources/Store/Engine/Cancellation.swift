import Synchronization

/// Asks an operation to stop; any thread, or a signal handler, may do it. The operation throws
/// `StoreError.Kind.cancelled` at its next step and leaves nothing half done.
public final class Cancellation: Sendable {
    private let flag = Atomic<Bool>(false)

    public init() {}

    public func cancel() { flag.store(true, ordering: .relaxed) }
    public var isCancelled: Bool { flag.load(ordering: .relaxed) }

    /// Throws if it was asked for.
    public func check() throws(StoreError) {
        if isCancelled { throw StoreError(.cancelled, "interrupted; nothing half-done was left behind") }
    }
}
