import Glibc
import Logging
import VarveStore
import VarveSystem
import SystemPackage

/// What a command works with.
final class CommandContext {
    let program: Program
    let options: any GlobalChoices
    let environment: CommandEnvironment
    let output: ResultWriter
    let logger: Logger
    let cancellation: Cancellation
    private let diagnostics: Diagnostics
    private var toleratesMissingPermissions = false

    init(
        program: Program, options: any GlobalChoices, environment: CommandEnvironment, output: ResultWriter,
        diagnostics: Diagnostics,
        cancellation: Cancellation
    ) {
        self.program = program
        self.options = options
        self.environment = environment
        self.output = output
        self.diagnostics = diagnostics
        self.cancellation = cancellation
        let level = options.log?.level ?? .warning
        logger = Logger(label: "varve") { _ in DiagnosticLogHandler(diagnostics, level: level) }
    }

    func storePath(_ path: PathArgument? = nil, of bundles: [BytePath] = []) throws -> BytePath {
        try StoreLocation.find(
            option: path?.path ?? options.store?.path, bundles: bundles, environment: environment
        ).path
    }

    /// - Parameter bundles: those that the command line names: the store of one of them is the store.
    func openStore(of bundles: [BytePath] = []) throws -> SnapshotStore {
        tolerateMissingPermissions()
        return try open(try storePath(of: bundles))
    }

    /// Opens a store, and deletes what commands that were ended left in it.
    private func open(_ path: BytePath) throws -> SnapshotStore {
        let store = try SnapshotStore.open(at: path, logger: logger, cancellation: cancellation)
        store.sweeper.sweep()
        return store
    }

    /// An ordinary user's image has files that not even their owner may read (/etc/shadow, mode 0) or directories that
    /// nothing can be put into (mode 0555). To be called while there is one thread; does nothing for root, nor when it was
    /// called before.
    func tolerateMissingPermissions() {
        guard geteuid() != 0, !toleratesMissingPermissions else { return }
        toleratesMissingPermissions = true
        do throws(Errno) {
            try Privileges.enterUserNamespace()
        } catch {
            logger.debug(
                "this host allows no user name space (\(error)): files without permissions for their owner cannot be read"
            )
        }
    }

    /// The store if there is one: for what can be done without. One that was named must be there.
    func openStoreIfPresent(of bundles: [BytePath] = []) throws -> SnapshotStore? {
        // A store on another file system is of no use here.
        let location = try StoreLocation.find(
            option: options.store?.path, bundles: bundles, environment: environment, elsewhere: false)
        tolerateMissingPermissions()
        do {
            return try open(location.path)
        } catch let error as VarveError
            where !location.isGiven && [.notFound, .unsupported].contains(error.code)
        {
            logger.debug("no store is used: \(ErrorReport(error).text)")
            return nil
        }
    }

    /// Runs `body` for each of several things that a command was given. One that fails is told of at once, and the others
    /// are done all the same; the command then ends with the exit code of the first that failed.
    func forEach<Item>(_ items: [Item], _ body: (Item) throws -> Void) throws {
        var first: VarveError.Code?
        for item in items {
            do {
                try cancellation.check()
                try body(item)
            } catch  where items.count > 1 && !cancellation.isCancelled {
                let report = ErrorReport(error)
                _ = diagnostics.report(report)
                first = first ?? report.code
            }
        }
        if let first { throw ReportedError(code: first) }
    }

    /// Asks at the terminal whether to do what cannot be undone.
    ///
    /// - Parameters:
    ///   - action: as it reads on from "this will".
    ///   - flag: what on the command line is the answer where nobody can be asked.
    /// - Throws: where the answer is not yes, or nobody is there to give one.
    func confirm(_ action: String, flag: String) throws {
        guard environment.canAsk else {
            throw CommandError("this will \(action)", remedy: "say so with \(flag), as nobody can be asked")
        }
        diagnostics.ask("this will \(action); go on? [y/N] ")
        let answer = environment.readAnswer()?.lowercased()
        try cancellation.check()
        guard answer == "y" || answer == "yes" else {
            throw CommandError("nothing was done: the answer was not yes", code: .failed)
        }
    }

    /// Lines that a hook program wrote to its standard error.
    var passOn: @Sendable ([UInt8]) -> Void {
        { [diagnostics] lines in diagnostics.passOn(lines) }
    }

    /// Tells at `--log info` what was done: in a sentence, or in the lines that umoci says it in.
    func inform(_ sentence: @autoclosure () -> String, umoci lines: @autoclosure () -> [String]) {
        guard logger.logLevel <= .info else { return }
        guard program == .umoci else { return logger.info("\(sentence())") }
        for line in lines() { logger.info("\(line)") }
    }

    /// Whether every bundle gets an mtree file, so that umoci can repack it: `$VARVE_UMOCI_MTREE`, else `mtree = true` in
    /// the configuration file.
    func writesMtreeAlways() throws -> Bool {
        if let choice = try environment.toggle("VARVE_UMOCI_MTREE") { return choice }
        return try ConfigurationFile.load(environment).writesMtree ?? false
    }

    func showProgress(_ verb: String) -> ProgressHandler {
        guard !options.noProgress, let interval = diagnostics.progressInterval(logger.logLevel) else {
            return { _ in }
        }
        return ProgressLine(verb, on: diagnostics, every: interval).handler
    }
}

/// The command has failed, and has said why already.
struct ReportedError: Error {
    let code: VarveError.Code
}
