import Glibc
package import VarveSystem
package import SystemPackage

/// How a command ended, with all that it wrote.
package struct CommandResult: Sendable {
    /// The exit code, or 128 plus the signal's number.
    package var status: Int32
    package var output: [UInt8]
    package var errors: [UInt8]
    package var outputText: String { String(decoding: output, as: UTF8.self) }
    package var errorText: String { String(decoding: errors, as: UTF8.self) }
}

/// A test's environment cannot be made, or a command failed; says why.
package struct TestSupportError: Error, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}

/// Runs a program found through `PATH` (and `/usr/sbin`, `/sbin`, where mkfs lies) and waits for it. Input and output
/// go through unnamed temporary files, so no size of either can block. It inherits no descriptor but 0, 1 and 2,
/// and no signal is blocked in it.
package func runCommand(_ arguments: [String], input: [UInt8] = []) throws -> CommandResult {
    let stdin = try temporaryFile()
    let stdout = try temporaryFile()
    let stderr = try temporaryFile()
    try stdin.fd.writeFull(input)
    _ = lseek(stdin.fd.rawValue, 0, SEEK_SET)

    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    unsafe posix_spawn_file_actions_adddup2(&actions, stdin.fd.rawValue, 0)
    unsafe posix_spawn_file_actions_adddup2(&actions, stdout.fd.rawValue, 1)
    unsafe posix_spawn_file_actions_adddup2(&actions, stderr.fd.rawValue, 2)

    // A thread of Dispatch's blocks nearly all signals, and what a program is started with it keeps.
    var attributes = posix_spawnattr_t()
    unsafe posix_spawnattr_init(&attributes)
    defer { unsafe posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    unsafe sigemptyset(&none)
    unsafe posix_spawnattr_setsigmask(&attributes, &none)
    unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))

    let words = unsafe arguments.map { unsafe strdup($0) }
    var path = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
    if let inherited = unsafe getenv("PATH") { path = unsafe String(cString: inherited) + ":" + path }
    let environment = unsafe [strdup("PATH=\(path)"), strdup("LC_ALL=C.UTF-8"), strdup("TZ=UTC")]
    defer {
        unsafe words.forEach { unsafe free($0) }
        unsafe environment.forEach { unsafe free($0) }
    }
    let program = try findProgram(arguments.first ?? "", in: path)
    var pid: pid_t = 0
    let failure = unsafe posix_spawn(
        &pid, program, &actions, &attributes, words + [nil], environment + [nil])
    guard failure == 0 else {
        throw TestSupportError("cannot run \(program): \(Errno(rawValue: failure))")
    }
    var status: Int32 = 0
    while unsafe waitpid(pid, &status, 0) < 0 {
        guard errno == EINTR else { throw TestSupportError("waitpid(\(program)): \(Errno(rawValue: errno))") }
    }
    // wait(2): the low seven bits are the signal, the next byte is the exit code.
    let signal = status & 0x7f
    return CommandResult(
        status: signal == 0 ? (status >> 8) & 0xff : 128 + signal,
        output: try contents(of: stdout), errors: try contents(of: stderr))
}

/// Runs a program and throws, with its own words, if it does not end with 0.
@discardableResult
package func runSuccessfully(_ arguments: [String], input: [UInt8] = []) throws -> CommandResult {
    let result = try runCommand(arguments, input: input)
    guard result.status == 0 else {
        throw TestSupportError(
            "\(arguments.joined(separator: " ")) ended with \(result.status): \(result.errorText)")
    }
    return result
}

/// `$TMPDIR`, or `/var/tmp`, which is on a disk where `/tmp` may be memory.
package func temporaryDirectory() -> BytePath {
    if let directory = unsafe getenv("TMPDIR") {
        let path = unsafe BytePath(String(cString: directory))
        if !path.isEmpty { return path }
    }
    return BytePath("/var/tmp")
}

/// An open file without a name.
package func temporaryFile() throws(Errno) -> OwnedDescriptor {
    let directory = try FileDescriptor.workingDirectory.open(temporaryDirectory(), [.directory])
    let name = BytePath(".varve-test-\(getpid())-" + randomName())
    let file = try directory.fd.open(name, [.readWrite, .create, .exclusive], mode: 0o600)
    try directory.fd.unlink(name)
    return file
}

private func contents(of file: borrowing OwnedDescriptor) throws(Errno) -> [UInt8] {
    guard lseek(file.fd.rawValue, 0, SEEK_SET) >= 0 else { throw Errno(rawValue: errno) }
    return try file.fd.readAll(limit: 1 << 30)
}

private func findProgram(_ name: String, in path: String) throws -> String {
    if name.contains("/") { return name }
    for directory in path.split(separator: ":") {
        let candidate = "\(directory)/\(name)"
        if unsafe access(candidate, X_OK) == 0 { return candidate }
    }
    throw TestSupportError("\(name) is not installed (looked in \(path))")
}
