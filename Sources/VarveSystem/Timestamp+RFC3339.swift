package import VarveFormats

extension RFC3339 {
    /// As `format(seconds:nanoseconds:)`.
    package static func format(_ time: Timestamp) -> String {
        format(seconds: time.seconds, nanoseconds: time.nanoseconds)
    }

    /// As `components(of:)`.
    package static func parse(_ text: String) -> Timestamp? {
        components(of: text).map { Timestamp(seconds: $0.seconds, nanoseconds: $0.nanoseconds) }
    }
}
