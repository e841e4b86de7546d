import VarveFormats
import VarveOCI
package import VarveSystem

/// Whose fault something is.
package struct HookFailure: Sendable {
    let name: HookName
    let program: BytePath

    package init(name: HookName, program: BytePath) {
        self.name = name
        self.program = program
    }

    func error(_ reason: String, remedy: VarveError.Remedy? = nil) -> VarveError {
        VarveError(
            .hookFailed, "the hook \(name.rawValue) failed: \(reason)", subject: BytePath(name.rawValue),
            remedy: remedy)
    }

    /// The program answered, and the answer cannot be true or cannot be used.
    func wrongAnswer(_ reason: String) -> VarveError {
        error("the answer of \"\(program)\" is wrong: \(reason)")
    }
}

/// An answer while its members are taken out of it.
package struct HookAnswer {
    private var members: JSONObject
    let failure: HookFailure

    /// - Parameter output: all that the program wrote to its standard output.
    package init(parsing output: [UInt8], failure: HookFailure) throws(VarveError) {
        let answer: JSONValue
        do throws(JSONSyntaxError) {
            answer = try JSONValue(parsing: output, expansion: nil)
        } catch {
            throw failure.error(
                output.isEmpty
                    ? "\"\(failure.program)\" gave no answer; one that has nothing to say answers {}"
                    : "the answer of \"\(failure.program)\" is not valid JSON: \(error)")
        }
        guard let members = answer.object else {
            throw failure.error("the answer of \"\(failure.program)\" is JSON, but not an object")
        }
        self.members = members
        self.failure = failure
    }

    /// The member, which is then done with; null is as good as none.
    mutating func take(_ key: String) -> JSONValue? {
        defer { members[key] = nil }
        guard let value = members[key], !value.isNull else { return nil }
        return value
    }

    mutating func bool(_ key: String) throws(VarveError) -> Bool? {
        guard let value = take(key) else { return nil }
        guard let bool = value.bool else { throw failure.wrongAnswer("\"\(key)\" must be true or false") }
        return bool
    }

    mutating func string(_ key: String) throws(VarveError) -> String? {
        guard let value = take(key) else { return nil }
        guard let string = value.string else { throw failure.wrongAnswer("\"\(key)\" must be a string") }
        return string
    }

    /// A misspelt member must not be taken for one that is not there.
    package func end() throws(VarveError) {
        guard let other = members.members.first else { return }
        throw failure.wrongAnswer(
            "\"\(BytePath.excerpt(other.key.utf8))\" is no member of an answer to this hook")
    }
}
