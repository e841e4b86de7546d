import ArgumentParser
import Glibc
import Layers
import OCI
import Store

/// Whose files become, as umoci says it.
struct OwnerOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "A range of users of the image and where it lies on the host; may be repeated.",
            valueName: "container:host:size"))
    var uidMap: [IDMapArgument] = []

    @Option(
        help: ArgumentHelp("The same for groups; may be repeated.", valueName: "container:host:size"))
    var gidMap: [IDMapArgument] = []

    @Flag(help: "Need no privileges: files are the caller's, their owners kept beside, devices empty files.")
    var rootless = false

    /// Only root may give files away. Throws, before anything is done, if the image's root is somebody else than the
    /// caller, who is not root.
    func checkPrivileges() throws {
        guard geteuid() != 0, !rootless,
            mapping.uids.host(0) != geteuid() || mapping.gids.host(0) != getegid()
        else { return }
        throw StoreError(
            .unsupported,
            "only root may make files that belong to other users, as those of an image do; run as root, or give --rootless"
        )
    }

    /// Rootless, root of the image is the caller unless a map says who.
    var mapping: OwnerMapping {
        var result = OwnerMapping(
            uids: uidMap.map(\.mapping), gids: gidMap.map(\.mapping), isRootless: rootless)
        if rootless, uidMap.isEmpty {
            result.uids = [IDMapping(containerID: 0, hostID: geteuid(), size: 1)]
        }
        if rootless, gidMap.isEmpty {
            result.gids = [IDMapping(containerID: 0, hostID: getegid(), size: 1)]
        }
        return result
    }
}

/// `CONTAINER:HOST[:SIZE]`.
struct IDMapArgument: ExpressibleByArgument {
    let mapping: IDMapping

    init?(argument: String) {
        guard let mapping = IDMapping(parsing: argument) else { return nil }
        self.mapping = mapping
    }
}
