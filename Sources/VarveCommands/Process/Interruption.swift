import Glibc
import Store
import Synchronization

/// SIGINT and SIGTERM: the first asks the command to stop and clean up, the second ends the process at once.
enum Interruption {
    static let cancellation = Cancellation()
    private static let count = Atomic<Int>(0)
    private static let isAtOnce = Atomic<Bool>(false)

    static func install() {
        // Everything that the handler uses is made now: making it there would not be safe in a signal handler.
        _ = (cancellation.isCancelled, count.load(ordering: .relaxed), isAtOnce.load(ordering: .relaxed))
        var action = sigaction()
        unsafe action.__sigaction_handler.sa_handler = { _ in
            let isFirst = Interruption.count.wrappingAdd(1, ordering: .relaxed).oldValue == 0
            if !isFirst || Interruption.isAtOnce.load(ordering: .relaxed) {
                _exit(ExitStatus.interrupted.rawValue)
            }
            Interruption.cancellation.cancel()
        }
        // System calls go on after it: a command stops between its steps, not in the middle of one.
        action.sa_flags = SA_RESTART
        unsafe sigaction(SIGINT, &action, nil)
        unsafe sigaction(SIGTERM, &action, nil)
        // A reader that has gone away shows as EPIPE.
        signal(SIGPIPE, SIG_IGN)
    }

    /// From now on the first signal ends the process: for a command that waits for input and has nothing to clean up.
    static func endAtOnce() { isAtOnce.store(true, ordering: .relaxed) }
}
