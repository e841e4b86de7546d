import Glibc
package import VarveSystem
package import SystemPackage

/// What went wrong with a store, a bundle or an operation on them, in one sentence for a person.
package struct StoreError: Error, Sendable, CustomStringConvertible {
    /// What the command's exit code says of it (see `cli.md`).
    package enum Kind: Sendable, Hashable {
        /// The operation failed.
        case failed
        /// The caller wrote something that can never be right.
        case usage
        /// The input is not valid, or not what its digest says.
        case invalidInput
        /// The image, chain, snapshot, bundle or store is not there.
        case notFound
        /// This host cannot do it.
        case unsupported
        /// No space is left.
        case noSpace
        /// A hook program failed, or its answer cannot be true.
        case hookFailed
        /// The caller asked to stop.
        case cancelled
    }

    package var kind: Kind
    package var description: String

    package init(_ kind: Kind, _ description: String) {
        self.kind = kind
        self.description = description
    }

    /// A system call failed: what was being done, to which path, and why.
    package static func system(_ operation: String, _ path: BytePath, _ errno: Errno) -> StoreError {
        // A wait for a lock was given up.
        if errno == .canceled { return cancelled }
        let (kind, remedy): (Kind, String) =
            switch errno {
            case .noSpace: (.noSpace, "; \(spaceRemedy(near: path))")
            case .diskQuotaExceeded: (.noSpace, "; raise the quota or free space below it")
            case .notPermitted, .permissionDenied: (.unsupported, "; \(permissionRemedy())")
            case .readOnlyFileSystem: (.failed, "; mount the file system for writing")
            case .inappropriateIOCTLForDevice, Errno(rawValue: ENOSYS), Errno(rawValue: EOPNOTSUPP):
                (.unsupported, "; this kernel or file system does not have it")
            case .tooManyOpenFiles: (.failed, "; raise the limit of open files (ulimit -n)")
            case .noSuchFileOrDirectory: (.notFound, "")
            default: (.failed, "")
            }
        return StoreError(kind, "cannot \(operation) \"\(path)\": \(errno.explanation)\(remedy)")
    }
}

/// Runs a system call and says, if it fails, what it was for.
@inline(__always)
func attempt<T: ~Copyable>(
    _ operation: @autoclosure () -> String, _ path: @autoclosure () -> BytePath, _ body: () throws(Errno) -> T
) throws(StoreError) -> T {
    do throws(Errno) {
        return try body()
    } catch {
        throw StoreError.system(operation(), path(), error)
    }
}
