import VarveFormats
import Glibc
import Synchronization
package import VarveSystem
package import SystemPackage

/// Where a command's output goes.
package struct OutputSink: Sendable {
    let write: @Sendable ([UInt8]) throws(Errno) -> Void

    package init(_ write: @escaping @Sendable ([UInt8]) throws(Errno) -> Void) { self.write = write }

    /// A descriptor, which stays the caller's.
    ///
    /// - Parameter cancellation: ends a wait for whoever reads.
    package static func descriptor(_ fd: FileDescriptor, _ cancellation: Cancellation = Cancellation())
        -> OutputSink
    {
        let waits = fd.waitsForReader
        return OutputSink { (bytes) throws(Errno) in
            if waits {
                try fd.writeFull(waiting: bytes, cancellation)
            } else {
                try fd.writeFull(bytes)
            }
        }
    }
}

/// Standard output cannot be written.
struct OutputError: Error, CustomStringConvertible {
    var errno: Errno

    /// The reader has gone away, as `head` does: it has what it wanted, and nobody is told.
    var isClosedPipe: Bool { errno == .brokenPipe }
    var description: String { "cannot write to standard output: \(errno)" }
}

/// The results of a command on their way to standard output, in large pieces.
final class ResultWriter {
    private static let size = 256 << 10
    private let sink: OutputSink
    private var buffer: [UInt8] = []

    init(_ sink: OutputSink) { self.sink = sink }

    /// Writes text of this program's own, and JSON.
    func write(_ text: String) throws(OutputError) { try write { $0.append(contentsOf: text.utf8) } }

    /// Writes lines for a person. Whatever is in them and comes from elsewhere cannot steer a terminal (`ShownText`); where a
    /// name must be told from its escapes, or may hold a newline, it was escaped before.
    func show(_ lines: String) throws(OutputError) {
        try write { buffer in
            ShownText.append(
                Array(lines.utf8)[...], to: &buffer, escapesBackslash: false, keepsNewlines: true)
        }
    }

    func write(_ bytes: [UInt8]) throws(OutputError) { try write { $0.append(contentsOf: bytes) } }

    /// Lets `append` add bytes, a line or so.
    func write(_ append: (inout [UInt8]) -> Void) throws(OutputError) {
        append(&buffer)
        if buffer.count >= Self.size { try flush() }
    }

    func flush() throws(OutputError) {
        guard !buffer.isEmpty else { return }
        // Gone in any case: what could not be written is not tried again.
        defer { buffer.removeAll(keepingCapacity: true) }
        do throws(Errno) { try sink.write(buffer) } catch { throw OutputError(errno: error) }
    }
}
