import Glibc
import VarveLayers
package import Logging
import VarveOCI
import VarveSystem
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

    package func freeze(_ context: RepackContext) throws -> any FrozenBundle {
        try driverErrors { DriverBundle(try HooksBundle(runner: runner, context: context)) }
    }
}
