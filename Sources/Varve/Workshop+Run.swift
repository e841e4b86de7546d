import VarveStore
import VarveSystem

extension Workshop {
    /// Runs a call once it has a place, and awaits it. Cancelling the task ends the wait for a place at once; a call that
    /// runs is asked to stop, and its result is awaited: it cleans up first.
    ///
    /// The call reads, hashes and writes for seconds: on the threads of Swift's concurrency it would keep others from
    /// running.
    func run<T: Sendable>(_ call: @escaping @Sendable (WorkPlace) throws -> T) async throws -> T {
        let ticket = ticket()
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                enter(ticket) { place in
                    let result = Result {
                        let place = try place.get()
                        try place.cancellation.check()
                        return try call(place)
                    }.mapError { error in
                        asFacadeError(error, isCancelled: (try? place.get().cancellation.isCancelled) == true)
                    }
                    return { continuation.resume(with: result) }
                }
            }
        } onCancel: {
            cancel(ticket)
        }
    }
}

/// What leaves the façade in place of any error: `VarveError`; `CancellationError` from a call that was cancelled, whatever
/// failed because of that.
private func asFacadeError(_ error: any Error, isCancelled: Bool) -> any Error {
    let converted = VarveError(converting: error)
    return isCancelled || converted.code == .interrupted ? CancellationError() : converted
}
