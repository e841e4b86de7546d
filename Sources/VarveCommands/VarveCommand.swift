import ArgumentParser
import Glibc
import VarveStore
package import VarveSystem
import SystemPackage

/// The command `varve`.
package enum VarveCommand {
    package static let version = "0.1.0"

    /// Runs the command line of this process and ends it.
    package static func main() -> Never {
        ProgramMemory.populateVariables()
        openMissingStandardStreams()
        Interruption.install()
        raiseDescriptorLimit()
        let words = unsafe UnsafeBufferPointer(start: CommandLine.unsafeArgv, count: Int(CommandLine.argc))
        var arguments: [BytePath] = []
        for index in words.indices {
            guard let word = unsafe words[index] else { break }
            let bytes = unsafe UnsafeRawBufferPointer(start: word, count: strlen(word))
            if let argument = unsafe BytePath(bytes) { arguments.append(argument) }
        }
        let code = run(
            as: arguments.first.map { Program(calledAs: $0) } ?? .varve,
            arguments: Array(arguments.dropFirst()),
            standardOutput: .descriptor(.standardOutput, Interruption.cancellation),
            standardError: .descriptor(.standardError, Interruption.cancellation), isTerminal: isatty(2) == 1,
            isJournal: LogLine.isJournal,
            cancellation: Interruption.cancellation)
        exit(Interruption.exitCode(code))
    }

    /// Runs one command line and returns its exit code; touches nothing of the process.
    ///
    /// - Parameters:
    ///   - program: whose command line it is.
    ///   - arguments: without the name of the program.
    ///   - isTerminal: of standard error; nothing else decides whether a line of progress is shown.
    ///   - isJournal: standard error leads to systemd's journal.
    package static func run(
        as program: Program = .varve, arguments: [BytePath], standardOutput: OutputSink,
        standardError: OutputSink, isTerminal: Bool = false, isJournal: Bool = false,
        environment: CommandEnvironment = .process, cancellation: Cancellation = Cancellation()
    ) -> Int32 {
        let output = ResultWriter(standardOutput)
        let diagnostics = Diagnostics(
            standardError, program: program, isTerminal: isTerminal, isJournal: isJournal,
            format: program == .varve
                ? LogFormatArgument.asked("--log-format", in: arguments)?.format ?? .text : .text,
            errorFormat: program == .varve
                ? ErrorFormatArgument.asked("--error-format", in: arguments) ?? .text : .text)
        do {
            try execute(program, arguments, output, diagnostics, environment, cancellation)
            try output.flush()
            return 0
        } catch let error as OutputError where error.isClosedPipe {
            return 0
        } catch let error as UmociCommandLine.Mistake {
            diagnostics.message(ArgumentText.shown(error.description), isOneLine: false)
            return error.code
        } catch let error as PassedStatus {
            return error.status
        } catch let error as ReportedError {
            return program.exitCode(error.code)
        } catch let error as WrongUsage {
            return diagnostics.report(ErrorReport(usage: error.description))
        } catch {
            // What was found before it is still a result.
            try? output.flush()
            let report = ErrorReport(error)
            let isInterrupted = cancellation.isCancelled || report.code == .interrupted
            return diagnostics.report(isInterrupted ? .interrupted : report)
        }
    }

    private static func execute(
        _ program: Program, _ arguments: [BytePath], _ output: ResultWriter, _ diagnostics: Diagnostics,
        _ environment: CommandEnvironment, _ cancellation: Cancellation
    ) throws {
        var words = arguments.map { ArgumentText.encode($0.bytes) }
        if program == .umoci {
            switch try UmociCommandLine(parsing: words) {
            case .command(let translated): words = translated
            case .text(let text): return try output.show(text)
            }
        }
        if program == .varve, let said = ShellCompletion.output(for: arguments, environment) {
            return try output.write(said)
        }
        guard let command = try parse(words.map(ArgumentText.marked), output) else { return }
        let context = CommandContext(
            program: program, options: command.global, environment: environment, output: output,
            diagnostics: diagnostics, cancellation: cancellation)
        defer { diagnostics.clearProgress() }
        try command.execute(context)
    }

    /// Nil if help or the like was asked for, and written.
    private static func parse(_ words: [String], _ output: ResultWriter) throws -> (any ExecutableCommand)? {
        var words = words
        var named = NamedCommands(in: words)
        if let type = named.executable {
            words = type.respelled(words)
            named = NamedCommands(in: words)
        }
        if let type = named.executable,
            let command = type.parse(plain: named.rest) ?? type.parse(alone: named.rest)
        {
            return command
        }
        do {
            var command = try RootCommand.parseAsRoot(words)
            if let command = command as? any ExecutableCommand { return command }
            // A group without one of its commands, or the parser's own `help`: both throw.
            try command.run()
            return nil
        } catch let error as MissingCommand {
            throw WrongUsage(description: error.description)
        } catch {
            let text = ArgumentText.shown(RootCommand.fullMessage(for: error, columns: nil))
            guard RootCommand.exitCode(for: error) == .success else {
                if let missing = MissingCommand(in: words) {
                    throw WrongUsage(description: ArgumentText.shown(missing.description))
                }
                throw WrongUsage(description: text.prefix(1).lowercased() + text.dropFirst())
            }
            try output.show(text.hasSuffix("\n") ? text : text + "\n")
            return nil
        }
    }
}

/// What the parser of the command line says, with the right form.
private struct WrongUsage: Error {
    var description: String
}
