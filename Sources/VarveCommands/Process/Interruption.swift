import Glibc
import VarveStore
import Synchronization
import VarveSystem

/// SIGINT, SIGTERM and SIGHUP: the first asks the command to stop and clean up, the second ends the process at once, and the
/// program that it runs with it. What that leaves, the next command takes away.
enum Interruption {
    static let cancellation = Cancellation()
    /// The first signal that came; 0 if none did.
    private static let first = Atomic<CInt>(0)
    private static let isAtOnce = Atomic<Bool>(false)
    private static let isPassedOn = Atomic<Bool>(false)
    private static let count = Atomic<Int>(0)

    static func install() {
        // Everything that the handler uses is made now: making it there would not be safe in a signal handler.
        _ = (cancellation.isCancelled, first.load(ordering: .relaxed), isAtOnce.load(ordering: .relaxed))
        _ = (isPassedOn.load(ordering: .relaxed), count.load(ordering: .relaxed))
        SupervisedProgram.prepareKilling()
        var action = sigaction()
        unsafe action.__sigaction_handler.sa_handler = { signal in
            let isFirst = Interruption.first.compareExchange(
                expected: 0, desired: signal, ordering: .relaxed
            ).exchanged
            Interruption.count.wrappingAdd(1, ordering: .relaxed)
            if Interruption.isPassedOn.load(ordering: .relaxed) { return }
            if !isFirst || Interruption.isAtOnce.load(ordering: .relaxed) {
                SupervisedProgram.killRunning()
                _exit(Interruption.exitCode)
            }
            Interruption.cancellation.cancel()
        }
        // System calls go on after it: a command stops between its steps, not in the middle of one.
        action.sa_flags = SA_RESTART
        unsafe sigaction(SIGINT, &action, nil)
        unsafe sigaction(SIGTERM, &action, nil)
        // A terminal that is gone; nohup(1) has it ignored.
        var hangup = sigaction()
        unsafe sigaction(SIGHUP, nil, &hangup)
        let ignored = unsafe unsafeBitCast(SIG_IGN, to: Int.self)
        if unsafe unsafeBitCast(hangup.__sigaction_handler.sa_handler, to: Int.self) != ignored {
            unsafe sigaction(SIGHUP, &action, nil)
        }
        // A program that starts this one from a thread that blocks signals, as those of Swift's concurrency do, hands that on.
        var handled = sigset_t()
        unsafe sigemptyset(&handled)
        for signal in [SIGINT, SIGTERM, SIGHUP] { unsafe sigaddset(&handled, signal) }
        unsafe pthread_sigmask(SIG_UNBLOCK, &handled, nil)
        // A reader that has gone away shows as EPIPE.
        signal(SIGPIPE, SIG_IGN)
        // A file that may not grow as far (setrlimit(2), RLIMIT_FSIZE) shows as EFBIG.
        signal(SIGXFSZ, SIG_IGN)
    }

    /// From now on the first signal ends the process: for a command that waits for input and has nothing to clean up.
    static func endAtOnce() { isAtOnce.store(true, ordering: .relaxed) }

    /// The same while `body` waits for a person.
    static func endingAtOnce<R>(_ body: () -> R) -> R {
        isAtOnce.store(true, ordering: .relaxed)
        defer { isAtOnce.store(false, ordering: .relaxed) }
        return body()
    }

    /// From now on signals end nothing here: they are passed on to a program that runs in this process' place, which ends when it
    /// likes. Returns what tells how many came, and the first.
    static func passOn() -> @Sendable () -> (count: Int, first: CInt) {
        isPassedOn.store(true, ordering: .relaxed)
        return { (count.load(ordering: .relaxed), first.load(ordering: .relaxed)) }
    }

    /// 128 and the number of the signal, as shells have it: 130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP.
    private static var exitCode: CInt { 128 + first.load(ordering: .relaxed) }

    /// The exit code of a process whose command ended with `code`.
    static func exitCode(_ code: Int32) -> Int32 {
        code == VarveError.Code.interrupted.exitCode && first.load(ordering: .relaxed) != 0 ? exitCode : code
    }
}
