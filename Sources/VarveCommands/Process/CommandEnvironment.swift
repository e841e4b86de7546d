import Glibc
package import VarveSystem

/// What a command may ask for: environment variables, and somebody at a terminal.
package struct CommandEnvironment: Sendable {
    private let lookUp: @Sendable (String) -> [UInt8]?
    /// A line that somebody types at a terminal, without its end; nil where there is none, or it ended. Nobody is there unless it is
    /// set.
    package var readAnswer: @Sendable () -> String? = { nil }
    /// Whether somebody can be asked.
    package var canAsk = false

    /// The configuration file for all users of the host.
    package var hostConfiguration: BytePath?

    package init(_ lookUp: @escaping @Sendable (String) -> [UInt8]?) { self.lookUp = lookUp }

    package init(_ variables: [String: String]) {
        self.init { name in variables[name].map { Array($0.utf8) } }
    }

    /// That of the process.
    package static var process: CommandEnvironment {
        var environment = CommandEnvironment { name in
            guard let value = unsafe getenv(name) else { return nil }
            return unsafe Array(UnsafeRawBufferPointer(start: value, count: strlen(value)))
        }
        environment.canAsk = isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1
        environment.readAnswer = { Interruption.endingAtOnce { readLine() } }
        environment.hostConfiguration = "/etc/varve/config.toml"
        return environment
    }

    /// Nil if the variable is not set, or empty.
    func path(_ name: String) -> BytePath? {
        lookUp(name).flatMap { $0.isEmpty ? nil : BytePath($0) }
    }

    /// Nil if the variable is not set, or is not UTF-8.
    func text(_ name: String) -> String? { lookUp(name).flatMap { String(validating: $0, as: UTF8.self) } }

    /// A variable that is on (`1`, `true`) or off (`0`, `false`); nil if it is not set, or empty.
    func toggle(_ name: String) throws(CommandError) -> Bool? {
        guard let value = path(name) else { return nil }
        switch value.string {
        case "1", "true": return true
        case "0", "false": return false
        default:
            throw CommandError(
                "\(name) is \"\(value)\", which is neither on nor off", remedy: "set it to 1 or 0")
        }
    }

    /// `SOURCE_DATE_EPOCH`, in seconds since 1970 (reproducible-builds.org/specs/source-date-epoch).
    func sourceDate() throws(CommandError) -> Timestamp? {
        guard let bytes = lookUp("SOURCE_DATE_EPOCH") else { return nil }
        let isNumber =
            !bytes.isEmpty && bytes.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
        // 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
        guard isNumber, let seconds = Int64(String(decoding: bytes, as: UTF8.self)),
            seconds <= 253_402_300_799
        else {
            throw CommandError(
                "SOURCE_DATE_EPOCH is \"\(BytePath.escape(bytes))\", which is no time",
                remedy: "set it to seconds since 1970, or unset it"
            )
        }
        return Timestamp(seconds: seconds)
    }
}
