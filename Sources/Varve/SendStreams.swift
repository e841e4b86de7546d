import Glibc
public import VarveStore
public import VarveSystem
import SystemPackage

/// Btrfs send streams. The parser is a product of its own, `BtrfsSendStream`.
public enum SendStreams {
    /// How commands are shown.
    public enum Format: Sendable {
        /// For people.
        case text
        /// One object for each command.
        case json
    }

    /// Prints a send stream, versions 1 to 3, one command a line. Contents of files are shown as their length.
    ///
    /// - Parameters:
    ///   - file: a file, or a pipe, which is read as it is filled.
    ///   - format: text, or an object of JSON for each command.
    ///   - workshop: the threads and the memory of this call and of all calls of the store.
    ///   - line: called with each line, without its newline, in order, from a thread of the call. It returns at once; what
    ///     it throws ends the call.
    /// - Throws: `VarveError`: `invalidInput` for a stream that is not valid, `notFound` if there is no such file. What `line` throws
    ///   is the cause of one with the code `failed`.
    public static func dump(
        _ file: BytePath, as format: Format = .text, workshop: Workshop = .shared,
        to line: @escaping @Sendable (String) throws -> Void
    ) async throws {
        try await workshop.run { place in
            let opened: SharedDescriptor
            do throws(Errno) {
                // A pipe may have no writer yet.
                opened = SharedDescriptor(
                    try FileDescriptor.workingDirectory.open(file, [.readOnly, .nonBlocking]))
            } catch {
                throw VarveError.system("open the send stream", file, error)
            }
            try SendStreamDump(of: file, format).run(
                from: opened.fd,
                willRead: {
                    // Always "readable" for a regular file (poll(2)).
                    while true {
                        try place.cancellation.check()
                        var request = pollfd(fd: opened.fd.rawValue, events: Int16(POLLIN), revents: 0)
                        if unsafe poll(&request, 1, 50) > 0 { break }
                    }
                }, line: line)
        }
    }
}
