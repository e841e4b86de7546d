import Glibc
import VarveStore
import Synchronization
import VarveSystem
import SystemPackage
import TestSupport
import Testing

@testable import VarveCommands

/// What a command line gave.
struct CommandRun: CustomStringConvertible {
    var code: Int32
    var output: [UInt8]
    var errors: [UInt8]
    var text: String { String(decoding: output, as: UTF8.self) }
    var errorText: String { String(decoding: errors, as: UTF8.self) }
    var description: String { "code \(code), output \"\(text)\", errors \"\(errorText)\"" }
}

/// Bytes that a sink took.
final class Collected: Sendable {
    private let bytes = Mutex<[UInt8]>([])
    var all: [UInt8] { bytes.withLock { $0 } }
    var sink: OutputSink {
        OutputSink { [self] bytes in self.bytes.withLock { $0.append(contentsOf: bytes) } }
    }
}

/// Runs one command line without a process. The environment is empty but for `variables`.
func varve(
    _ arguments: BytePath..., variables: [String: String] = [:], isTerminal: Bool = false,
    cancellation: Cancellation = Cancellation()
) -> CommandRun {
    varve(arguments, variables: variables, isTerminal: isTerminal, cancellation: cancellation)
}

func varve(
    _ arguments: [BytePath], variables: [String: String] = [:], isTerminal: Bool = false,
    cancellation: Cancellation = Cancellation()
) -> CommandRun {
    let (output, errors) = (Collected(), Collected())
    let code = VarveCommand.run(
        arguments: arguments, standardOutput: output.sink, standardError: errors.sink, isTerminal: isTerminal,
        environment: CommandEnvironment(variables), cancellation: cancellation)
    return CommandRun(code: code, output: output.all, errors: errors.all)
}

/// A directory that is gone when the value goes away.
struct TemporaryDirectory: ~Copyable {
    let path: BytePath

    init() throws {
        path = temporaryDirectory().appending("varve-test-\(getpid())-\(randomName())")
        try FileDescriptor.workingDirectory.makeDirectory(path, mode: 0o755)
    }

    deinit { _ = try? runCommand(["rm", "-rf", "--", path.description]) }
}

/// Runs a shell script with `$1` set, for edits that read best so.
/// The same; returns its standard output.
func shell(asText script: String, _ paths: BytePath...) throws -> String {
    try runSuccessfully(["/bin/sh", "-ec", script, "sh"] + paths.map(\.description)).outputText
}

func shell(_ script: String, _ paths: BytePath...) throws {
    try runSuccessfully(["/bin/sh", "-ec", script, "sh"] + paths.map(\.description))
}
