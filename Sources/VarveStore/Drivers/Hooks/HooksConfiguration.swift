import VarveFormats
package import VarveSystem
import SystemPackage

/// `hooks.toml`: which program is run for which hook.
package struct HooksConfiguration: Sendable, Equatable {
    package struct Hook: Sendable, Equatable {
        /// The program and its arguments; the hook's name and the bundle are added to them.
        package var command: [BytePath]
        /// The program is killed when it runs longer.
        package var timeout: Duration
        /// Of the delta list: if it fails, the whole tree is compared instead.
        package var fallback: Bool
        /// The directory that the program keeps its layers in; it may name directories below it, besides those in the
        /// bundle.
        package var store: BytePath?

        package init(
            command: [BytePath], timeout: Duration = .seconds(300), fallback: Bool = false,
            store: BytePath? = nil
        ) {
            self.command = command
            self.timeout = timeout
            self.fallback = fallback
            self.store = store
        }
    }

    package var hooks: [HookName: Hook]

    package init(_ hooks: [HookName: Hook]) { self.hooks = hooks }

    /// Nil if there is no such file.
    package static func read(_ path: BytePath) throws -> HooksConfiguration? {
        let bytes: [UInt8]?
        do throws(PlaceError) { bytes = try Place.configuration(path) } catch {
            guard let errno = error.errno else {
                throw VarveError(error, "the hooks \"\(path)\" are not safe to use")
            }
            throw VarveError(
                .usage, "cannot read the hooks \"\(path)\": \(errno)", subject: path, remedy: .nameHooks)
        }
        return try bytes.map { try HooksConfiguration(parsing: $0, of: path) }
    }

    package init(parsing bytes: [UInt8], of path: BytePath) throws {
        func shown(_ key: String) -> String { "\"\(BytePath.excerpt(key.utf8))\"" }
        func wrong(_ line: Int, _ reason: String) -> VarveError {
            VarveError(
                .usage,
                "line \(line) of \"\(path)\" is wrong: \(reason)", subject: path,
                remedy: .correctHooks(
                    "write for example: \"\(HookName.trySkip.rawValue)\" = { command = [\"/usr/libexec/my-hook\"], timeout = 60 }"
                )
            )
        }
        let document: TOMLTable
        do throws(TOMLError) { document = try TOMLTable(parsing: bytes) } catch {
            throw wrong(error.line, error.reason)
        }
        hooks = [:]
        for member in document.members {
            guard member.key == "hooks", case .table(let table) = member.value else {
                throw wrong(
                    member.line, "there is nothing in it but the table [hooks], and not \(shown(member.key))")
            }
            for member in table.members {
                guard let name = HookName(rawValue: member.key) else {
                    throw wrong(member.line, "there is no hook \(shown(member.key))")
                }
                guard case .table(let settings) = member.value else {
                    throw wrong(member.line, "a hook is a table with its command")
                }
                hooks[name] = try Self.hook(name, settings) { wrong(member.line, $0) }
            }
        }
    }

    private static func hook(_ name: HookName, _ settings: TOMLTable, wrong: (String) -> VarveError) throws
        -> Hook
    {
        var hook = Hook(command: [])
        for setting in settings.members {
            switch (setting.key, setting.value) {
            case ("command", .array(let words)):
                hook.command = try words.map { word in
                    guard case .string(let text) = word, !text.utf8.contains(0) else {
                        throw wrong("a command is a list of strings")
                    }
                    return BytePath(text)
                }
            case ("timeout", .integer(let seconds)):
                guard (1...86_400).contains(seconds) else {
                    throw wrong("a timeout is 1 to 86400 seconds, and not \(seconds)")
                }
                hook.timeout = .seconds(seconds)
            case ("fallback", .boolean(let fallback)) where name == .deltaList: hook.fallback = fallback
            case ("store", .string(let store)) where name == .extractTo || name == .trySkip:
                guard store.beginsWithByte("/"), !store.utf8.contains(0) else {
                    throw wrong("the store of a hook is an absolute path")
                }
                hook.store = BytePath(store)
            default:
                let key = BytePath.excerpt(setting.key.utf8)
                throw wrong("\"\(key)\" is not known of \(name.rawValue), or of another type")
            }
        }
        guard let program = hook.command.first, !program.isEmpty else {
            throw wrong("its command is missing")
        }
        guard program.isAbsolute || program.components.count == 1 else {
            throw wrong(
                "the program \"\(BytePath.excerpt(program.bytes))\" is neither an absolute path nor a name to be found in PATH"
            )
        }
        return hook
    }
}
