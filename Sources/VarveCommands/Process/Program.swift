import VarveOCI
import VarveSystem

/// What the command was called as.
package enum Program: String, Sendable {
    case varve
    /// A link to the binary by that name: umoci's command line, and its exit codes.
    case umoci

    /// By the name that a process was started with, its `argv[0]`.
    init(calledAs name: BytePath) {
        self = name.lastComponent == BytePath(Program.umoci.rawValue) ? .umoci : .varve
    }

    var name: String { rawValue }

    /// The exit code of a command that failed. umoci has one for all that fails.
    func exitCode(_ code: VarveError.Code) -> Int32 {
        self == .varve || code == .interrupted ? code.exitCode : VarveError.Code.failed.exitCode
    }

    /// What a `config.json` that it writes calls the container.
    var hostname: String { self == .umoci ? "umoci-default" : RuntimeConfig.hostname }
}
