import Glibc
import VarveFormats
import Logging
import Synchronization
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage

/// Standard error: messages, and on a terminal one line of progress that every message takes away first. With `--log-format json`,
/// objects and nothing else.
final class Diagnostics: Sendable {
    private let sink: OutputSink
    let program: Program
    private let isTerminal: Bool
    private let isJournal: Bool
    private let format: LogLine.Format
    private let errorFormat: ErrorFormatArgument
    private let hasProgressLine = Mutex(false)

    /// - Parameter isJournal: standard error leads to systemd's journal, which takes the level of a line from its beginning.
    init(
        _ sink: OutputSink, program: Program = .varve, isTerminal: Bool, isJournal: Bool = false,
        format: LogLine.Format = .text, errorFormat: ErrorFormatArgument = .text
    ) {
        self.sink = sink
        self.format = format
        self.errorFormat = errorFormat
        self.program = program
        self.isTerminal = isTerminal
        self.isJournal = isJournal
    }

    /// Writes a message of the log: `PROGRAM: LEVEL: TEXT`, or an object with the details as members.
    func log(_ level: Logger.Level, _ text: String, _ details: [(key: String, value: String)] = []) {
        if format == .json {
            var object = JSONObject()
            for (key, value) in details { object[key] = .string(value) }
            return say(level, LogLine.json(level, text, object))
        }
        let list = details.map { "\($0.key)=\($0.value)" }.joined(separator: " ")
        let text = list.isEmpty ? text : "\(text) (\(list))"
        if program == .umoci {
            // As its own log is printed (github.com/apex/log, handlers/cli).
            let bullet = level >= .error ? "⨯" : "•"
            let padding = String(repeating: " ", count: max(0, 25 - text.unicodeScalars.count))
            return passOn(Array("   \(bullet) \(text)\(padding)\n".utf8), level)
        }
        message("\(level): \(text)", level)
    }

    /// Writes `PROGRAM: TEXT` and a newline. What came from an image may not steer a terminal (`ShownText`).
    ///
    /// - Parameter isOneLine: newlines in the text are escaped too: a name that holds one cannot make another message.
    func message(_ text: String, _ level: Logger.Level = .error, isOneLine: Bool = true) {
        let text = program == .umoci ? UmociWording.of(text) : text
        let shown = ShownText.of(
            Array(text.utf8)[...], escapesBackslash: false, keepsNewlines: !isOneLine)
        passOn(Array("\(program.name): \(shown)\n".utf8), level)
    }

    /// Writes `PROGRAM: QUESTION` and stays on the line.
    func ask(_ question: String) {
        if format == .json { return log(.notice, question) }
        let shown = ShownText.of(Array(question.utf8)[...], escapesBackslash: false)
        write(Array("\(program.name): \(shown)".utf8), progressLine: false)
    }

    /// Says why the command failed: in a sentence, or in one object on a line of its own.
    ///
    /// - Returns: the exit code.
    func report(_ report: ErrorReport) -> Int32 {
        let code = program.exitCode(report.code)
        let object = report.json(exitCode: Interruption.exitCode(code))
        switch (format, errorFormat) {
        case (.json, _): say(.error, LogLine.json(.error, report.sentence, object))
        case (.text, .text): message(report.text, isOneLine: report.lines == nil)
        case (.text, .json):
            say(.error, JSONValue.object(object).serialized() + [UInt8(ascii: "\n")])
        }
        return code
    }

    /// Writes lines of text from elsewhere.
    func passOn(_ lines: [UInt8], _ level: Logger.Level = .info) {
        if format == .json {
            for line in lines.split(separator: UInt8(ascii: "\n")) {
                log(level, String(decoding: line, as: UTF8.self))
            }
            return
        }
        var bytes: [UInt8] = []
        ShownText.append(lines[...], to: &bytes, escapesBackslash: false, keepsNewlines: true)
        say(level, bytes)
    }

    /// How often progress is shown, in seconds. Nil for not at all: as a line it is for a terminal alone, as objects for whoever asks for
    /// that level.
    func progressInterval(_ level: Logger.Level) -> Double? {
        switch format {
        case .text: isTerminal ? 0.1 : nil
        case .json: level <= .info ? 1 : nil
        }
    }

    /// Replaces the line of progress.
    func showProgress(_ line: String) {
        if format == .json { return log(.info, line) }
        let shown = ShownText.of(Array(line.prefix(terminalColumns() - 1).utf8)[...])
        write(Array(shown.utf8), progressLine: true)
    }

    func clearProgress() { write([], progressLine: false) }

    /// Writes whole lines.
    private func say(_ level: Logger.Level, _ lines: [UInt8]) {
        write(isJournal ? LogLine.marked(lines, level) : lines, progressLine: false)
    }

    private func write(_ bytes: [UInt8], progressLine: Bool) {
        hasProgressLine.withLock { hasLine in
            // Back to the start of the line, and away with it (ECMA-48: EL).
            let erase: [UInt8] = hasLine || progressLine ? Array("\r\u{1b}[K".utf8) : []
            hasLine = progressLine
            if erase.isEmpty, bytes.isEmpty { return }
            // There is nobody left to tell when standard error cannot be written.
            try? sink.write(erase + bytes)
        }
    }
}

/// Columns of the terminal that standard error is; 80 where it does not say.
private func terminalColumns() -> Int {
    var size = winsize()
    guard unsafe ioctl(2, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 1 else { return 80 }
    return Int(size.ws_col)
}

/// Writes log messages.
struct DiagnosticLogHandler: LogHandler {
    private let diagnostics: Diagnostics
    var logLevel: Logger.Level
    var metadata: Logger.Metadata = [:]
    var metadataProvider: Logger.MetadataProvider?

    init(_ diagnostics: Diagnostics, level: Logger.Level) {
        self.diagnostics = diagnostics
        logLevel = level
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let details = metadata.merging(event.metadata ?? [:]) { _, new in new }
        diagnostics.log(
            event.level, "\(event.message)",
            details.sorted { $0.key < $1.key }.map { ($0.key, "\($0.value)") })
    }
}

extension LogLevelArgument {
    var level: Logger.Level {
        switch self {
        case .error: .error
        case .warn: .warning
        case .info: .info
        case .debug: .debug
        }
    }
}
