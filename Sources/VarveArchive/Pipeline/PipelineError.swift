package import SystemPackage

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

    package var description: String {
        switch self {
        case .cancelled: "the stream was cancelled before its end; what was made from it is incomplete"
        case .readFailed(let offset, let error):
            "cannot read the file at byte \(offset): \(error); check the disk and try again"
        case .longerThan(let limit):
            "the file has more than the \(limit) bytes that it should have; it is not the one that was asked for, "
                + "fetch it again"
        case .noThread(let error):
            "cannot start a thread: \(error); raise the limit of processes (ulimit -u, or TasksMax= of the unit)"
        }
    }
}
