import BtrfsSendStream
import Glibc
import VarveStore
package import VarveSystem
package import SystemPackage

/// Prints a btrfs send stream, one command a line.
package struct SendStreamDump {
    private let path: BytePath
    private let format: SendStreams.Format

    /// - Parameter path: what errors call the stream.
    package init(of path: BytePath, _ format: SendStreams.Format) {
        self.path = path
        self.format = format
    }

    /// Reads a stream to its end.
    ///
    /// - Parameters:
    ///   - willRead: called before each read; throws to stop.
    ///   - line: called with each command, without a newline.
    package func run(
        from descriptor: FileDescriptor, willRead: () throws -> Void, line: (String) throws -> Void
    ) throws {
        var parser = SendStreamParser(bufferSize: 1 << 20)
        while true {
            try willRead()
            let count = try reading { () throws(Errno) in
                try unsafe parser.fill { (buffer) throws(Errno) in
                    try unsafe descriptor.readSome(into: buffer)
                }
            }
            if count == 0 { break }
            while let command = try parser.next() {
                switch format {
                case .text: try line(SendStreamPrinter.text(command))
                case .json: try line(SendStreamPrinter.json(command))
                }
            }
        }
        try parser.finish()
    }

    private func reading<R>(_ body: () throws(Errno) -> R) throws(VarveError) -> R {
        do throws(Errno) { return try body() } catch {
            throw VarveError.system("read the send stream", path, error)
        }
    }
}
