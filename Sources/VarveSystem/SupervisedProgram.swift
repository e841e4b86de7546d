import CLinux
import Glibc
import Synchronization
import SystemPackage

/// A program that is run to its end, or to the end of the caller's patience, in a process group of its own.
///
/// Whatever happens, nothing of it is left when `run` returns: the group is killed (SIGTERM, and SIGKILL `grace` later
/// if that was not enough) and the program reaped. What it left running in the background in its group goes too; a
/// daemon that made a session of its own (setsid(2)) stays.
package struct SupervisedProgram: Sendable {
    /// The program, found by `PATH` if it holds no slash, and its arguments.
    package var arguments: [BytePath]
    /// Its standard input, whole.
    package var input: [UInt8]
    /// Bytes of standard output; one more, and the program is killed.
    package var outputLimit: Int
    /// Bytes of standard error that are passed on; what comes after them is thrown away.
    package var errorLimit = 1 << 20
    package var timeLimit: Duration
    /// Between asking the program to end and ending it.
    package var grace = Duration.seconds(2)

    package init(arguments: [BytePath], input: [UInt8], outputLimit: Int, timeLimit: Duration) {
        self.arguments = arguments
        self.input = input
        self.outputLimit = outputLimit
        self.timeLimit = timeLimit
    }

    /// How the program ended.
    package enum Ending: Sendable, Hashable {
        case exited(status: Int32)
        case killed(signal: Int32)
        /// It was still running when its time was up.
        case timedOut
        /// It wrote more than `outputLimit`.
        case flooded
    }

    package struct Outcome: Sendable {
        package var ending: Ending
        package var output: [UInt8]
        /// The last line of standard error that says something.
        package var lastWords: String?
    }

    /// The path of a program that is root's or the caller's, and that others can change neither by itself nor by putting another
    /// in its place. One without a slash is looked for in the directories of `PATH`, as execvp(3) does.
    package static func ownProgram(_ name: BytePath) throws(PlaceError) -> BytePath {
        if name.bytes.contains(UInt8(ascii: "/")) {
            _ = try Place.ownFile(name, .path)
            return name
        }
        let variable =
            unsafe getenv("PATH").map { unsafe Array(UnsafeRawBufferPointer(start: $0, count: strlen($0))) }
            ?? Array("/bin:/usr/bin".utf8)
        for directory in variable.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false) {
            let candidate = (BytePath(directory) ?? .empty).appending(name)
            let path = candidate.count == name.count ? BytePath("./").appendingBytes(name) : candidate
            let isProgram = unsafe path.withCString { unsafe access($0, X_OK) } == 0
            guard isProgram else { continue }
            // A directory of that name is passed over.
            do throws(PlaceError) { _ = try Place.ownFile(path, .path) } catch {
                if error.errno == .isDirectory { continue }
                throw error
            }
            return path
        }
        throw PlaceError(path: name, reason: .system(operation: "find", .noSuchFileOrDirectory))
    }

    /// Makes what `killRunning` uses.
    package static func prepareKilling() { RunningGroup.clear(-1) }

    /// Kills the group of the program that runs just now, without a word to it. Safe in a signal handler: for a process that
    /// ends at once.
    package static func killRunning() { RunningGroup.killNow() }

    /// Runs the program.
    ///
    /// - Parameters:
    ///   - onErrorOutput: gets whole lines of standard error, newlines included, as they come; the last may have none.
    ///   - whileRunning: called about 20 times a second with the number of the process, which is not reaped yet; what it throws ends
    ///     the program, and is thrown again.
    ///   - check: called about 20 times a second; what it throws ends the program, and is thrown again.
    /// - Throws: `Errno` if the program cannot be started; what `check` throws.
    package func run(
        onErrorOutput: ([UInt8]) -> Void = { _ in }, whileRunning: (Int32) throws -> Void = { _ in },
        check: () throws -> Void = {}
    ) throws -> Outcome {
        try check()
        let output = try Pipe()
        let errors = try Pipe()
        let pid = try start(output: output, errors: errors)
        output.closeWritingEnd()
        errors.closeWritingEnd()
        var child = RunningChild(pid)
        RunningGroup.set(pid)
        let deadline = ContinuousClock.now + timeLimit

        var collected: [UInt8] = []
        var lines = LineForwarding(limit: errorLimit)
        func drain() throws(Errno) -> Bool {
            var isFlooded = false
            try output.drain { bytes in
                isFlooded = isFlooded || collected.count + bytes.count > outputLimit
                if !isFlooded { collected.append(contentsOf: bytes) }
                return !isFlooded
            }
            try errors.drain { bytes in
                lines.add(bytes, onErrorOutput)
                return true
            }
            return isFlooded
        }
        do {
            var early: Ending?
            while try !child.wait(besides: [output, errors], milliseconds: 50) {
                if try drain() { early = .flooded }
                if ContinuousClock.now >= deadline { early = .timedOut }
                if early != nil { break }
                try whileRunning(pid)
                try check()
            }
            if early != nil { try stop(&child, output, errors) }
            let status = try child.end()
            // What it wrote last is still in the pipes.
            if try drain(), early == nil { early = .flooded }
            lines.end(onErrorOutput)
            let ending =
                early ?? (status.signal == 0 ? .exited(status: status.code) : .killed(signal: status.signal))
            return Outcome(ending: ending, output: collected, lastWords: lines.lastWords)
        } catch {
            try? stop(&child, output, errors)
            _ = try? child.end()
            throw error
        }
    }

    /// Asks the group to end, and waits for the program as long as `grace`; nobody hears what it says meanwhile.
    private func stop(_ child: inout RunningChild, _ output: Pipe, _ errors: Pipe) throws(Errno) {
        child.signalGroup(SIGTERM)
        let end = ContinuousClock.now + grace
        while ContinuousClock.now < end {
            if try child.wait(besides: [output, errors], milliseconds: 50) { return }
            try output.drain { _ in true }
            try errors.drain { _ in true }
        }
    }

    private func start(output: Pipe, errors: Pipe) throws(Errno) -> pid_t {
        // A file, not a pipe: nothing waits for a program that does not read, and there is no SIGPIPE.
        let descriptor = unsafe BytePath("input").withCString { unsafe varve_memfd($0) }
        guard descriptor >= 0 else { throw Errno(rawValue: errno) }
        let inputFile = OwnedDescriptor(owning: FileDescriptor(rawValue: descriptor))
        try inputFile.fd.writeFull(input)
        guard lseek(descriptor, 0, SEEK_SET) >= 0 else { throw Errno(rawValue: errno) }

        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_adddup2(&actions, descriptor, 0)
        unsafe posix_spawn_file_actions_adddup2(&actions, output.writing, 1)
        unsafe posix_spawn_file_actions_adddup2(&actions, errors.writing, 2)

        let pid = try unsafe RunningChild.start(arguments, &actions, inOwnGroup: true)
        extendLifetime(inputFile)
        return pid
    }
}

