#if DEBUG
    import Glibc
    import Synchronization

    private let variable = unsafe getenv("VARVE_STOP_AT").map { unsafe String(cString: $0) }
    private let stop = variable.flatMap { Int($0) } ?? 0
    private let count = Atomic<Int>(0)
#endif

/// A moment at which what is on disk changes hands: before and after each call that makes a name seen or gone, or that waits
/// for the disk. In debug builds, the process stops itself (SIGSTOP) at the one whose number is in the environment variable
/// VARVE_STOP_AT, so that `Scripts/crash` can end it there, or cut the power; in release builds this is nothing.
@inline(__always)
package func durabilityPoint() {
    #if DEBUG
        guard stop > 0 else { return }
        if count.wrappingAdd(1, ordering: .relaxed).newValue == stop { raise(SIGSTOP) }
    #endif
}

/// A moment between a look at something and its use, at which somebody else may act. In debug builds, the process stops itself
/// (SIGSTOP) at those whose names the environment variable VARVE_STOP_AT has, with commas between them, so that a test can play the attack with
/// certainty; in release builds this is nothing.
@inline(__always)
package func racePoint(_ name: StaticString) {
    #if DEBUG
        if let variable, variable.split(separator: ",").contains("\(name)") { raise(SIGSTOP) }
    #endif
}
