import VarveFormats
import VarveStore
import VarveSystem
import SystemPackage

/// `config.toml`.
struct ConfigurationFile: Equatable {
    var store: BytePath?
    /// Every bundle gets an mtree file.
    var writesMtree = false

    /// `$XDG_CONFIG_HOME/varve`, by default in `~/.config` (XDG Base Directory Specification: a relative path there is not
    /// valid and passed over).
    static func directory(_ environment: CommandEnvironment) -> BytePath? {
        if let home = environment.path("XDG_CONFIG_HOME"), home.isAbsolute { return home.appending("varve") }
        return environment.path("HOME")?.appending(".config/varve")
    }

    static func path(_ environment: CommandEnvironment) -> BytePath? {
        directory(environment)?.appending("config.toml")
    }

    /// Nil if there is no such file.
    static func read(_ path: BytePath) throws -> ConfigurationFile? {
        let bytes: [UInt8]?
        do throws(PlaceError) { bytes = try Place.configuration(path) } catch {
            guard let errno = error.errno else {
                throw VarveError(
                    .failed, "the configuration \"\(path)\" is not safe to use: \(error.problem)",
                    subject: path, remedy: error.remedy)
            }
            throw CommandError(
                "cannot read the configuration \"\(path)\": \(errno)", remedy: "name the store with --store")
        }
        return try bytes.map { try ConfigurationFile(parsing: $0, of: path) }
    }

    init(parsing bytes: [UInt8], of path: BytePath) throws(CommandError) {
        func wrong(_ line: Int, _ reason: String) -> CommandError {
            CommandError(
                "line \(line) of \"\(path)\" is wrong: \(reason)",
                remedy: "write for example: store = \"/srv/varve\"")
        }
        let table: TOMLTable
        do throws(TOMLError) {
            table = try TOMLTable(parsing: bytes)
        } catch {
            throw wrong(error.line, error.reason)
        }
        for member in table.members {
            if member.key == "mtree" {
                guard case .boolean(let value) = member.value else {
                    throw wrong(member.line, "the value of mtree is neither true nor false")
                }
                writesMtree = value
                continue
            }
            guard member.key == "store" else {
                throw wrong(member.line, "the key \"\(member.key)\" is not known")
            }
            guard case .string(let value) = member.value else {
                throw wrong(member.line, "the value is not a string in quotes")
            }
            let path = BytePath(value)
            guard path.isAbsolute, !value.utf8.contains(0) else {
                throw wrong(member.line, "the store must be an absolute path")
            }
            store = path
        }
    }
}
