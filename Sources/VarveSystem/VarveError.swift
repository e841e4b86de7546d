/// The one error of the library: what calls of the module `Varve`, and the drivers that come with it, throw.
///
/// Cancelling a task is no error of this kind: the call then throws `CancellationError`.
///
/// `description` is one sentence for a person who reads a log: the reason, and what helps. It names no flag of any command. A
/// program that talks to its own users puts ``remedy`` into its own words.
public struct VarveError: Error, Sendable, CustomStringConvertible {
    /// The kinds of errors. The set is closed: a new case is a new major version. Each is one exit code of the command.
    public enum Code: String, Sendable, Hashable, CaseIterable {
        /// The operation failed for another reason than those below. Exit code 1.
        case failed
        /// An argument can never be right: a name, a reference or a size that nothing can have. Exit code 2.
        case usage
        /// An image, a layer, a stream or a document is not valid, or not what its digest says. Exit code 3.
        case invalidInput
        /// There is no such image, tag, chain, snapshot, bundle or store. Exit code 4.
        case notFound
        /// This host, or this user on it, cannot do it: not btrfs, not root, something mounted in the way. Exit code 5.
        case unsupported
        /// A hook program failed, or its answer cannot be true. Exit code 6.
        case hookFailed
        /// The file system or a quota is full. Exit code 7.
        case noSpace
        /// The caller asked to stop, and what was begun is cleaned up. Exit code 130. Calls of `Varve` throw
        /// `CancellationError` in its place; a driver may throw it.
        case interrupted

        /// The exit code of the command `varve`.
        public var exitCode: Int32 {
            switch self {
            case .failed: 1
            case .usage: 2
            case .invalidInput: 3
            case .notFound: 4
            case .unsupported: 5
            case .hookFailed: 6
            case .noSpace: 7
            case .interrupted: 130
            }
        }
    }

    /// What kind of error it is.
    public var code: Code
    /// The path, the image, the digest or the name that it is about, as it is, neither quoted nor escaped. Nil where it is
    /// about none, or where that is not known.
    public var subject: BytePath?
    /// What was being done and why it failed: a sentence without its full stop, and without the remedy.
    public var reason: String
    /// What the caller can do about it. Nil where nothing but the reason itself helps.
    public var remedy: Remedy?
    /// The error below this one: of a driver of the caller's own, or of an operation that this one is the outcome of.
    public var cause: (any Error)?

    /// An error of a driver, for example.
    ///
    /// - Parameters:
    ///   - code: what kind of error it is.
    ///   - reason: what was being done and why it failed, without the remedy and without a full stop.
    ///   - subject: the path, the image, the digest or the name that it is about.
    ///   - remedy: what the caller can do about it.
    ///   - cause: the error below this one.
    public init(
        _ code: Code, _ reason: String, subject: BytePath? = nil, remedy: Remedy? = nil,
        cause: (any Error)? = nil
    ) {
        self.code = code
        self.subject = subject
        self.reason = reason
        self.remedy = remedy
        self.cause = cause
    }

    /// The reason, and what helps.
    public var description: String { Self.sentence(reason, remedy) }

    /// How each error of the library is said: the reason and, where there is one, the remedy behind a semicolon.
    package static func sentence(_ reason: String, _ remedy: Remedy?) -> String {
        remedy.map { "\(reason); \($0)" } ?? reason
    }
}
