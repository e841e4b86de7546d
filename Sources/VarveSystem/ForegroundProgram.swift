import CLinux
import Glibc
package import SystemPackage

/// A program that is run in the caller's place: with its standard streams, in its process group, so that a terminal is the program's.
package struct ForegroundProgram: Sendable {
    /// The program, by its path, and its arguments.
    package var arguments: [BytePath]
    /// Between asking the program to end and `kill`.
    package var grace = Duration.seconds(10)

    package init(arguments: [BytePath]) { self.arguments = arguments }

    /// Runs the program to its end.
    ///
    /// - Parameters:
    ///   - signals: how many signals came that the program is to get, and the first of them. It gets that one, and `end` is called
    ///     if it has not ended `grace` later, or when a second one comes.
    ///   - end: ends what the program started; the program itself is then killed.
    /// - Returns: its exit status, or 128 and the number of the signal that killed it, as shells have it.
    package func run(signals: () -> (count: Int, first: CInt), end: () -> Void) throws(Errno) -> Int32 {
        let pid = try start()
        var killAt: ContinuousClock.Instant?
        while true {
            var status: CInt = 0
            let ended = unsafe waitpid(pid, &status, WNOHANG)
            if ended < 0, errno != EINTR { throw Errno(rawValue: errno) }
            // WIFEXITED, WEXITSTATUS and WTERMSIG of wait(2).
            if ended == pid { return status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + status & 0x7f }
            let (count, first) = signals()
            if let time = killAt {
                if count > 1 || ContinuousClock.now >= time {
                    end()
                    _ = kill(pid, SIGKILL)
                }
            } else if count > 0 {
                _ = kill(pid, first)
                killAt = ContinuousClock.now + grace
            }
            wait(for: pid)
        }
    }

    /// Until the program has ended, a signal comes, or a short time is over.
    private func wait(for pid: pid_t) {
        let handle = varve_pidfd_open(pid)
        guard handle >= 0 else {
            usleep(5000)
            return
        }
        var polled = pollfd(fd: handle, events: Int16(POLLIN), revents: 0)
        _ = unsafe poll(&polled, 1, 100)
        _ = close(handle)
    }

    private func start() throws(Errno) -> pid_t {
        guard let program = arguments.first else { throw .invalidArgument }
        // The command ignores SIGPIPE, and threads here block signals: the program begins as from a shell.
        var attributes = posix_spawnattr_t()
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe posix_spawnattr_destroy(&attributes) }
        var all = sigset_t()
        var none = sigset_t()
        unsafe sigfillset(&all)
        unsafe sigemptyset(&none)
        unsafe posix_spawnattr_setsigdefault(&attributes, &all)
        unsafe posix_spawnattr_setsigmask(&attributes, &none)
        unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK))
        var pid: pid_t = 0
        let copies = unsafe arguments.map { argument in unsafe argument.withCString { unsafe strdup($0) } }
        defer { unsafe copies.forEach { copy in unsafe free(copy) } }
        var vector = unsafe copies
        unsafe vector.append(nil)
        let failure = unsafe program.withCString { name in
            unsafe posix_spawn(&pid, name, nil, &attributes, &vector, environ)
        }
        guard failure == 0 else { throw Errno(rawValue: failure) }
        return pid
    }
}
