import CBtrfs
import Glibc
public import SystemPackage

/// How a program ended.
public struct ProgramOutcome: Sendable {
    /// Its exit status, or 128 and the number of the signal that ended it.
    public var status: Int32
    /// Up to 64 KiB of what it wrote to its standard error.
    public var errorOutput: [UInt8]

    /// The last line that says something, for a message.
    public var lastWords: String {
        let lines = errorOutput.split(separator: UInt8(ascii: "\n")).filter { !$0.isEmpty }
        return lines.last.map { BytePath.escape($0) } ?? "it ended with status \(status)"
    }
}

/// Runs a program found by `PATH` to its end, with no standard input and its standard output thrown away
/// (posix_spawnp(3)). ENOENT if there is no such program.
public func runProgram(_ arguments: [BytePath]) throws(Errno) -> ProgramOutcome {
    guard let program = arguments.first else { throw .invalidArgument }
    var ends: (CInt, CInt) = (-1, -1)
    let made = unsafe withUnsafeMutableBytes(of: &ends) { raw in
        unsafe raw.baseAddress.map { unsafe varve_pipe($0.assumingMemoryBound(to: CInt.self)) } ?? -1
    }
    guard made == 0 else { throw Errno(rawValue: errno) }
    let reading = OwnedDescriptor(owning: FileDescriptor(rawValue: ends.0))
    var writing: OwnedDescriptor? = OwnedDescriptor(owning: FileDescriptor(rawValue: ends.1))

    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    unsafe posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
    unsafe posix_spawn_file_actions_adddup2(&actions, ends.1, 2)

    var pid: pid_t = 0
    let copies = unsafe arguments.map { argument in unsafe argument.withCString { unsafe strdup($0) } }
    defer { unsafe copies.forEach { copy in unsafe free(copy) } }
    var vector = unsafe copies
    unsafe vector.append(nil)
    let failure = unsafe program.withCString { name in
        unsafe posix_spawnp(&pid, name, &actions, nil, &vector, environ)
    }
    guard failure == 0 else { throw Errno(rawValue: failure) }
    writing = nil
    extendLifetime(writing)

    var output: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4096)
    while true {
        let count = unsafe buffer.withUnsafeMutableBytes {
            unsafe Glibc.read(reading.fd.rawValue, $0.baseAddress, $0.count)
        }
        if count < 0, errno == EINTR { continue }
        if count <= 0 { break }
        if output.count < 64 << 10 { output.append(contentsOf: buffer[..<count]) }
    }
    var status: CInt = 0
    while unsafe waitpid(pid, &status, 0) < 0 {
        if errno != EINTR { throw Errno(rawValue: errno) }
    }
    // WIFEXITED, WEXITSTATUS and WTERMSIG of wait(2).
    let ended = status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f)
    return ProgramOutcome(status: ended, errorOutput: output)
}