/// The process group of the program that runs, for a signal handler. The command runs one at a time; of several that a
/// library's user runs at once, the last is known.
enum RunningGroup {
    private static let group = Atomic<Int32>(0)

    static func set(_ pid: pid_t) { group.store(pid, ordering: .sequentiallyConsistent) }

    /// To be called while the program is not reaped yet: until then its number is no other's.
    static func clear(_ pid: pid_t) {
        _ = group.compareExchange(expected: pid, desired: 0, ordering: .sequentiallyConsistent)
    }

    static func killNow() {
        let pid = group.load(ordering: .sequentiallyConsistent)
        if pid > 0 { _ = kill(-pid, SIGKILL) }
    }
}

/// A pipe whose reading end never blocks.
final class Pipe {
    let reading: CInt
    private(set) var writing: CInt
    private(set) var isAtEnd = false

    init() throws(Errno) {
        var ends: (CInt, CInt) = (-1, -1)
        let made = unsafe withUnsafeMutableBytes(of: &ends) { raw in
            unsafe raw.baseAddress.map { unsafe varve_pipe($0.assumingMemoryBound(to: CInt.self)) } ?? -1
        }
        guard made == 0 else { throw Errno(rawValue: errno) }
        reading = ends.0
        writing = ends.1
        guard fcntl(reading, F_SETFL, O_NONBLOCK) == 0 else { throw Errno(rawValue: errno) }
    }

    deinit {
        _ = Glibc.close(reading)
        closeWritingEnd()
    }

    func closeWritingEnd() {
        if writing >= 0 { _ = Glibc.close(writing) }
        writing = -1
    }

    /// Reads what is there now; `take` says whether to go on.
    func drain(_ take: (ArraySlice<UInt8>) -> Bool) throws(Errno) {
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        // Whoever writes faster than this reads must not keep the caller from looking at the clock.
        for _ in 0..<16 where !isAtEnd {
            let count = unsafe buffer.withUnsafeMutableBytes {
                unsafe Glibc.read(reading, $0.baseAddress, $0.count)
            }
            if count < 0 {
                if errno == EAGAIN { return }
                if errno == EINTR { continue }
                throw Errno(rawValue: errno)
            }
            if count == 0 { isAtEnd = true }
            if count > 0, !take(buffer[..<count]) { return }
        }
    }
}

/// Standard error on its way to the user, line by line, and the last line kept for a message.
private struct LineForwarding {
    private static let lineLimit = 8 << 10
    private var left: Int
    private var pending: [UInt8] = []
    private var last: [UInt8] = []

    init(limit: Int) { left = limit }

    var lastWords: String? { last.isEmpty ? nil : BytePath.escape(last) }

    mutating func add(_ bytes: ArraySlice<UInt8>, _ forward: ([UInt8]) -> Void) {
        for byte in bytes {
            pending.append(byte)
            if byte == UInt8(ascii: "\n") || pending.count >= Self.lineLimit { flush(forward) }
        }
    }

    mutating func end(_ forward: ([UInt8]) -> Void) { flush(forward) }

    private mutating func flush(_ forward: ([UInt8]) -> Void) {
        if pending.isEmpty { return }
        let line = pending
        pending.removeAll(keepingCapacity: true)
        let words = line.filter { $0 != UInt8(ascii: "\n") && $0 != UInt8(ascii: "\r") }
        if words.contains(where: { $0 != 0x20 && $0 != 0x09 }) { last = Array(words.prefix(400)) }
        guard left > 0 else { return }
        forward(Array(line.prefix(left)))
        left -= line.count
        if left <= 0 { forward(Array("\n(the rest of what it says is not shown)\n".utf8)) }
    }
}
