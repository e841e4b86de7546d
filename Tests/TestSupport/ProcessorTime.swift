import CLinux
import Glibc

/// Time of this thread on its processor, so that what else the machine does counts little.
package enum ProcessorTime {
    /// Seconds since the thread began.
    package static func now() -> Double {
        var time = timespec()
        unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    /// Seconds that `work` takes: the least of three times.
    package static func least(_ work: () throws -> Void) rethrows -> Double {
        var least = Double.infinity
        for _ in 0..<3 {
            let start = now()
            try work()
            least = min(least, now() - start)
        }
        return least
    }

    /// Whether the time grows with the size of the input, and not with its square: eight times as much may take three times eight
    /// times as long. What grows with the square takes 64 times.
    package static func isInProportion(_ small: Double, toEightTimesAsMuch large: Double) -> Bool {
        large <= 24 * max(small, 0.001)
    }
}
