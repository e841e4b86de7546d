import Glibc
import VarveLayers
package import Logging
import VarveOCI
package import VarveSystem
import SystemPackage

/// Storage by programs of the user's, named in `hooks.toml`: see Docs/hooks.md.
package struct HooksDriver: StorageDriver {
    private let runner: HookRunner
    package var name: String { "hooks" }

    /// - Parameter onErrorOutput: gets what the programs write to their standard error, in whole lines; by default it
    ///   goes to that of this process. Called by the thread of the operation.
    package init(
        configuration: HooksConfiguration, logger: Logger,
        onErrorOutput: (@Sendable ([UInt8]) -> Void)? = nil
    ) {
        runner = HookRunner(
            configuration: configuration,
            onErrorOutput: onErrorOutput ?? { try? FileDescriptor.standardError.writeFull($0) },
            logger: logger)
    }

    package func beginUnpack(_ context: UnpackContext) throws -> UnpackTransaction {
        try driverErrors { try HooksUnpack.begin(runner: runner, context: context) }
    }

    /// Tells the program that a bundle is about to be deleted, so that it unmounts what it has mounted there and gives back what it keeps for
    /// the bundle.
    package func prepareRemoval(of bundle: BytePath, cancellation: Cancellation) throws {
        guard runner.has(.preRemove) else { return }
        try requireOwnPath(of: bundle)
        let request = try HookRequest(
            bundle: bundle, image: nil, tag: nil, options: Repacking.metadata(of: bundle).apply)
        try runner.ask(
            .preRemove, bundle: request.bundle, request.members, cancellation: cancellation)?.end()
    }

    package func freeze(_ context: RepackContext) throws -> any FrozenBundle {
        try driverErrors { DriverBundle(try HooksBundle(runner: runner, context: context)) }
    }
}
