import VarveFormats
import VarveStore
import VarveSystem
import SystemPackage

/// `config.toml`.
struct ConfigurationFile: Equatable {
    var store: BytePath?
    /// Whether every bundle gets an mtree file.
    var writesMtree: Bool?
    /// What `varve store gc --policy` does.
    var collection: CollectionPolicy?

    /// `[gc]`.
    struct CollectionPolicy: Equatable {
        var olderThan: DurationArgument?
        /// Absolute paths, each with a tag or without.
        var keptImages: [BytePath] = []
        var free: SizeArgument?
    }

    /// What the user's file says, and where it says nothing, that of the host, `/etc/varve/config.toml`.
    static func load(_ environment: CommandEnvironment) throws -> ConfigurationFile {
        var result = ConfigurationFile()
        for path in [path(environment), environment.hostConfiguration] {
            guard let path, let found = try read(path) else { continue }
            result.store = result.store ?? found.store
            result.writesMtree = result.writesMtree ?? found.writesMtree
            result.collection = result.collection ?? found.collection
        }
        return result
    }

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

    init() {}

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
            if member.key == "gc" {
                guard case .table(let table) = member.value else {
                    throw wrong(member.line, "gc is no table")
                }
                collection = try CollectionPolicy(table, wrong)
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

extension ConfigurationFile.CollectionPolicy {
    fileprivate init(_ table: TOMLTable, _ wrong: (Int, String) -> CommandError) throws(CommandError) {
        for member in table.members {
            switch (member.key, member.value) {
            case ("older-than", .string(let text)):
                guard let age = DurationArgument(argument: text) else {
                    throw wrong(member.line, "\"\(BytePath.escape(text.utf8))\" is no age, such as \"7d\"")
                }
                olderThan = age
            case ("free", .string(let text)):
                guard let size = SizeArgument(argument: text) else {
                    throw wrong(member.line, "\"\(BytePath.escape(text.utf8))\" is no size, such as \"20G\"")
                }
                free = size
            case ("keep-images", .array(let images)):
                for image in images {
                    guard case .string(let text) = image, BytePath(text).isAbsolute, !text.utf8.contains(0)
                    else {
                        throw wrong(
                            member.line, "an image to keep must be an absolute path, with a tag or without")
                    }
                    keptImages.append(BytePath(text))
                }
            case ("older-than", _), ("free", _):
                throw wrong(member.line, "the value of \(member.key) is not a string in quotes")
            case ("keep-images", _): throw wrong(member.line, "the value of keep-images is no array")
            default: throw wrong(member.line, "the key \"\(member.key)\" is not known")
            }
        }
    }
}
