import CLinux
import Glibc
package import SystemPackage

/// Whole reads and writes: short counts and EINTR are handled here and nowhere else.
extension FileDescriptor {
    /// read(2) until `buffer` is full or the file ends; returns the bytes read.
    package func readFull(into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        var done = 0
        while done < buffer.count {
            let slice = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
            let count = unsafe Glibc.read(rawValue, slice.baseAddress, slice.count)
            if count < 0 {
                if errno == EINTR { continue }
                throw Errno(rawValue: errno)
            }
            if count == 0 { break }
            done += count
        }
        return done
    }

    /// One read(2), EINTR tried again; 0 at the end.
    package func readSome(into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        while true {
            let count = unsafe Glibc.read(rawValue, buffer.baseAddress, buffer.count)
            if count >= 0 { return count }
            if errno != EINTR { throw Errno(rawValue: errno) }
        }
    }

    /// Waits until there is something to be read or room to write: `POLLIN` or `POLLOUT` of poll(2), or an end of that.
    ///
    /// - Parameter asksFirst: else it waits once before it asks whether to stop.
    /// - Throws: `Errno.canceled` if it was asked to stop.
    private func wait(for event: CInt, _ cancellation: Cancellation, asksFirst: Bool = true) throws(Errno) {
        var asks = asksFirst
        while true {
            if asks, cancellation.isCancelled { throw .canceled }
            asks = true
            var polled = pollfd(fd: rawValue, events: Int16(event), revents: 0)
            let count = unsafe poll(&polled, 1, 100)
            if count > 0 { return }
            if count < 0, errno != EINTR { throw Errno(rawValue: errno) }
        }
    }

    /// read(2) of a pipe, a FIFO or a terminal until `buffer` is full or the other side closed it; returns the bytes read. A FIFO that
    /// nobody has opened for writing yet is waited for, if it was opened with O_NONBLOCK.
    ///
    /// - Throws: `Errno.canceled` if it was asked to stop while it waited (poll(2)).
    package func readFull(
        into buffer: UnsafeMutableRawBufferPointer, _ cancellation: Cancellation
    ) throws(Errno) -> Int {
        var done = 0
        while done < buffer.count {
            try wait(for: POLLIN, cancellation)
            let slice = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
            do throws(Errno) {
                let count = try unsafe readSome(into: slice)
                if count == 0 { break }
                done += count
            } catch .wouldBlock {
                continue
            }
        }
        return done
    }

