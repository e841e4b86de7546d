import CLinux
import Glibc

/// Seconds of a clock that only goes forward (CLOCK_MONOTONIC).
package func monotonicSeconds() -> Double {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}
