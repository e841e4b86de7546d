import ArgumentParser
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage

struct HookCommand: ExecutableCommand {
    static let about = CommandConfiguration(
        commandName: "hook",
        abstract: "Be the hook program of another tool, with the btrfs store.",
        discussion: """
            Reads one JSON object, the request, on standard input and writes one, the answer, on standard output, as \
            Docs/hooks.md says. NAME is one of unpack.ociv1.layer.try-skip, unpack.ociv1.layer.post-extract, \
            unpack.ociv1.runtime-config, unpack.ociv1.bundle.post-unpack, repack.ociv1.delta-list and \
            repack.ociv1.bundle.post-repack, bundle.pre-remove.
            """)

    /// The most that a request may have; an image's manifest and configuration are in it.
    private static let requestLimit = 256 << 20

    @OptionGroup(visibility: .private) var global: GlobalOptions

    @Argument(help: ArgumentHelp("The name of the hook.", valueName: "name"), completion: .names(.hook))
    var name: TextArgument

    @Argument(help: ArgumentHelp("The bundle.", valueName: "bundle"), completion: .directory)
    var bundle: PathArgument

    func execute(_ context: CommandContext) throws {
        let hook = try HookName(named: name.text)
        let store = try context.openStore()
        let request: [UInt8]
        do throws(Errno) {
            request = try FileDescriptor.standardInput.readAll(limit: Self.requestLimit)
        } catch {
            throw VarveError(.failed, "cannot read the request from standard input: \(error)")
        }
        let answer = try BtrfsHook(store: store, cancellation: context.cancellation).answer(
            hook, bundle: bundle.path, request: request)
        switch answer {
        case .object(let object): try context.output.write(object)
        case .changes(let changes):
            try context.output.write("{\"changes\":")
            try ChangeFormat.json.write(changes, to: context.output)
            try context.output.write("}")
        }
        try context.output.write("\n")
    }
}
