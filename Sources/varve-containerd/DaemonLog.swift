#if Containerd
    import Logging
    import SystemPackage
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

        init(level: Logger.Level) { logLevel = level }

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            var text = "\(event.message)"
            let all = metadata.merging(event.metadata ?? [:]) { _, new in new }
            for (key, value) in all.sorted(by: { $0.key < $1.key }) { text += " \(key)=\(value)" }
            Self.write(event.level.rawValue, text)
        }

        static func write(_ level: String, _ text: String) {
            let line = "varve-containerd: \(level): \(BytePath.excerpt(text.utf8, limit: 4096))\n"
            _ = try? FileDescriptor.standardError.writeAll(line.utf8)
        }
    }
#endif
