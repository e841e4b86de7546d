#if DEBUG
    import Glibc
    import Synchronization

    private let stop = unsafe getenv("VARVE_STOP_AT").flatMap { unsafe Int(String(cString: $0)) } ?? 0
    private let count = Atomic<Int>(0)
#endif

/// A moment at which what is on disk changes hands: before and after each call that makes a name seen or gone, or that waits
/// for the disk. In debug builds, the process stops itself (SIGSTOP) at the one whose number is in the environment variable
/// VARVE_STOP_AT, so that `Scripts/crash` can end it there, or cut the power; in release builds this is nothing.
@inline(__always)
public func durabilityPoint() {
    #if DEBUG
        guard stop > 0 else { return }
        if count.wrappingAdd(1, ordering: .relaxed).newValue == stop { raise(SIGSTOP) }
    #endif
}
