import VarveArchive
import VarveBtrfs
import Glibc
import VarveLayers
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage
import Testing

@testable import VarveCommands

@Suite struct CommandsExitStatusTests {
    struct Case: CustomStringConvertible {
        var error: any Error
        var status: VarveCommands.ExitStatus
        var description: String { "\(status): \(error)" }
        init(_ error: any Error, _ status: VarveCommands.ExitStatus) {
            self.error = error
            self.status = status
        }
    }

    private static let cases = [
        Case(StoreError(.failed, ""), .failed),
        Case(StoreError(.usage, ""), .usage),
        Case(StoreError(.invalidInput, ""), .invalidInput),
        Case(StoreError(.notFound, ""), .notFound),
        Case(StoreError(.unsupported, ""), .unsupported),
        Case(StoreError(.noSpace, ""), .noSpace),
        Case(StoreError(.cancelled, ""), .interrupted),
        Case(StoreError.system("x", "y", Errno(rawValue: ENOSPC)), .noSpace),
        Case(StoreError.system("x", "y", Errno(rawValue: EDQUOT)), .noSpace),
        Case(StoreError.system("x", "y", .notPermitted), .unsupported),
        Case(StoreError.system("x", "y", Errno(rawValue: ENOTTY)), .unsupported),
        Case(StoreError.system("x", "y", Errno(rawValue: ENOSYS)), .unsupported),
        Case(StoreError.system("x", "y", .ioError), .failed),
        Case(OCIError(.usage, ""), .usage),
        Case(OCIError(.invalidInput, ""), .invalidInput),
        Case(OCIError(.notFound, ""), .notFound),
        Case(OCIError(.alreadyExists, ""), .failed),
        Case(OCIError(.inUse, ""), .failed),
        Case(OCIError(.io(Errno(rawValue: ENOSPC)), ""), .noSpace),
        Case(OCIError(.io(.permissionDenied), ""), .unsupported),
        Case(OCIError(.io(.ioError), ""), .failed),
        Case(LayerError.invalidEntry(path: "a", reason: ""), .invalidInput),
        Case(LayerError.unrepresentable(path: "a", reason: "", remedy: ""), .failed),
        Case(LayerError.sourceUnusable(source: "", reason: ""), .failed),
        Case(LayerError.system(operation: "", path: "a", errno: Errno(rawValue: EDQUOT)), .noSpace),
        Case(LayerError.system(operation: "", path: "a", errno: .notPermitted), .unsupported),
        Case(LayerError.cancelled, .interrupted),
        Case(BtrfsError(.snapshot, path: "a", errno: Errno(rawValue: ENOSPC)), .noSpace),
        Case(BtrfsError(.send, path: "a", errno: .notPermitted), .unsupported),
        Case(BtrfsError(.readInfo, path: "a", errno: Errno(rawValue: ENOTTY)), .unsupported),
        Case(BtrfsError(.search, path: "a", errno: .ioError), .failed),
        Case(TarError(offset: 0, entry: nil, reason: .endsEarly), .invalidInput),
        Case(TarError(offset: 0, entry: nil, reason: .unwritable("")), .failed),
        Case(CodecError(.gzip, .truncated, offset: 0), .invalidInput),
        Case(CodecError(.zstd, .outOfMemory, offset: 0), .failed),
        Case(PipelineError.longerThan(limit: 1), .invalidInput),
        Case(PipelineError.readFailed(offset: 0, .ioError), .failed),
        Case(PipelineError.noThread(.resourceTemporarilyUnavailable), .failed),
        Case(PipelineError.cancelled, .interrupted),
        Case(SendStreamError(.empty, offset: 0), .invalidInput),
        Case(UsageError(""), .usage),
        Case(OutputError(errno: Errno(rawValue: ENOSPC)), .noSpace),
        Case(Errno.permissionDenied, .unsupported),
        Case(Errno.ioError, .failed),
    ]

    @Test(arguments: cases) func status(_ test: Case) {
        #expect(VarveCommands.ExitStatus(test.error) == test.status)
    }

    /// The numbers are what scripts test for.
    @Test func numbers() {
        #expect(
            VarveCommands.ExitStatus.done.rawValue == 0 && VarveCommands.ExitStatus.failed.rawValue == 1
                && VarveCommands.ExitStatus.usage.rawValue == 2)
        #expect(
            VarveCommands.ExitStatus.invalidInput.rawValue == 3
                && VarveCommands.ExitStatus.notFound.rawValue == 4)
        #expect(
            VarveCommands.ExitStatus.unsupported.rawValue == 5
                && VarveCommands.ExitStatus.noSpace.rawValue == 7)
        #expect(VarveCommands.ExitStatus.interrupted.rawValue == 130)
    }
}
