package import SystemPackage
package import VarveSystem

/// Why a pipeline could not hand on the bytes of a stream.
package enum PipelineError: Error, Hashable, CustomStringConvertible {
    /// The stream was cancelled before its end.
    case cancelled
    /// read(2) failed after so many bytes of the file.
    case readFailed(offset: Int64, Errno)
    /// The file goes on behind the number of bytes that it should have.
    case longerThan(limit: Int64)
    /// The machine gave no thread for the work.
    case noThread(Errno)

    package var description: String { VarveError.sentence(reason, remedy) }

    /// What was being done, and why it failed.
    package var reason: String {
        switch self {
        case .cancelled: "the stream was cancelled before its end; what was made from it is incomplete"
        case .readFailed(let offset, let error): "cannot read the file at byte \(offset): \(error)"
        case .longerThan(let limit):
            "the file has more than the \(limit) bytes that it should have"
        case .noThread(let error): "cannot start a thread: \(error)"
        }
    }

    package var remedy: VarveError.Remedy? {
        switch self {
        case .cancelled: nil
        case .readFailed: .replaceLayer("check the disk and try again")
        case .longerThan: .replaceLayer("it is not the one that was asked for, fetch it again")
        case .noThread: .raiseLimit(.processes)
        }
    }
}
