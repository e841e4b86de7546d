import SystemCalls
import SystemPackage

/// Where the store is: `--store`, else `$VARVE_STORE`, else `store` in the configuration file, else `/var/lib/varve`.
enum StoreLocation {
    static let standard: BytePath = "/var/lib/varve"
    static let variable = "VARVE_STORE"

    static func find(option: BytePath?, environment: CommandEnvironment) throws -> (
        path: BytePath, isGiven: Bool
    ) {
        if let option { return (option, true) }
        if let variable = environment.path(variable) { return (variable, true) }
        if let file = ConfigurationFile.path(environment),
            let configuration = try ConfigurationFile.read(file), let store = configuration.store
        {
            return (store, true)
        }
        return (standard, false)
    }
}
