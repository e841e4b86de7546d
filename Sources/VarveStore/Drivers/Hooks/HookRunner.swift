import VarveFormats
import Logging
import VarveOCI
import VarveSystem
import SystemPackage

/// Runs hook programs: `COMMAND… HOOK-NAME BUNDLE` with a JSON object on standard input, and one on standard output as
/// the answer. See Docs/hooks.md.
struct HookRunner: Sendable {
    static let protocolVersion: Int64 = 1

    let configuration: HooksConfiguration
    let onErrorOutput: @Sendable ([UInt8]) -> Void
    let logger: Logger

    func has(_ name: HookName) -> Bool { configuration.hooks[name] != nil }

    private static let correction = VarveError.Remedy.correctHooks(
        "make it a program that can be executed, or correct hooks.toml")

    /// Asks a hook; nil if it is not configured.
    ///
    /// - Parameter request: what there is beside the protocol version and the hook's name.
    func ask(
        _ name: HookName, bundle: BytePath, _ request: JSONObject, cancellation: Cancellation
    ) throws -> HookAnswer? {
        guard let hook = configuration.hooks[name] else { return nil }
        var whole: JSONObject = [
            "protocolVersion": .number(JSONNumber(Self.protocolVersion)), "hook": .string(name.rawValue),
        ]
        for member in request.members { whole[member.key] = member.value }
        let program = hook.command.first ?? .empty
        let failure = HookFailure(name: name, program: program)
        let found: BytePath
        do throws(PlaceError) { found = try SupervisedProgram.ownProgram(program) } catch {
            throw failure.error(
                "\"\(program)\" cannot be run: \(error.errno.map { "\($0)" } ?? error.problem)",
                remedy: error.errno == nil ? error.remedy : Self.correction)
        }
        var supervised = SupervisedProgram(
            arguments: [found] + hook.command.dropFirst() + [BytePath(name.rawValue), bundle],
            input: JSONValue.object(whole).serialized() + [UInt8(ascii: "\n")],
            outputLimit: name.answerLimit, timeLimit: hook.timeout)
        supervised.errorLimit = 1 << 20
        logger.debug("running the hook \(name.rawValue)")
        let outcome: SupervisedProgram.Outcome
        do {
            outcome = try supervised.run(onErrorOutput: onErrorOutput, check: { try cancellation.check() })
        } catch let error as Errno {
            throw failure.error("\"\(program)\" cannot be run: \(error)", remedy: Self.correction)
        }
        let words = outcome.lastWords.map { ": \($0)" } ?? " and said nothing on standard error"
        switch outcome.ending {
        case .exited(status: 0): break
        case .exited(let status): throw failure.error("\"\(program)\" ended with status \(status)\(words)")
        case .killed(let signal): throw failure.error("\"\(program)\" was killed by signal \(signal)\(words)")
        case .timedOut:
            throw failure.error(
                "\"\(program)\" was still running after \(hook.timeout.components.seconds) seconds and was stopped",
                remedy: .correctHooks("correct it, or raise its timeout in hooks.toml")
            )
        case .flooded:
            throw failure.error(
                "\"\(program)\" wrote more than the \(name.answerLimit >> 20) MiB that an answer may have, and was stopped"
            )
        }
        return try HookAnswer(parsing: outcome.output, failure: failure)
    }
}
