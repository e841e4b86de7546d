import ArgumentParser
import VarveLayers
import VarveStore
import VarveSystem
import SystemPackage

extension RawCommands {
    /// umoci's, which its own tests use; not shown in help.
    struct MtreeValidate: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "mtree-validate", abstract: "Compare a directory with an mtree file.",
            discussion: "Keywords are those that umoci writes, separated by commas or spaces.",
            shouldDisplay: false)

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Option(help: ArgumentHelp("The mtree file.", valueName: "file"))
        var manifest: PathArgument

        @Option(help: ArgumentHelp("The directory.", valueName: "path"))
        var path: PathArgument

        @Option(help: ArgumentHelp("Compare these too.", valueName: "keywords"))
        var addKeywords: TextArgument?

        @Option(help: ArgumentHelp("Compare these alone.", valueName: "keywords"))
        var useKeywords: TextArgument?

        @Flag(help: "Compare what umoci does, which is the default.")
        var umociKeywords = false

        @Flag(help: "The directory is one of a user without privileges.")
        var rootless = false

        func execute(_ context: CommandContext) throws {
            context.tolerateMissingPermissions()
            let root = try VarveError.attempting("open the directory", path.path) { () throws(Errno) in
                SharedDescriptor(try FileDescriptor.workingDirectory.open(path.path, [.directory]))
            }
            let bytes = try VarveError.attempting("read", manifest.path) { () throws(Errno) in
                try FileDescriptor.workingDirectory.readFile(manifest.path, limit: 1 << 30)
            }
            let recorded: RecordedTree
            do {
                recorded = try RecordedTree(
                    mtree: bytes, written: .now(), root: root.fd,
                    onEntry: { try context.cancellation.check() })
            } catch let error as RecordError {
                throw VarveError(
                    .invalidInput, "\"\(manifest.path)\" is not an mtree file of umoci: \(error)")
            }
            func list(_ text: TextArgument?) -> Set<String>? {
                text.map { Set($0.text.split { $0 == "," || $0 == " " }.map(String.init)) }
            }
            let keywords = (list(useKeywords) ?? RecordedTree.mtreeKeywords).union(list(addKeywords) ?? [])
            let differences = try MtreeDifference.differences(
                from: recorded,
                to: try RecordedTree.scan(root.fd, onEntry: { try context.cancellation.check() }),
                keywords: keywords, onEntry: { try context.cancellation.check() })
            for difference in differences {
                try context.output.write(Self.line(difference) + "\n")
            }
            guard differences.isEmpty else {
                throw VarveError(.failed, "validation failed: \(differences.count) differences found")
            }
        }

        private static func line(_ difference: MtreeDifference) -> String {
            let path = GoQuoting.quote("\(difference.path)")
            switch difference.kind {
            case .missing: return "\(path): missing path"
            case .unexpected: return "\(path): unexpected path"
            case .keyword(let name, let expected, let found):
                func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
                return
                    "\(path): keyword \(GoQuoting.quote(name)): expected \(text(expected)); got \(text(found))"
            }
        }
    }
}

extension VarveError {
    /// Says what was tried with which path where a system call fails.
    fileprivate static func attempting<T>(
        _ operation: String, _ path: BytePath, _ body: () throws(Errno) -> T
    ) throws -> T {
        do throws(Errno) { return try body() } catch { throw VarveError.system(operation, path, error) }
    }
}
