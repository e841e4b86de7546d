import ArgumentParser
import VarveSystem

/// A length of time: `90s`, `30m`, `12h`, `7d`, `4w`.
struct DurationArgument: ExpressibleByArgument, Equatable {
    let seconds: Int64

    /// The time that is so long ago.
    var limit: Timestamp {
        let now = Timestamp.now()
        return Timestamp(seconds: now.seconds - seconds, nanoseconds: now.nanoseconds)
    }

    init?(argument: String) {
        let digits = argument.prefix { $0.isASCII && $0.isNumber }
        guard let number = Int64(digits) else { return nil }
        let factor: Int64? =
            switch argument.dropFirst(digits.count) {
            case "s": 1
            case "m": 60
            case "h": 3_600
            case "d": 86_400
            case "w": 604_800
            default: nil
            }
        guard let factor else { return nil }
        let (seconds, overflow) = number.multipliedReportingOverflow(by: factor)
        // As far back as the epoch of any clock.
        guard !overflow, seconds <= 1 << 40 else { return nil }
        self.seconds = seconds
    }
}
