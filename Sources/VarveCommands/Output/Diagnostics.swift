import VarveFormats
import Logging
import Synchronization
import VarveOCI
import VarveSystem
import SystemPackage

/// Standard error: messages, and on a terminal one line of progress that every message takes away first.
final class Diagnostics: Sendable {
    let showsProgress: Bool
    private let sink: OutputSink
    let program: Program
    private let errorFormat: ErrorFormatArgument
    private let hasProgressLine = Mutex(false)

    init(
        _ sink: OutputSink, program: Program = .varve, isTerminal: Bool,
        errorFormat: ErrorFormatArgument = .text
    ) {
        self.sink = sink
        self.errorFormat = errorFormat
        self.program = program
        showsProgress = isTerminal
    }

    /// Writes `PROGRAM: TEXT` and a newline. What came from an image may not steer a terminal (`ShownText`).
    ///
    /// - Parameter isOneLine: newlines in the text are escaped too: a name that holds one cannot make another message.
    func message(_ text: String, isOneLine: Bool = true) {
        let text = program == .umoci ? UmociWording.of(text) : text
        let shown = ShownText.of(
            Array(text.utf8)[...], escapesBackslash: false, keepsNewlines: !isOneLine)
        passOn(Array("\(program.name): \(shown)\n".utf8))
    }

    /// Writes `PROGRAM: QUESTION` and stays on the line.
    func ask(_ question: String) {
        let shown = ShownText.of(Array(question.utf8)[...], escapesBackslash: false)
        write(Array("\(program.name): \(shown)".utf8), progressLine: false)
    }

    /// Says why the command failed: in a sentence, or in one object on a line of its own.
    ///
    /// - Returns: the exit code.
    func report(_ report: ErrorReport) -> Int32 {
        let code = program.exitCode(report.code)
        switch errorFormat {
        case .text: message(report.text, isOneLine: report.lines == nil)
        case .json:
            let object = report.json(exitCode: Interruption.exitCode(code))
            write(JSONValue.object(object).serialized() + [UInt8(ascii: "\n")], progressLine: false)
        }
        return code
    }

    /// Writes lines of text from elsewhere.
    func passOn(_ lines: [UInt8]) {
        var bytes: [UInt8] = []
        ShownText.append(lines[...], to: &bytes, escapesBackslash: false, keepsNewlines: true)
        write(bytes, progressLine: false)
    }

    /// Replaces the line of progress; nothing where it is no terminal.
    func showProgress(_ line: String) {
        if showsProgress { write(Array(ShownText.of(Array(line.utf8)[...]).utf8), progressLine: true) }
    }

    func clearProgress() { write([], progressLine: false) }

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

/// Writes log messages as `varve: LEVEL: MESSAGE`.
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
        let list = details.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: " ")
        let text = list.isEmpty ? "\(event.message)" : "\(event.message) (\(list))"
        if diagnostics.program == .umoci {
            // As its own log is printed (github.com/apex/log, handlers/cli).
            let bullet = event.level >= .error ? "⨯" : "•"
            let padding = String(repeating: " ", count: max(0, 25 - text.unicodeScalars.count))
            return diagnostics.passOn(Array("   \(bullet) \(text)\(padding)\n".utf8))
        }
        diagnostics.message("\(event.level): \(text)")
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
