import Glibc
package import Logging
package import VarveFormats
import VarveSystem

/// Lines on standard error as programs read them: JSON, and the marks of systemd's journal. Command and daemon write the same.
package enum LogLine {
    /// How messages are written.
    package enum Format: String, Sendable, CaseIterable {
        /// `PROGRAM: LEVEL: MESSAGE`.
        case text
        /// An object on a line (`json`).
        case json
    }

    /// An object: `time` (RFC 3339, UTC), `level`, `msg`, and what else is known of it. The first three are what containerd calls them
    /// in its own.
    ///
    /// - Parameter details: a member that is called as one of the three is left out.
    package static func json(_ level: Logger.Level, _ message: String, _ details: JSONObject = JSONObject())
        -> [UInt8]
    {
        var object: JSONObject = [
            "time": .string(RFC3339.format(Timestamp.now())), "level": .string(level.rawValue),
            "msg": .string(message),
        ]
        for member in details.members where object[member.key] == nil { object[member.key] = member.value }
        return JSONValue.object(object).serialized() + [0x0a]
    }

    /// Whether standard error leads to systemd's journal (systemd.exec(5), $JOURNAL_STREAM).
    package static let isJournal: Bool = {
        var status = stat()
        guard let stream = unsafe getenv("JOURNAL_STREAM"), unsafe fstat(STDERR_FILENO, &status) == 0 else {
            return false
        }
        return unsafe String(cString: stream) == "\(status.st_dev):\(status.st_ino)"
    }()

    /// Lines, each with the mark by which the journal takes a level (sd-daemon(3)).
    package static func marked(_ lines: [UInt8], _ level: Logger.Level) -> [UInt8] {
        let mark = Array("<\(priority(of: level))>".utf8)
        return lines.split(separator: 0x0a, omittingEmptySubsequences: true).flatMap { mark + $0 + [0x0a] }
    }

    /// As syslog(3) counts them.
    private static func priority(of level: Logger.Level) -> Int {
        switch level {
        case .trace, .debug: 7
        case .info: 6
        case .notice: 5
        case .warning: 4
        case .error: 3
        case .critical: 2
        }
    }
}
