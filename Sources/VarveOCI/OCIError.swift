package import VarveSystem
package import SystemPackage

/// Why an image or an image layout could not be read or written.
package struct OCIError: Error, CustomStringConvertible, Sendable {
    package enum Kind: Hashable, Sendable {
        /// The caller wrote something that can never be right: a reference or a platform that does not parse.
        case usage
        /// The layout, or a blob in it, breaks its format, or its digest or size does not match.
        case invalidInput
        /// No such layout, tag or platform.
        case notFound
        /// There is already something where a layout was to be made.
        case alreadyExists
        /// Another user could change, or has made, what leads to a place.
        case unsafePlace
        /// Another process holds what is needed.
        case inUse
        /// The caller asked to stop while it waited for a lock.
        case cancelled
        /// The kernel refused.
        case io(Errno)
    }

    package var kind: Kind
    /// The path, the image or the digest that it is about, if that is known.
    package var subject: BytePath?
    /// What was being done, to what, and why it failed.
    package var reason: String
    package var remedy: VarveError.Remedy?

    /// One sentence for a person: the reason and, where there is one, the remedy.
    package var description: String { VarveError.sentence(reason, remedy) }

    package init(
        _ kind: Kind, _ reason: String, subject: BytePath? = nil, remedy: VarveError.Remedy? = nil
    ) {
        self.kind = kind
        self.subject = subject
        self.reason = reason
        self.remedy = remedy
    }

    init(_ error: PlaceError, _ doing: String) {
        if case .system(_, let errno) = error.reason {
            self = .io(doing, error.path, errno)
        } else {
            self.init(
                .unsafePlace, "cannot \(doing): \(error.problem)", subject: error.path,
                remedy: error.remedy)
        }
    }

    static func usage(
        _ reason: String, subject: BytePath? = nil, remedy: VarveError.Remedy? = nil
    ) -> OCIError { OCIError(.usage, reason, subject: subject, remedy: remedy) }

    static func invalid(
        _ reason: String, subject: BytePath? = nil, remedy: VarveError.Remedy? = nil
    ) -> OCIError { OCIError(.invalidInput, reason, subject: subject, remedy: remedy) }

    static func notFound(
        _ reason: String, subject: BytePath? = nil, remedy: VarveError.Remedy? = nil
    ) -> OCIError { OCIError(.notFound, reason, subject: subject, remedy: remedy) }

    /// `doing` reads on from "cannot": "read the blob".
    static func io(_ doing: String, _ path: BytePath, _ error: Errno) -> OCIError {
        let remedy: VarveError.Remedy?
        switch error {
        case .canceled:
            return OCIError(.cancelled, "interrupted; nothing half-done was left behind")
        case .permissionDenied, .notPermitted:
            remedy = (error == .notPermitted ? ProtectedFile.near(path)?.remedy : nil) ?? .gainAccess
        case .noSpace: remedy = .freeSpace(near: path)
        case .diskQuotaExceeded: remedy = .raiseQuota(on: MountTable.point(near: path))
        case .readOnlyFileSystem: remedy = .copyLayoutToWritable
        case .improperLink: remedy = .copyLayout
        case .noSuchFileOrDirectory:
            return OCIError(
                .notFound, "cannot \(doing) \(path): there is no such file or directory", subject: path)
        default: remedy = nil
        }
        let why =
            error == .improperLink
            ? "a symbolic link on the way leads out of the image layout" : error.explanation
        return OCIError(.io(error), "cannot \(doing) \(path): \(why)", subject: path, remedy: remedy)
    }
}

/// Runs system calls on `path` and turns what the kernel says into an `OCIError`.
func attempt<T: ~Copyable>(
    _ doing: String, _ path: BytePath, _ body: () throws(Errno) -> T
) throws(OCIError) -> T {
    do throws(Errno) {
        return try body()
    } catch {
        throw OCIError.io(doing, path, error)
    }
}
