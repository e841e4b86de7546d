import Store
import SystemCalls
import SystemPackage

/// Runs blocking work on a thread of its own and awaits it. Cancelling the task asks the work to stop, and waits until
/// it has cleaned up.
///
/// The work reads, hashes and writes for seconds: on the threads of Swift's concurrency it would keep others from
/// running.
func blocking<T: Sendable>(_ work: @escaping @Sendable (Cancellation) throws -> T) async throws -> T {
    let cancellation = Cancellation()
    return try await withTaskCancellationHandler {
        try await withCheckedThrowingContinuation { continuation in
            do throws(Errno) {
                try WorkerThread.detached(name: "varve") {
                    continuation.resume(with: Result { try work(cancellation) })
                }
            } catch {
                continuation.resume(
                    throwing: StoreError(
                        .failed, "cannot start a thread: \(error); raise the limit of processes (ulimit -u)"))
            }
        }
    } onCancel: {
        cancellation.cancel()
    }
}
