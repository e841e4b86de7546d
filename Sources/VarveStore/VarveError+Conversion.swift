import VarveFormats
import BtrfsSendStream
import Glibc
package import SystemPackage
import VarveArchive
import VarveBtrfs
import VarveLayers
import VarveOCI
package import VarveSystem

/// What the errors of the modules below mean to a caller. It is known here and nowhere else.
extension VarveError {
    /// The error of any module as that of the library. One of somebody else's, of a driver for example, has the code `failed`,
    /// its own words as the reason, and itself as the cause.
    package init(converting error: any Error) {
        switch error {
        case let error as VarveError: self = error
        case is CancellationError: self = .cancelled
        case let error as OCIError:
            self.init(
                Code(error.kind), error.reason, subject: error.subject, remedy: error.remedy, cause: error)
        case let error as LayerError:
            self.init(Code(error), error.reason, subject: error.subject, remedy: error.remedy, cause: error)
        // Ended between two steps.
        case let error as BtrfsError where error.errno == .canceled: self = .cancelled
        case let error as BtrfsError:
            self.init(
                Code(error.errno), error.reason, subject: error.path,
                remedy: error.isReadOnly ? ReadOnlyPlace.remedy(near: error.path) : error.remedy, cause: error
            )
        case let error as TarError:
            self.init(
                error.isOfWriter ? .failed : .invalidInput, error.problem, subject: error.entry,
                remedy: error.remedy, cause: error)
        case let error as CodecError:
            self.init(Code(error.reason), error.problem, remedy: error.remedy, cause: error)
        case let error as PipelineError:
            self.init(Code(error), error.reason, remedy: error.remedy, cause: error)
        case let error as SendStreamError:
            self.init(
                .invalidInput, error.problem, remedy: error.isOfLaterVersion ? .askForFirstVersion : nil,
                cause: error)
        case let error as PlaceError:
            self.init(
                error.errno.map { Code($0) } ?? .failed, error.problem, subject: error.path,
                remedy: error.remedy, cause: error)
        case let error as Errno: self.init(Code(error), "\(error)", cause: error)
        case is RecordError, is TOMLError, is JSONSyntaxError:
            self.init(.invalidInput, "\(error)", cause: error)
        default: self.init(.failed, "\(error)", cause: error)
        }
    }
}

extension VarveError.Code {
    /// What the kernel said, where nothing else tells more.
    package init(_ errno: Errno) {
        self =
            switch errno.rawValue {
            case ENOSPC, EDQUOT: .noSpace
            case EPERM, EACCES, ENOTTY, ENOSYS, EOPNOTSUPP: .unsupported
            default: .failed
            }
    }

    fileprivate init(_ kind: OCIError.Kind) {
        self =
            switch kind {
            case .usage: .usage
            case .invalidInput: .invalidInput
            case .notFound: .notFound
            case .alreadyExists, .inUse, .unsafePlace: .failed
            case .cancelled: .interrupted
            case .io(let errno): Self(errno)
            }
    }

    fileprivate init(_ error: LayerError) {
        self =
            switch error {
            case .invalidEntry: .invalidInput
            case .tooManyRanges: .usage
            case .unrepresentable, .unmappedOwner, .sourceUnusable, .treeChanged: .failed
            case .mountPoint: .unsupported
            case .system(_, _, let errno): Self(errno)
            case .cancelled: .interrupted
            }
    }

    fileprivate init(_ reason: CodecError.Reason) {
        self =
            switch reason {
            case .outOfMemory, .encoderFailed: .failed
            case .truncated, .notThisFormat, .badHeader, .corrupt, .wrongChecksum, .wrongLength,
                .trailingGarbage, .windowTooLarge, .needsDictionary:
                .invalidInput
            }
    }

    fileprivate init(_ error: PipelineError) {
        self =
            switch error {
            case .cancelled: .interrupted
            case .readFailed(_, let errno): Self(errno)
            case .longerThan: .invalidInput
            case .noThread: .failed
            }
    }
}
