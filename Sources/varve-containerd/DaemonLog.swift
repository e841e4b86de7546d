#if Containerd
    import Glibc
    import Logging
    import SystemPackage
    import VarveFormats
    import VarveStore
    import VarveSystem

    /// Something that keeps the daemon from starting: one sentence.
    struct DaemonError: Error, CustomStringConvertible {
        var description: String
        init(_ description: String) { self.description = description }

        static func sentence(_ error: any Error) -> String {
            (error as? DaemonError)?.description ?? VarveError(converting: error).description
        }
    }

    /// Messages on standard error, a line each, as journald takes them.
    struct DaemonLog: LogHandler {
        /// How a message is written.
        enum Format: String, Sendable, CaseIterable {
            /// `varve-containerd: LEVEL: MESSAGE key=value`
            case text
            /// A JSON object: `time` (RFC 3339, UTC), `level`, `msg`, and what else is known of it. The first three are what
            /// containerd calls them in its own.
            case json
        }

        var metadata: Logger.Metadata = [:]
        var logLevel: Logger.Level
        private let format: Format

        init(level: Logger.Level, _ format: Format) {
            logLevel = level
            self.format = format
        }

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            let all = metadata.merging(event.metadata ?? [:]) { _, new in new }
            Self.write(
                event.level, "\(event.message)",
                all.sorted { $0.key < $1.key }.map { ($0.key, "\($0.value)") }, format)
        }

        static func write(
            _ level: Logger.Level, _ message: String, _ details: [(key: String, value: String)],
            _ format: Format
        ) {
            let line: [UInt8]
            switch format {
            case .text:
                var text = message
                for (key, value) in details { text += " \(key)=\(value)" }
                line = Array(
                    "varve-containerd: \(level.rawValue): \(BytePath.excerpt(text.utf8, limit: limit))\n".utf8
                )
            case .json:
                var object: JSONObject = [
                    "time": .string(RFC3339.format(Timestamp.now())), "level": .string(level.rawValue),
                    "msg": .string(excerpt(message)),
                ]
                for (key, value) in details where object[key] == nil { object[key] = .string(excerpt(value)) }
                line = JSONValue.object(object).serialized() + [0x0a]
            }
            let mark = isJournal ? Array("<\(priority(of: level))>".utf8) : []
            _ = try? FileDescriptor.standardError.writeAll(mark + line)
        }

        /// Whether standard error leads to systemd's journal (systemd.exec(5), $JOURNAL_STREAM), which then takes a level from the beginning
        /// of each line (sd-daemon(3)).
        private static let isJournal: Bool = {
            var status = stat()
            guard let stream = ListeningSocket.variable("JOURNAL_STREAM"),
                unsafe fstat(STDERR_FILENO, &status) == 0
            else { return false }
            return stream == "\(status.st_dev):\(status.st_ino)"
        }()

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

        /// Bytes of a message, about.
        private static let limit = 4096

        /// What comes from a client may be of any length.
        private static func excerpt(_ text: String) -> String {
            text.utf8.count <= limit ? text : String(decoding: text.utf8.prefix(limit), as: UTF8.self) + "…"
        }
    }
#endif
