import Glibc
import Synchronization
import SystemPackage

/// Asks an operation to stop; any thread, or a signal handler, may do it. The operation ends at its next step and leaves
/// nothing half done. A wait for a lock ends too: with ECANCELED (`Errno.canceled`).
public final class Cancellation: Sendable {
    private let flag = Atomic<Bool>(false)

    /// Nobody has asked to stop yet.
    public init() {}

    package func cancel() { flag.store(true, ordering: .relaxed) }
    /// Whether somebody asked to stop.
    public var isCancelled: Bool { flag.load(ordering: .relaxed) }

    /// Waits for `microseconds` before the next look at something that somebody else holds.
    /// - Throws: `Errno.canceled` if it was asked to stop.
    func pause(microseconds: UInt32) throws(Errno) {
        if isCancelled { throw .canceled }
        usleep(microseconds)
    }
}
