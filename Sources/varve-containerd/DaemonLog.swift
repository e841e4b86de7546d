#if Containerd
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
        var metadata: Logger.Metadata = [:]
        var logLevel: Logger.Level
        private let format: LogLine.Format

        init(level: Logger.Level, _ format: LogLine.Format) {
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
            _ format: LogLine.Format
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
                var object = JSONObject()
                for (key, value) in details { object[key] = .string(excerpt(value)) }
                line = LogLine.json(level, excerpt(message), object)
            }
            _ = try? FileDescriptor.standardError.writeAll(
                LogLine.isJournal ? LogLine.marked(line, level) : line)
        }

        /// Bytes of a message, about.
        private static let limit = 4096

        /// What comes from a client may be of any length.
        private static func excerpt(_ text: String) -> String {
            text.utf8.count <= limit ? text : String(decoding: text.utf8.prefix(limit), as: UTF8.self) + "…"
        }
    }
#endif
