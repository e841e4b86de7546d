import VarveFormats
import VarveArchive
import VarveOCI
import VarveStore
import VarveSystem

/// An error as the command says it.
struct ErrorReport {
    var code: VarveError.Code
    var subject: BytePath?
    var reason: String
    /// What helps, in words for a shell.
    var remedy: String?
    /// What a person is shown in place of both: text of more than one line, as help is.
    var lines: String?

    init(_ error: any Error) {
        switch error {
        case let error as CommandError: (code, reason, remedy) = (error.code, error.reason, error.remedy)
        case let error as OutputError: (code, reason) = (VarveError.Code(error.errno), error.description)
        default:
            let error = VarveError(converting: error)
            (code, subject, reason) = (error.code, error.subject, error.reason)
            remedy = error.remedy?.shellWords
        }
    }

    /// Wrong usage, as the parser of the command line says it: what is wrong, mostly how the command is used, and where to
    /// read more.
    init(usage text: String) {
        (code, lines) = (.usage, text)
        var said = Substring(text)
        for end in ["\nHelp: ", "\nUsage: ", "\n  See '"] {
            if let found = said.firstRange(of: end) { said = said[..<found.lowerBound] }
        }
        let lead = "error: "
        reason = String(said.hasPrefix(lead) ? said.dropFirst(lead.count) : said)
        if let start = text.firstRange(of: "\n  See '"),
            let end = text[start.upperBound...].firstIndex(of: "'")
        {
            remedy = "see '\(text[start.upperBound..<end])'"
        }
    }

    static let interrupted = ErrorReport(VarveError.cancelled)

    /// What is wrong and what helps, on one line.
    var sentence: String { remedy.map { "\(reason); \($0)" } ?? reason }

    /// For a person.
    var text: String { lines ?? sentence }

    /// One object: `code`, `subject` (`subjectBase64` if it is not UTF-8), `reason`, `remedy`, `exitCode`.
    func json(exitCode: Int32) -> JSONObject {
        var object: JSONObject = ["code": .string(code.rawValue)]
        if let subject, subject.string == nil {
            object["subjectBase64"] = .string(String(decoding: Base64.encode(subject.bytes), as: UTF8.self))
        } else {
            object["subject"] = subject?.string.map { .string($0) } ?? .null
        }
        object["reason"] = .string(reason)
        object["remedy"] = remedy.map { .string($0) } ?? .null
        object["exitCode"] = .number(JSONNumber(Int64(exitCode)))
        return object
    }
}
