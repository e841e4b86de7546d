import Glibc

/// Reads the commands of a send stream from a file, a pipe or a socket.
///
/// ```swift
/// var stream = SendStreamReader(fileDescriptor: 0)
/// while let command = try stream.next() { print(command) }
/// ```
///
/// `next` blocks its thread until the other side has written a whole command. An `async` program reads an
/// `AsyncSequence` instead: ``SendCommands``.
public struct SendStreamReader: ~Copyable, Sendable {
    private let fileDescriptor: Int32
    private var parser: SendStreamParser
    private var isAtEnd = false

    /// Reads from an open descriptor, from its current offset on. The caller keeps it open, and closes it afterwards.
    /// - Parameters:
    ///   - fileDescriptor: what is read, from its current offset on.
    ///   - bufferSize: bytes that one read(2) asks for at most, at least 4,096. The buffer grows for a longer
    ///     command.
    public init(fileDescriptor: Int32, bufferSize: Int = 1 << 20) {
        self.fileDescriptor = fileDescriptor
        parser = SendStreamParser(bufferSize: bufferSize)
    }

    /// The version of the stream that is being read: 1, 2 or 3; 0 before the first command.
    public var version: UInt32 { parser.version }

    /// The next command; nil when the file has ended and the last stream in it is complete.
    ///
    /// After an error every further call throws the same error. A descriptor that does not block is refused with
    /// `EAGAIN` when it has nothing yet.
    /// - Throws: ``SendStreamError``: the stream is wrong, or read(2) failed (``SendStreamError/Reason/cannotRead(errno:)``).
    public mutating func next() throws(SendStreamError) -> SendCommand? {
        while true {
            if let command = try parser.next() { return command }
            if !isAtEnd { isAtEnd = try !fill() }
            if isAtEnd {
                try parser.finish()
                return nil
            }
        }
    }

    private struct ReadFailure: Error { var errno: Int32 }

    /// False at the end of the file.
    private mutating func fill() throws(SendStreamError) -> Bool {
        let fileDescriptor = fileDescriptor
        do throws(ReadFailure) {
            return try unsafe parser.fill { (buffer) throws(ReadFailure) in
                while true {
                    let count = unsafe read(fileDescriptor, buffer.baseAddress, buffer.count)
                    if count >= 0 { return count }
                    if errno != EINTR { throw ReadFailure(errno: errno) }
                }
            } > 0
        } catch {
            throw parser.fail(.cannotRead(errno: error.errno))
        }
    }
}
