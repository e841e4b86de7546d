import VarveBtrfs
import Logging
import VarveStore
import VarveSystem
import SystemPackage

/// Which driver a bundle is made with, or was.
extension CommandContext {
    /// For a new bundle. `auto` is a store where one is configured and the bundle's file system holds it,
    /// else a plain directory, and a line that says why.
    ///
    /// - Returns: the driver, and a warning for when the bundle is there.
    func driver(_ choice: DriverArgument?, forNew bundle: BytePath) throws -> (any StorageDriver, String?) {
        switch choice {
        case .btrfs: return (BtrfsDriver(store: try openStore(of: [bundle])), nil)
        case .directory: return (directoryDriver(), nil)
        case .hooks: return (try hooksDriver(), nil)
        case .auto, nil: break
        }
        let reason: String
        if let store = try openStoreIfPresent(of: [bundle]) {
            if try store.holds(bundle) { return (BtrfsDriver(store: store), nil) }
            reason = "it does not lie on the btrfs that holds the store \"\(store.path)\""
        } else {
            reason = "there is no store in \"\(try storePath())\""
        }
        let text =
            "\"\(bundle)\" becomes a plain directory and shares nothing with other bundles: \(reason)"
        // Of umoci nobody expects anything else.
        if program == .umoci { logger.debug("\(text)") }
        return (directoryDriver(), program == .umoci ? nil : text)
    }

    /// For a bundle that is there. `auto` is the one that it shows to have been made with.
    func driver(_ choice: DriverArgument?, of bundle: BytePath) throws -> any StorageDriver {
        switch choice {
        case .btrfs: return BtrfsDriver(store: try openStore(of: [bundle]))
        case .directory: return directoryDriver()
        case .hooks: return try hooksDriver()
        case .auto, nil: break
        }
        return switch try BundleKind.of(bundle) {
        case .btrfs, .copy: BtrfsDriver(store: try openStore(of: [bundle]))
        case .directory, .umoci: directoryDriver()
        case .hooks: try hooksDriver()
        }
    }

    private func directoryDriver() -> DirectoryDriver {
        tolerateMissingPermissions()
        return DirectoryDriver(logger: logger)
    }

    /// `$VARVE_HOOKS`, else `hooks.toml` in the configuration directory.
    func hooksPath() -> BytePath? {
        environment.path("VARVE_HOOKS") ?? ConfigurationFile.directory(environment)?.appending("hooks.toml")
    }

    /// Nil if no hooks are configured.
    func hooksDriverIfConfigured() throws -> HooksDriver? {
        guard let path = hooksPath(), let configuration = try HooksConfiguration.read(path) else {
            return nil
        }
        return HooksDriver(configuration: configuration, logger: logger, onErrorOutput: passOn)
    }

    private func hooksDriver() throws -> HooksDriver {
        guard let driver = try hooksDriverIfConfigured() else {
            let looked = hooksPath().map { "\"\($0)\" is not there" } ?? "neither VARVE_HOOKS nor HOME is set"
            throw VarveError(
                .notFound,
                "no hooks are configured: \(looked)", subject: hooksPath(), remedy: .configureHooks)
        }
        return driver
    }
}
