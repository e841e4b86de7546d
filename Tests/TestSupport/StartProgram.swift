package import Glibc
import SystemPackage

/// Starts a program, by its path, with nothing to read.
///
/// - Parameter output: the file that gets its output and its errors.
package func startProgram(_ arguments: [String], output: String = "/dev/null") throws -> pid_t {
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    for descriptor: CInt in 1...2 {
        unsafe posix_spawn_file_actions_addopen(
            &actions, descriptor, output, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    }
    // The threads of tests block signals, and what is started here gets some.
    var attributes = posix_spawnattr_t()
    unsafe posix_spawnattr_init(&attributes)
    defer { unsafe posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    unsafe sigemptyset(&none)
    unsafe posix_spawnattr_setsigmask(&attributes, &none)
    unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
    let words = unsafe arguments.map { unsafe strdup($0) }
    defer { unsafe words.forEach { unsafe free($0) } }
    var pid: pid_t = 0
    let failure = unsafe posix_spawn(&pid, arguments[0], &actions, &attributes, words + [nil], environ)
    guard failure == 0 else { throw Errno(rawValue: failure) }
    return pid
}
