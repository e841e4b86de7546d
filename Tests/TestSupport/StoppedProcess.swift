import Glibc
package import VarveSystem
import SystemPackage

/// A program that stops itself at a durability point (`durabilityPoint`), so that it can be ended there.
package struct StoppedProcess: ~Copyable {
    private let pid: pid_t
    private var isOver = false

    /// Runs a program up to its durability point `point`, or to its end if it has fewer.
    ///
    /// - Parameter errors: the file that gets its output.
    package init(_ arguments: [String], at point: Int, errors: BytePath) throws {
        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        for descriptor: CInt in 1...2 {
            unsafe posix_spawn_file_actions_addopen(
                &actions, descriptor, errors.description, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        }
        // The threads of tests block signals.
        var attributes = posix_spawnattr_t()
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        unsafe sigemptyset(&none)
        unsafe posix_spawnattr_setsigmask(&attributes, &none)
        unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        let words = unsafe (["/usr/bin/env", "VARVE_STOP_AT=\(point)"] + arguments).map { unsafe strdup($0) }
        defer { unsafe words.forEach { unsafe free($0) } }
        var pid: pid_t = 0
        let failure = unsafe posix_spawn(
            &pid, "/usr/bin/env", &actions, &attributes, words + [nil], environ)
        guard failure == 0 else { throw Errno(rawValue: failure) }
        self.pid = pid
    }

    /// Waits until it has stopped itself, or ended.
    ///
    /// - Returns: nil if it has stopped; else its exit code, or 128 and the number of a signal.
    package mutating func wait() -> Int32? {
        var status: CInt = 0
        while unsafe waitpid(pid, &status, WUNTRACED) < 0, errno == EINTR {}
        // WIFSTOPPED of wait(2).
        if status & 0xff == 0x7f { return nil }
        isOver = true
        return status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f)
    }

    /// kill -9, and waits for its end.
    package mutating func end() {
        if isOver { return }
        isOver = true
        kill(pid, SIGKILL)
        while waitpid(pid, nil, 0) < 0, errno == EINTR {}
    }

    deinit {
        if !isOver {
            kill(pid, SIGKILL)
            while waitpid(pid, nil, 0) < 0, errno == EINTR {}
        }
    }
}
