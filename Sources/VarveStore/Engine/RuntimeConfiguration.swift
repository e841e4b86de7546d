package import VarveLayers
package import VarveOCI
package import VarveSystem
import SystemPackage

extension Unpacking {
    /// `config.json` of an image without a bundle.
    ///
    /// - Parameters:
    ///   - rootfs: the root file system that users are looked up in; nil for none.
    ///   - path: what the document calls the root file system; nil for `rootfs`, and `.` where there is none.
    ///   - hostname: what it calls the container.
    ///   - onUnknownUser: called with the error that a user by name cannot be looked up without a root file system; root is
    ///     then taken instead.
    ///   - onWarning: called with a sentence about what else the document does not have.
    package static func runtimeConfiguration(
        of config: ImageConfig, rootfs: BytePath?, path: String? = nil, owners: OwnerMapping,
        hostname: String = RuntimeConfig.hostname,
        onUnknownUser: (OCIError) -> Void, onWarning: (String) -> Void
    ) throws -> [UInt8] {
        if let warning = RuntimeConfig.warning(of: config) { onWarning(warning) }
        guard let rootfs else {
            do {
                return try runtimeConfiguration(
                    config, rootfs: nil, path: path ?? ".", owners: owners, hostname: hostname)
            } catch let error as OCIError {
                // With the user left out: if that is not what was wrong, it is said now.
                let configuration = try runtimeConfiguration(
                    try config.withoutUser(), rootfs: nil, path: path ?? ".", owners: owners,
                    hostname: hostname)
                onUnknownUser(error)
                return configuration
            }
        }
        let root: SharedDescriptor
        do throws(PlaceError) { root = SharedDescriptor(try Place.directory(rootfs, .safeLinks)) } catch {
            throw VarveError(error, "open the root file system", rootfs)
        }
        return try runtimeConfiguration(
            config, rootfs: root, path: path ?? rootfs.description, owners: owners, hostname: hostname)
    }
}
