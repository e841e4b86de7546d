package import BtrfsSendStream
import CBtrfs
import CLinux
import Glibc
import VarveSystem
package import SystemPackage

/// How a subvolume is sent.
package struct SendOptions: Sendable {
    /// With the contents of files; without, every write is an `update_extent` (`BTRFS_SEND_FLAG_NO_FILE_DATA`).
    package var fileData = false
    /// 1, 2 or 3; the kernel answers EPROTO to one that it does not know.
    package var version: UInt32 = 1
    /// Data as it is packed on disk, from version 2 (`BTRFS_SEND_FLAG_COMPRESSED`).
    package var compressed = false

    package init(fileData: Bool = false, version: UInt32 = 1, compressed: Bool = false) {
        self.fileData = fileData
        self.version = version
        self.compressed = compressed
    }
}

/// A send stream as the kernel writes it (`BTRFS_IOC_SEND`), to be read.
///
/// The ioctl blocks until somebody has read everything, so it runs in a thread of its own and writes to a pipe. When
/// this value goes away, the pipe is closed, which ends the ioctl at its next write, and the thread is awaited: from
/// then on the subvolumes can be deleted again.
package struct SendReader: ~Copyable {
    private let send: SendThread

    /// Starts to send `subvolume`, the root of a read-only subvolume: whole, or as the difference to `parent`, the root
    /// of another one. `cloneSources` are further read-only subvolumes that the receiver has. The descriptors are
    /// duplicated. Needs `CAP_SYS_ADMIN` in the first user namespace.
    package init(
        _ subvolume: FileDescriptor, parent: FileDescriptor? = nil, cloneSources: [FileDescriptor] = [],
        options: SendOptions = SendOptions()
    ) throws(BtrfsError) {
        var parentID: UInt64 = 0
        if let parent { parentID = try parent.subvolumeInfo().id }
        var sources = [UInt64]()
        for source in cloneSources { sources.append(try source.subvolumeInfo().id) }
        var flags: UInt64 = 0
        if !options.fileData { flags |= VARVE_SEND_NO_FILE_DATA }
        if options.version != 1 { flags |= VARVE_SEND_VERSION }
        if options.compressed { flags |= VARVE_SEND_COMPRESSED }
        do throws(Errno) {
            send = try SendThread(
                subvolume, parentID: parentID, cloneSources: sources, flags: flags, version: options.version)
        } catch {
            throw BtrfsError(.send, subvolume, errno: error)
        }
    }

    /// Reads up to `buffer.count` bytes; 0 when the stream has ended, well or not: `finish` tells.
    package func read(into buffer: UnsafeMutableRawBufferPointer) throws(BtrfsError) -> Int {
        do throws(Errno) {
            return try unsafe send.read(into: buffer)
        } catch {
            throw send.error(error)
        }
    }

    /// Stops reading, waits for the kernel, and throws if it did not come to its end without an error; EPIPE if there
    /// was more to read.
    package consuming func finish() throws(BtrfsError) {
        if let errno = send.finish() { throw send.error(errno) }
    }

    /// Reads and parses the whole stream. Throws `BtrfsError` if the kernel failed, `SendStreamError` if the stream is
    /// wrong, or what `body` throws.
    package consuming func forEachCommand(_ body: (SendCommand) throws -> Void) throws {
        var parser = SendStreamParser(bufferSize: 1 << 20)
        var ended = false
        while !ended {
            ended = try unsafe parser.fill { buffer throws(BtrfsError) in try unsafe read(into: buffer) } == 0
            while let command = try parser.next() { try body(command) }
        }
        // The kernel's error says more than that the stream is cut off.
        try finish()
        try parser.finish()
    }
}

/// The thread in which the ioctl runs, with all that it needs.
private final class SendThread {
    /// What the thread works with; it has its own reference.
    private final class Job: @unchecked Sendable {
        let subvolume: OwnedDescriptor
        var output: OwnedDescriptor?
        let parentID: UInt64
        let cloneSources: [UInt64]
        let flags: UInt64
        let version: UInt32
        /// Written by the thread, read after it has been joined.
        var failure: Errno?

        init(
            subvolume: consuming OwnedDescriptor, output: consuming OwnedDescriptor, parentID: UInt64,
            cloneSources: [UInt64], flags: UInt64, version: UInt32
        ) {
            self.subvolume = subvolume
            self.output = consume output
            self.parentID = parentID
            self.cloneSources = cloneSources
            self.flags = flags
            self.version = version
        }

        func run() {
            // The kernel sends SIGPIPE to this thread when the reader is gone; blocked, as all signals are in a worker,
            // it dies with the thread.
            guard let output = output.take() else { return }
            while true {
                let result = unsafe cloneSources.withUnsafeBufferPointer { sources in
                    unsafe varve_btrfs_send(
                        subvolume.fd.rawValue, output.fd.rawValue, parentID, sources.baseAddress,
                        sources.count,
                        flags, version)
                }
                if result == 0 { return }
                failure = Errno(rawValue: errno)
                return
            }
        }
    }

    private let job: Job
    private var input: OwnedDescriptor?
    private var thread: WorkerThread?
    private let subvolume: FileDescriptor

    init(
        _ subvolume: FileDescriptor, parentID: UInt64, cloneSources: [UInt64], flags: UInt64, version: UInt32
    ) throws(Errno) {
        let duplicate = fcntl(subvolume.rawValue, F_DUPFD_CLOEXEC, 0)
        guard duplicate >= 0 else { throw Errno(rawValue: errno) }
        let owned = OwnedDescriptor(owning: FileDescriptor(rawValue: duplicate))
        var ends: (CInt, CInt) = (-1, -1)
        let made = unsafe withUnsafeMutableBytes(of: &ends) { raw in
            unsafe raw.baseAddress.map { unsafe varve_pipe($0.assumingMemoryBound(to: CInt.self)) } ?? -1
        }
        guard made == 0 else { throw Errno(rawValue: errno) }
        let input = OwnedDescriptor(owning: FileDescriptor(rawValue: ends.0))
        let output = OwnedDescriptor(owning: FileDescriptor(rawValue: ends.1))
        // Fewer switches between the threads. Beyond fs.pipe-max-size it fails, and the default of 64 KiB will do.
        _ = varve_set_pipe_size(ends.1, 1 << 20)

        self.subvolume = FileDescriptor(rawValue: duplicate)
        job = Job(
            subvolume: owned, output: output, parentID: parentID, cloneSources: cloneSources, flags: flags,
            version: version)
        self.input = consume input
        self.thread = try WorkerThread(name: "varve-send") { [job] in job.run() }
    }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        let fd = input?.fd
        guard let fd else { return 0 }
        return try unsafe fd.readSome(into: buffer)
    }

    func finish() -> Errno? {
        if input != nil { input = nil }
        thread?.join()
        return job.failure
    }

    func error(_ errno: Errno) -> BtrfsError { BtrfsError(.send, subvolume, errno: errno) }

    deinit { _ = finish() }
}
