import Glibc
package import VarveSystem
package import SystemPackage

/// The bytes of an open file, read in large pieces.
///
/// A regular file is read with pread(2) from its start, so that the position of the descriptor neither
/// matters nor moves; anything else (a pipe, a terminal) with read(2).
@safe
package final class FileSource: FillableSource {
    /// Bytes of one read: more does not read faster from a file system and costs cache.
    package static let pieceSize = 256 * 1024

    private let fd: FileDescriptor
    private let owner: SharedDescriptor?
    private let limit: Int64
    private let isRegular: Bool
    private let cancellation: Cancellation
    private var offset: Int64 = 0
    private var atEnd = false
    private var buffer: AlignedBuffer?

    /// Reads `fd`, which must stay open as long as this source.
    /// - Parameter limit: the bytes that the file may have, for a blob the `size` of its descriptor; a file
    ///   with more gives `PipelineError.longerThan` after that many bytes. Nil: as many as there are.
    package convenience init(_ fd: FileDescriptor, limit: Int64? = nil) {
        self.init(fd: fd, owner: nil, limit: limit, cancellation: Cancellation())
    }

    /// Reads a file and keeps it open as long as it has to.
    /// - Parameter cancellation: ends the reading, also a wait for what others write into a pipe or a FIFO, with
    ///   `PipelineError.cancelled`.
    package convenience init(
        _ file: SharedDescriptor, limit: Int64? = nil, cancellation: Cancellation = Cancellation()
    ) {
        self.init(fd: file.fd, owner: file, limit: limit, cancellation: cancellation)
    }

    private init(fd: FileDescriptor, owner: SharedDescriptor?, limit: Int64?, cancellation: Cancellation) {
        self.cancellation = cancellation
        self.fd = fd
        self.owner = owner
        self.limit = max(0, limit ?? .max)
        isRegular = (try? fd.status().isRegular) ?? false
        // Doubles the read-ahead of the kernel (posix_fadvise(2)). It is advice: an error has no consequence.
        if isRegular { _ = posix_fadvise(fd.rawValue, 0, 0, POSIX_FADV_SEQUENTIAL) }
    }

    package func next() throws -> UnsafeRawBufferPointer {
        let buffer = self.buffer ?? AlignedBuffer(count: Self.pieceSize)
        self.buffer = buffer
        let count = try unsafe fill(buffer.bytes)
        return unsafe UnsafeRawBufferPointer(rebasing: buffer.bytes[..<count])
    }

    package func fill(_ buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        if atEnd { return 0 }
        let room = limit - offset
        if room == 0 {
            try requireEnd()
            return 0
        }
        let piece = unsafe UnsafeMutableRawBufferPointer(
            rebasing: buffer[..<Int(min(Int64(buffer.count), room))])
        let count = try unsafe read(into: piece)
        offset += Int64(count)
        if count < piece.count { atEnd = true }
        return count
    }

    /// At the limit: one byte more is one too many.
    private func requireEnd() throws {
        let more = try unsafe withUnsafeTemporaryAllocation(byteCount: 1, alignment: 1) {
            try unsafe read(into: $0)
        }
        if more != 0 { throw PipelineError.longerThan(limit: limit) }
        atEnd = true
    }

    private func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        if cancellation.isCancelled { throw PipelineError.cancelled }
        do throws(Errno) {
            return unsafe isRegular
                ? try fd.readFull(into: buffer, at: offset) : try fd.readFull(into: buffer, cancellation)
        } catch .canceled {
            throw PipelineError.cancelled
        } catch {
            throw PipelineError.readFailed(offset: offset, error)
        }
    }
}
