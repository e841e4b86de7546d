extension Sequence<Int64> {
    /// The sum of numbers that are not negative, and that somebody else made up: `Int64.max` if it is larger than that.
    package func saturatingSum() -> Int64 { reduce(0) { $0.addingSaturating($1) } }
}

extension Int64 {
    /// The sum of two numbers that are not negative; `Int64.max` if it is larger than that.
    package func addingSaturating(_ other: Int64) -> Int64 {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? .max : sum
    }
}
