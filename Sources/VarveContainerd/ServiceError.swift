import VarveStore
import VarveSystem

/// Why a call failed: a code of gRPC, and one sentence.
package struct ServiceError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The codes that the services answer with, under the names that gRPC has for them.
    package enum Code: Sendable, Hashable, CaseIterable {
        case invalidArgument, notFound, alreadyExists, failedPrecondition, unimplemented
        case resourceExhausted, cancelled, unavailable, internalError
    }

    package var code: Code
    package var message: String
    package var description: String { message }

    package init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    /// What an error of the store means to containerd. What the error advises is put into words, without a command.
    package init(_ error: any Error) {
        if let error = error as? ServiceError {
            self = error
            return
        }
        let converted = VarveError(converting: error)
        code =
            switch converted.code {
            case .usage, .invalidInput: .invalidArgument
            case .notFound: .notFound
            case .unsupported, .hookFailed: .failedPrecondition
            case .noSpace: .resourceExhausted
            case .interrupted: .cancelled
            case .failed: .internalError
            }
        message = converted.description
    }
}

extension String {
    /// As it stands in a message: in one line, and no longer than a message may be.
    var shown: String { "\"" + BytePath.excerpt(utf8) + "\"" }
}
