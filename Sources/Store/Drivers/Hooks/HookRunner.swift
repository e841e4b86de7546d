import Logging
import OCI
import SystemCalls
import SystemPackage

/// Runs hook programs: `COMMAND… HOOK-NAME BUNDLE` with a JSON object on standard input, and one on standard output as
/// the answer. See Docs/hooks.md.
struct HookRunner: Sendable {
    static let protocolVersion: Int64 = 1

    let configuration: HooksConfiguration
    let onErrorOutput: @Sendable ([UInt8]) -> Void
    let logger: Logger

    func has(_ name: HookName) -> Bool { configuration.hooks[name] != nil }

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
        var supervised = SupervisedProgram(
            arguments: hook.command + [BytePath(name.rawValue), bundle],
            input: JSONValue.object(whole).serialized() + [UInt8(ascii: "\n")],
            outputLimit: name.answerLimit, timeLimit: hook.timeout)
        supervised.errorLimit = 1 << 20
        logger.debug("running the hook \(name.rawValue)")
        let outcome: SupervisedProgram.Outcome
        do {
            outcome = try supervised.run(onErrorOutput: onErrorOutput) { try cancellation.check() }
        } catch let error as Errno {
            throw failure.error(
                "\"\(program)\" cannot be run: \(error); make it a program that can be executed, or correct hooks.toml"
            )
        }
        let words = outcome.lastWords.map { ": \($0)" } ?? " and said nothing on standard error"
        switch outcome.ending {
        case .exited(status: 0): break
        case .exited(let status): throw failure.error("\"\(program)\" ended with status \(status)\(words)")
        case .killed(let signal): throw failure.error("\"\(program)\" was killed by signal \(signal)\(words)")
        case .timedOut:
            throw failure.error(
                "\"\(program)\" was still running after \(hook.timeout.components.seconds) seconds and was stopped; correct it, or raise its timeout in hooks.toml"
            )
        case .flooded:
            throw failure.error(
                "\"\(program)\" wrote more than the \(name.answerLimit >> 20) MiB that an answer may have, and was stopped"
            )
        }
        let answer: JSONValue
        do throws(JSONSyntaxError) {
            answer = try JSONValue(parsing: outcome.output)
        } catch {
            throw failure.error(
                outcome.output.isEmpty
                    ? "\"\(program)\" gave no answer; one that has nothing to say answers {}"
                    : "the answer of \"\(program)\" is not valid JSON: \(error)")
        }
        guard let members = answer.object else {
            throw failure.error("the answer of \"\(program)\" is JSON, but not an object")
        }
        return HookAnswer(members: members, failure: failure)
    }
}

/// Whose fault something is.
struct HookFailure {
    let name: HookName
    let program: BytePath

    func error(_ reason: String) -> StoreError {
        StoreError(.hookFailed, "the hook \(name.rawValue) failed: \(reason)")
    }

    /// The program answered, and the answer cannot be true or cannot be used.
    func wrongAnswer(_ reason: String) -> StoreError {
        error("the answer of \"\(program)\" is wrong: \(reason)")
    }
}

/// An answer while its members are taken out of it.
struct HookAnswer {
    private var members: JSONObject
    let failure: HookFailure

    init(members: JSONObject, failure: HookFailure) {
        self.members = members
        self.failure = failure
    }

    /// The member, which is then done with; null is as good as none.
    mutating func take(_ key: String) -> JSONValue? {
        defer { members[key] = nil }
        guard let value = members[key], !value.isNull else { return nil }
        return value
    }

    mutating func bool(_ key: String) throws(StoreError) -> Bool? {
        guard let value = take(key) else { return nil }
        guard let bool = value.bool else { throw failure.wrongAnswer("\"\(key)\" must be true or false") }
        return bool
    }

    mutating func string(_ key: String) throws(StoreError) -> String? {
        guard let value = take(key) else { return nil }
        guard let string = value.string else { throw failure.wrongAnswer("\"\(key)\" must be a string") }
        return string
    }

    /// A misspelt member must not be taken for one that is not there.
    func end() throws(StoreError) {
        guard let other = members.members.first else { return }
        throw failure.wrongAnswer("\"\(other.key)\" is no member of an answer to this hook")
    }
}
