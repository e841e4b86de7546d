import ArgumentParser
import Glibc
import VarveLayers
import VarveOCI
import VarveStore
import VarveSystem

/// Whose files become, as umoci says it. `unpack` declares these options itself.
struct OwnerOptions: ParsableArguments {
    @Option(help: .uidMap)
    var uidMap: [IDMapArgument] = []

    @Option(help: .gidMap)
    var gidMap: [IDMapArgument] = []

    @Flag(help: .rootless)
    var rootless = false

    var mapping: OwnerMapping { OwnerMapping(uidMap: uidMap, gidMap: gidMap, rootless: rootless) }
}

extension ArgumentHelp {
    static let uidMap = ArgumentHelp(
        "A range of users of the image and where it lies on the host; may be repeated.",
        valueName: "container:host:size")
    static let gidMap = ArgumentHelp(
        "The same for groups; may be repeated.", valueName: "container:host:size")
    static let rootless = ArgumentHelp(
        "Need no privileges: files are the caller's, their owners kept beside, devices empty files.")
}

extension OwnerMapping {
    /// Rootless, root of the image is the caller unless a map says who.
    init(uidMap: [IDMapArgument], gidMap: [IDMapArgument], rootless: Bool) {
        self.init(uids: uidMap.map(\.mapping), gids: gidMap.map(\.mapping), isRootless: rootless)
        if rootless, uidMap.isEmpty { uids = [IDMapping(containerID: 0, hostID: geteuid(), size: 1)] }
        if rootless, gidMap.isEmpty { gids = [IDMapping(containerID: 0, hostID: getegid(), size: 1)] }
    }

    /// Throws, before anything is done, for a map that the kernel does not take, and if the image's root is somebody else than
    /// the caller, who is not root: only root may give files away.
    func checkPrivileges() throws {
        try check()
        guard geteuid() != 0, !isRootless else { return }
        if let root = try? root(), root == (geteuid(), getegid()) { return }
        throw CommandError(
            "only root may make files that belong to other users, as those of an image do",
            code: .unsupported, remedy: "run as root, or give --rootless")
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
