import Glibc
package import VarveSystem
package import SystemPackage

extension VarveError {
    /// A system call failed: what was being done, to which path, and why.
    package static func system(_ operation: String, _ path: BytePath, _ errno: Errno) -> VarveError {
        // A wait for a lock was given up.
        if errno == .canceled { return .cancelled }
        let remedy: Remedy? =
            switch errno {
            case .noSpace, .diskQuotaExceeded: FullFileSystem.remedy(errno, near: path)
            case .notPermitted, .permissionDenied: .gainPermission(errno, on: path)
            case .readOnlyFileSystem: ReadOnlyPlace.remedy(near: path)
            case .tooManyOpenFiles: .raiseLimit(.openFiles)
            default: nil
            }
        let isMissing = [
            .inappropriateIOCTLForDevice, Errno(rawValue: ENOSYS), Errno(rawValue: EOPNOTSUPP),
        ].contains(errno)
        return VarveError(
            errno == .noSuchFileOrDirectory ? .notFound : Code(errno),
            "cannot \(operation) \"\(path)\": \(errno.explanation)"
                + (isMissing ? "; this kernel or file system does not have it" : ""),
            subject: path, remedy: remedy)
    }
}

extension VarveError {
    /// Flags of chattr(1) forbid something: a sentence without its reason, what it is about, and the file that bears them.
    static func protected(_ what: String, _ subject: BytePath, by file: ProtectedFile) -> VarveError {
        VarveError(.unsupported, "\(what): \(file.problem)", subject: subject, remedy: file.remedy)
    }
}

/// Runs a system call and says, if it fails, what it was for.
@inline(__always)
func attempt<T: ~Copyable>(
    _ operation: @autoclosure () -> String, _ path: @autoclosure () -> BytePath, _ body: () throws(Errno) -> T
) throws(VarveError) -> T {
    do throws(Errno) {
        return try body()
    } catch {
        throw VarveError.system(operation(), path(), error)
    }
}
