import Store
import SystemCalls

extension CommandContext {
    /// The driver that `--driver` names.
    func driver(_ argument: DriverArgument) throws -> any StorageDriver {
        switch argument {
        case .auto, .btrfs: BtrfsDriver(store: try openStore())
        case .hooks: try hooksDriver()
        }
    }

    /// `$VARVE_HOOKS`, else `hooks.toml` in the configuration directory.
    func hooksPath() -> BytePath? {
        environment.path("VARVE_HOOKS") ?? ConfigurationFile.directory(environment)?.appending("hooks.toml")
    }

    private func hooksDriver() throws -> HooksDriver {
        guard let path = hooksPath(), let configuration = try HooksConfiguration.read(path) else {
            let looked = hooksPath().map { "\"\($0)\" is not there" } ?? "neither VARVE_HOOKS nor HOME is set"
            throw StoreError(
                .notFound,
                "no hooks are configured: \(looked); name a hooks.toml with VARVE_HOOKS (see Docs/hooks.md)")
        }
        return HooksDriver(configuration: configuration, logger: logger, onErrorOutput: passOn)
    }
}
