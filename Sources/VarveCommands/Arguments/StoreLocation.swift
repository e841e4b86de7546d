import VarveStore
import VarveSystem
import SystemPackage

/// Where the store is: `--store`, else the store of the bundle that is named, else `$VARVE_STORE`, else `store` in the configuration file, else `/var/lib/varve`.
enum StoreLocation {
    static let standard: BytePath = "/var/lib/varve"
    static let variable = "VARVE_STORE"

    /// - Parameters:
    ///   - bundles: those that the command line names, made yet or not.
    ///   - elsewhere: the store of a bundle may lie on another file system than the bundle.
    /// - Returns: the path, and whether it comes from anywhere but `standard`.
    static func find(
        option: BytePath?, bundles: [BytePath], environment: CommandEnvironment, elsewhere: Bool = true
    ) throws -> (path: BytePath, isGiven: Bool) {
        if let option { return (option, true) }
        for bundle in bundles {
            if let store = StoreOfBundle.find(bundle, elsewhere: elsewhere) { return (store, true) }
        }
        if let variable = environment.path(variable) { return (variable, true) }
        if let store = try ConfigurationFile.load(environment).store { return (store, true) }
        return (standard, false)
    }
}
