import CLinux
import Glibc
import SystemPackage

/// A child of this process until it is reaped.
struct RunningChild: ~Copyable {
    private let pid: pid_t
    private let handle: CInt
    private var isReaped = false

    init(_ pid: pid_t) {
        self.pid = pid
        // Without one (no descriptor is left), the waits below end by their time and look again.
        handle = varve_pidfd_open(pid)
    }

    deinit {
        if handle >= 0 { _ = Glibc.close(handle) }
    }

    /// The pid cannot be anybody else's group while the child is not reaped.
    func signalGroup(_ signal: CInt) {
        if !isReaped { _ = kill(-pid, signal) }
    }

    /// Starts a program, found by `PATH` if its name holds no slash, as from a shell: the threads here block signals, and the command
    /// ignores SIGPIPE.
    ///
    /// - Parameters:
    ///   - actions: what becomes of its descriptors; nil for the caller's.
    ///   - inOwnGroup: it leads a process group of its own.
    static func start(
        _ arguments: [BytePath], _ actions: UnsafePointer<posix_spawn_file_actions_t>? = nil, inOwnGroup: Bool
    ) throws(Errno) -> pid_t {
        guard let program = arguments.first else { throw .invalidArgument }
        var attributes = posix_spawnattr_t()
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe posix_spawnattr_destroy(&attributes) }
        var all = sigset_t()
        var none = sigset_t()
        unsafe sigfillset(&all)
        unsafe sigemptyset(&none)
        unsafe posix_spawnattr_setsigdefault(&attributes, &all)
        unsafe posix_spawnattr_setsigmask(&attributes, &none)
        unsafe posix_spawnattr_setpgroup(&attributes, 0)
        let flags =
            POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | (inOwnGroup ? POSIX_SPAWN_SETPGROUP : 0)
        unsafe posix_spawnattr_setflags(&attributes, Int16(flags))

        var pid: pid_t = 0
        let copies = unsafe arguments.map { argument in unsafe argument.withCString { unsafe strdup($0) } }
        defer { unsafe copies.forEach { copy in unsafe free(copy) } }
        var vector = unsafe copies
        unsafe vector.append(nil)
        let failure = unsafe program.withCString { name in
            unsafe posix_spawnp(&pid, name, actions, &attributes, &vector, environ)
        }
        guard failure == 0 else { throw Errno(rawValue: failure) }
        return pid
    }

    /// A signal for the child alone.
    func signal(_ signal: CInt) {
        if !isReaped { _ = kill(pid, signal) }
    }

    /// Waits until the child has ended, says something, or the time is up; true if it has ended.
    func wait(besides pipes: [Pipe] = [], milliseconds: CInt) throws(Errno) -> Bool {
        var polled = pipes.filter { !$0.isAtEnd }.map {
            pollfd(fd: $0.reading, events: Int16(POLLIN), revents: 0)
        }
        polled.append(pollfd(fd: handle, events: Int16(POLLIN), revents: 0))
        let count = unsafe poll(&polled, nfds_t(polled.count), milliseconds)
        if count < 0, errno != EINTR { throw Errno(rawValue: errno) }
        if handle >= 0 { return count > 0 && (polled.last?.revents ?? 0) != 0 }
        var info = unsafe siginfo_t()
        let waited = unsafe waitid(P_PID, id_t(pid), &info, WEXITED | WNOHANG | WNOWAIT)
        return unsafe waited == 0 && info.si_signo == SIGCHLD
    }

    /// Kills what is left of the group and reaps the child.
    mutating func end() throws(Errno) -> (code: Int32, signal: Int32) {
        signalGroup(SIGKILL)
        RunningGroup.clear(pid)
        return try reap()
    }

    /// Waits for the end of the child.
    ///
    /// - Returns: its exit code, and the signal that killed it or 0.
    mutating func reap() throws(Errno) -> (code: Int32, signal: Int32) {
        var status: CInt = 0
        while unsafe waitpid(pid, &status, 0) < 0 {
            if errno != EINTR { throw Errno(rawValue: errno) }
        }
        isReaped = true
        // WTERMSIG and WEXITSTATUS of wait(2).
        return ((status >> 8) & 0xff, status & 0x7f)
    }
}
