import VarveArchive
import VarveBtrfs
import Glibc
import VarveLayers
import VarveOCI
import VarveStore
import SystemPackage

/// How a command ends, for whoever scripts it.
enum ExitStatus: Int32 {
    case done = 0
    case failed = 1
    /// Wrong usage.
    case usage = 2
    /// The image, layer or stream is not valid, or not what its digest says.
    case invalidInput = 3
    /// The image, tag, chain, snapshot or bundle is not there.
    case notFound = 4
    /// This host cannot do it: not btrfs, not root, kernel too old.
    case unsupported = 5
    /// A hook program failed.
    case hookFailed = 6
    case noSpace = 7
    /// Interrupted, and cleaned up. After SIGTERM the process ends with 143; see `Interruption`.
    case interrupted = 130

    /// umoci has one code for all that fails.
    func code(of program: Program) -> Int32 {
        switch (program, self) {
        case (.varve, _), (_, .done), (_, .interrupted): rawValue
        case (.umoci, _): ExitStatus.failed.rawValue
        }
    }

    /// What any error of any module means.
    init(_ error: any Error) {
        self =
            switch error {
            case let error as StoreError: Self.of(error.kind)
            case let error as OCIError: Self.of(error.kind)
            case let error as LayerError: Self.of(error)
            case let error as BtrfsError: Self.of(error.errno)
            case let error as TarError: if case .unwritable = error.reason { .failed } else { .invalidInput }
            case let error as CodecError: Self.of(error.reason)
            case let error as PipelineError: Self.of(error)
            case is SendStreamError: .invalidInput
            case is UsageError: .usage
            case let error as OutputError: Self.of(error.errno)
            case let error as Errno: Self.of(error)
            default: .failed
            }
    }

    private static func of(_ kind: StoreError.Kind) -> ExitStatus {
        switch kind {
        case .failed: .failed
        case .usage: .usage
        case .invalidInput: .invalidInput
        case .notFound: .notFound
        case .unsupported: .unsupported
        case .noSpace: .noSpace
        case .hookFailed: .hookFailed
        case .cancelled: .interrupted
        }
    }

    private static func of(_ kind: OCIError.Kind) -> ExitStatus {
        switch kind {
        case .usage: .usage
        case .invalidInput: .invalidInput
        case .notFound: .notFound
        case .alreadyExists, .inUse: .failed
        case .cancelled: .interrupted
        case .io(let errno): of(errno)
        }
    }

    private static func of(_ error: LayerError) -> ExitStatus {
        switch error {
        case .invalidEntry: .invalidInput
        case .unrepresentable, .unmappedOwner, .sourceUnusable, .treeChanged: .failed
        case .mountPoint: .unsupported
        case .system(_, _, let errno): of(errno)
        case .cancelled: .interrupted
        }
    }

    private static func of(_ reason: CodecError.Reason) -> ExitStatus {
        switch reason {
        case .outOfMemory, .encoderFailed: .failed
        default: .invalidInput
        }
    }

    private static func of(_ error: PipelineError) -> ExitStatus {
        switch error {
        case .cancelled: .interrupted
        case .readFailed(_, let errno): of(errno)
        case .longerThan: .invalidInput
        case .noThread: .failed
        }
    }

    /// What the kernel said, where nothing else tells more.
    private static func of(_ errno: Errno) -> ExitStatus {
        switch errno.rawValue {
        case ENOSPC, EDQUOT: .noSpace
        case EPERM, EACCES, ENOTTY, ENOSYS, EOPNOTSUPP: .unsupported
        default: .failed
        }
    }
}