    /// pread(2) until `buffer` is full or the file ends; returns the bytes read.
    package func readFull(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(Errno) -> Int {
        var done = 0
        while done < buffer.count {
            let slice = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
            let count = unsafe Glibc.pread(rawValue, slice.baseAddress, slice.count, Int(offset) + done)
            if count < 0 {
                if errno == EINTR { continue }
                throw Errno(rawValue: errno)
            }
            if count == 0 { break }
            done += count
        }
        return done
    }

    /// write(2) until everything is written.
    package func writeFull(_ buffer: UnsafeRawBufferPointer) throws(Errno) {
        var done = 0
        while done < buffer.count {
            let slice = unsafe UnsafeRawBufferPointer(rebasing: buffer[done...])
            let count = unsafe Glibc.write(rawValue, slice.baseAddress, slice.count)
            if count < 0 {
                if errno == EINTR { continue }
                throw Errno(rawValue: errno)
            }
            done += count
        }
    }

    /// write(2) to a pipe, a FIFO or a terminal until everything is written. It must have been opened with O_NONBLOCK.
    ///
    /// - Throws: `Errno.canceled` if it was asked to stop while nobody read (poll(2)).
    package func writeFull(_ bytes: [UInt8], _ cancellation: Cancellation) throws(Errno) {
        try writeFull(bytes, pieces: bytes.count) { () throws(Errno) in try wait(for: POLLOUT, cancellation) }
    }

    private func writeFull(_ bytes: [UInt8], pieces size: Int, _ wait: () throws(Errno) -> Void) throws(Errno)
    {
        var rest = bytes[...]
        while !rest.isEmpty {
            try wait()
            let count = unsafe rest.withUnsafeBytes {
                unsafe Glibc.write(rawValue, $0.baseAddress, min($0.count, size))
            }
            if count >= 0 {
                rest = rest.dropFirst(count)
            } else if errno != EINTR, errno != EAGAIN {
                throw Errno(rawValue: errno)
            }
        }
    }

    /// Whether a write waits for somebody who reads: a pipe, a FIFO, a socket or a terminal.
    package var waitsForReader: Bool {
        switch try? status().type {
        case .fifo, .socket: true
        case .characterDevice: isatty(rawValue) == 1
        default: false
        }
    }

    /// write(2) until everything is written to what may have others read it at their leisure, and is not O_NONBLOCK, since it is not this process's
    /// alone. A pipe that can be written to takes PIPE_BUF bytes at once (poll(2), pipe(7)).
    ///
    /// - Throws: `Errno.canceled` if it was asked to stop while nobody read.
    package func writeFull(waiting bytes: [UInt8], _ cancellation: Cancellation) throws(Errno) {
        try writeFull(bytes, pieces: Int(PIPE_BUF)) { () throws(Errno) in
            // What is said of the end is still to be read.
            try wait(for: POLLOUT, cancellation, asksFirst: false)
        }
    }

    /// pwrite(2) until everything is written.
    package func writeFull(_ buffer: UnsafeRawBufferPointer, at offset: Int64) throws(Errno) {
        var done = 0
        while done < buffer.count {
            let slice = unsafe UnsafeRawBufferPointer(rebasing: buffer[done...])
            let count = unsafe Glibc.pwrite(rawValue, slice.baseAddress, slice.count, Int(offset) + done)
            if count < 0 {
                if errno == EINTR { continue }
                throw Errno(rawValue: errno)
            }
            done += count
        }
    }

    /// Has the kernel begin to write to the disk what it holds of this file, and does not wait for it
    /// (sync_file_range(2), SYNC_FILE_RANGE_WRITE). Nothing is promised by that, so an error does not count.
    func startWriting() { _ = varve_start_writing(rawValue) }

    /// write(2) until every byte of `bytes` is written.
    package func writeFull(_ bytes: some Sequence<UInt8>) throws(Errno) {
        let array = Array(bytes)
        let result: Result<Void, Errno> = unsafe array.withUnsafeBytes { buffer in
            do throws(Errno) {
                return .success(try unsafe writeFull(buffer))
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }

    /// The whole of a file from where the descriptor stands. EFBIG if it has more than `limit` bytes: input from
    /// outside never decides how much memory is used.
    package func readAll(limit: Int) throws(Errno) -> [UInt8] {
        var result = [UInt8]()
        let size = min(Int((try? status().size) ?? 0), limit)
        result.reserveCapacity(size + 1)
        var chunk = [UInt8](repeating: 0, count: min(max(size + 1, 4096), 1 << 16))
        while true {
            let outcome: Result<Int, Errno> = unsafe chunk.withUnsafeMutableBytes { buffer in
                do throws(Errno) {
                    return .success(try unsafe readSome(into: buffer))
                } catch {
                    return .failure(error)
                }
            }
            let count = try outcome.get()
            if count == 0 { return result }
            if result.count + count > limit { throw .fileTooLarge }
            result.append(contentsOf: chunk[..<count])
        }
    }

    /// The offset of the next byte of a file, from `offset` on, that lies in no hole; nil if none follows (lseek(2), SEEK_DATA). Where
    /// the file system cannot tell, that is `offset` itself. The descriptor's own offset is moved.
    package func nextData(from offset: Int64) throws(Errno) -> Int64? {
        // SEEK_DATA of linux/fs.h.
        let found = Glibc.lseek(rawValue, Int(offset), 3)
        if found >= 0 { return Int64(found) }
        switch errno {
        case ENXIO: return nil
        case EINVAL: return offset
        default: throw Errno(rawValue: errno)
        }
    }

    /// Whether a regular file has holes: ranges that were never written, cost nothing, and read as zeros (lseek(2), SEEK_HOLE). The
    /// descriptor must be one for reading; it then stands at the beginning.
    package func hasHoles() throws(Errno) -> Bool {
        let size = try status().size
        // SEEK_HOLE of linux/fs.h. There is one at the end of each file.
        let hole = Glibc.lseek(rawValue, 0, 4)
        let failure = errno
        guard Glibc.lseek(rawValue, 0, SEEK_SET) == 0 else { throw Errno(rawValue: errno) }
        // An empty file has none; neither has one on a file system that does not tell.
        guard hole >= 0 else {
            if failure == ENXIO || failure == EINVAL { return false } else { throw Errno(rawValue: failure) }
        }
        return hole < size
    }

    /// The whole regular file `name` in this directory (`openRegularFile`). EFBIG above `limit` bytes.
    package func readFile(_ name: BytePath, limit: Int) throws(Errno) -> [UInt8] {
        let file = try openRegularFile(name)
        return try file.fd.readAll(limit: limit)
    }

    /// Replaces the file `name` in this directory so that after a crash either the old or the new content is there:
    /// temporary file, write, fsync, rename, fsync of the directory.
    ///
    /// - Parameter prepare: is given the new file before it has its name.
    package func writeFileDurably(
        _ name: BytePath, _ contents: [UInt8], mode: UInt32 = 0o644,
        prepare: (FileDescriptor) -> Void = { _ in }
    ) throws(Errno) {
        try replaceFile(
            name, with: contents, mode: mode, prepare: prepare,
            settle: { (file) throws(Errno) in try file.synchronize() })
        try synchronize()
    }

    /// Replaces the file `name` in this directory: temporary file, write, rename.
    ///
    /// - Parameters:
    ///   - prepare: is given the new file before it has content.
    ///   - settle: sees to it that no name comes to the disk without the content.
    ///   - finish: is given the new file once it has its name.
    package func replaceFile(
        _ name: BytePath, with contents: [UInt8], mode: UInt32,
        prepare: (FileDescriptor) -> Void = { _ in },
        settle: (FileDescriptor) throws(Errno) -> Void,
        finish: (FileDescriptor) throws(Errno) -> Void = { (_) throws(Errno) in }
    ) throws(Errno) {
        let temporary = BytePath(".\(name)." + randomName())
        do throws(Errno) {
            let file = try open(temporary, [.writeOnly, .create, .exclusive, .noFollow], mode: mode)
            prepare(file.fd)
            try file.fd.writeFull(contents)
            try settle(file.fd)
            try rename(temporary, to: self, name)
            try finish(file.fd)
            try file.close()
        } catch {
            try? unlink(temporary)
            throw error
        }
    }
}

/// Twelve lower-case letters and digits from the kernel's random source: a name that nobody can guess and plant.
package func randomName() -> String {
    let letters = Array("abcdefghijklmnopqrstuvwxyz0123456789".utf8)
    let base = UInt64(letters.count)
    var number = UInt64.random(in: 0..<(0..<12).reduce(1) { power, _ in power * base })
    let name = (0..<12).map { _ in
        let digit = letters[Int(number % base)]
        number /= base
        return digit
    }
    return String(decoding: name, as: UTF8.self)
}
