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
        var child = RunningChild(try unsafe RunningChild.start(arguments, inOwnGroup: false))
        var killAt: ContinuousClock.Instant?
        while try !child.wait(milliseconds: 100) {
            let (count, first) = signals()
            if let time = killAt {
                if count > 1 || ContinuousClock.now >= time {
                    end()
                    child.signal(SIGKILL)
                }
            } else if count > 0 {
                child.signal(first)
                killAt = ContinuousClock.now + grace
            }
        }
        let (code, signal) = try child.reap()
        return signal == 0 ? code : 128 + signal
    }
}
