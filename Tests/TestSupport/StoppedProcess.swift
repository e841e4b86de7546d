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
        pid = try startProgram(
            ["/usr/bin/env", "VARVE_STOP_AT=\(point)"] + arguments, output: errors.description)
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
