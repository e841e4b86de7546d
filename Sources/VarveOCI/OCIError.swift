internal import VarveSystem
import VarveSystem
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
        /// Another process holds what is needed.
        case inUse
        /// The caller asked to stop while it waited for a lock.
        case cancelled
        /// The kernel refused.
        case io(Errno)
    }

    package var kind: Kind
    /// One sentence for a person: what was being done, to what, why it failed and, where there is one, the
    /// remedy.
    package var description: String

    package init(_ kind: Kind, _ description: String) {
        self.kind = kind
        self.description = description
    }

    init(_ error: PlaceError, _ doing: String) {
        if case .system(_, let errno) = error.reason {
            self = .io(doing, error.path, errno)
        } else {
            self.init(.io(.permissionDenied), "cannot \(doing): \(error)")
        }
    }

    static func usage(_ text: String) -> OCIError { OCIError(.usage, text) }
    static func invalid(_ text: String) -> OCIError { OCIError(.invalidInput, text) }
    static func notFound(_ text: String) -> OCIError { OCIError(.notFound, text) }

    /// `doing` reads on from "cannot": "read the blob".
    static func io(_ doing: String, _ path: BytePath, _ error: Errno) -> OCIError {
        let remedy: String
        switch error {
        case .canceled:
            return OCIError(.cancelled, "interrupted; nothing half-done was left behind")
        case .permissionDenied, .notPermitted:
            remedy = "; run as a user who may do that, or change the owner or mode of the files"
        case .noSpace:
            remedy = "; \(spaceRemedy(near: path))"
        case .diskQuotaExceeded:
            remedy = "; raise the quota or free space below it"
        case .readOnlyFileSystem:
            remedy = "; mount it writable, or copy the layout to a place that is"
        case .improperLink:
            remedy =
                "; a symbolic link on the way leads out of the image layout: copy the layout (cp -rL) and name the copy"
        case .noSuchFileOrDirectory:
            return OCIError(.notFound, "cannot \(doing) \(path): there is no such file or directory")
        default:
            remedy = ""
        }
        return OCIError(.io(error), "cannot \(doing) \(path): \(error.explanation)\(remedy)")
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
