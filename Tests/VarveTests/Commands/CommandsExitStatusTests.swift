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
        var code: VarveError.Code
        var description: String { "\(code): \(error)" }
        init(_ error: any Error, _ code: VarveError.Code) {
            self.error = error
            self.code = code
        }
    }

    private static let cases = [
        Case(CancellationError(), .interrupted),
        Case(VarveError.system("x", "y", .canceled), .interrupted),
        Case(VarveError.system("x", "y", Errno(rawValue: ENOSPC)), .noSpace),
        Case(VarveError.system("x", "y", Errno(rawValue: EDQUOT)), .noSpace),
        Case(VarveError.system("x", "y", .notPermitted), .unsupported),
        Case(VarveError.system("x", "y", Errno(rawValue: ENOTTY)), .unsupported),
        Case(VarveError.system("x", "y", Errno(rawValue: ENOSYS)), .unsupported),
        Case(VarveError.system("x", "y", .ioError), .failed),
        Case(OCIError(.usage, ""), .usage),
        Case(OCIError(.invalidInput, ""), .invalidInput),
        Case(OCIError(.notFound, ""), .notFound),
        Case(OCIError(.alreadyExists, ""), .failed),
        Case(OCIError(.inUse, ""), .failed),
        Case(OCIError(.io(Errno(rawValue: ENOSPC)), ""), .noSpace),
        Case(OCIError(.io(.permissionDenied), ""), .unsupported),
        Case(OCIError(.io(.ioError), ""), .failed),
        Case(LayerError.invalidEntry(path: "a", reason: ""), .invalidInput),
        Case(LayerError.unrepresentable(path: "a", reason: "", remedy: .removeACL), .failed),
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
        Case(CommandError(""), .usage),
        Case(OutputError(errno: Errno(rawValue: ENOSPC)), .noSpace),
        Case(Errno.permissionDenied, .unsupported),
        Case(Errno.ioError, .failed),
    ]

    @Test(arguments: cases) func code(_ test: Case) {
        #expect(ErrorReport(test.error).code == test.code)
    }

    @Test("An error of the library keeps its code", arguments: VarveError.Code.allCases)
    func code(_ code: VarveError.Code) { #expect(ErrorReport(VarveError(code, "")).code == code) }

    /// The numbers are what scripts test for.
    @Test("Codes and exit codes are one to one") func numbers() {
        #expect(
            VarveError.Code.allCases.map { "\($0) \($0.exitCode)" } == [
                "failed 1", "usage 2", "invalidInput 3", "notFound 4", "unsupported 5", "hookFailed 6",
                "noSpace 7", "interrupted 130",
            ])
        #expect(VarveError.Code.allCases.map { Program.umoci.exitCode($0) } == [1, 1, 1, 1, 1, 1, 1, 130])
    }
}
