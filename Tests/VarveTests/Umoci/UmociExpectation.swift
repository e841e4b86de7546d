import SystemPackage
import TestSupport
import VarveSystem

/// What varve, called umoci, owes where umoci writes something: the same, but for what Docs/umoci.md lists under "What
/// differs". Every function is one or some rows of that list.
enum UmociExpectation {
    /// Standard output. Of a wrong flag umoci says all that its help says.
    static func output(_ theirs: String) -> String { theirs.hasPrefix("Incorrect Usage") ? "" : theirs }

    /// Whether varve may refuse what umoci takes: a root file system that is not there.
    static func isRefusedByVarveAlone(_ words: [String], _ ours: CommandResult) -> Bool {
        ours.status != 0 && words.first == "raw" && words.contains { $0.hasPrefix("--rootfs") }
            && ours.errorText.contains("No such file or directory")
    }

    /// The mode of a file that a command wrote into a layout.
    static func mode(_ theirs: UInt32) -> UInt32 { theirs == 0o600 ? 0o644 : theirs }

    /// Whether a file may lie in a bundle of varve's alone: what the directory driver knows of the tree.
    static func isOwnFile(_ name: BytePath) -> Bool { name.description.hasSuffix(".record") }

    /// `umoci.json`: what 0.6.0 writes. 0.4.7 says besides how deletions are kept, of which there is one way.
    static func metadata(_ theirs: LayoutDocument) -> LayoutDocument {
        var members = theirs.members ?? [:]
        if members["whiteout_mode"] == .number("0") { members["whiteout_mode"] = nil }
        return .object(members)
    }

    /// `config.json`.
    static func configuration(_ theirs: LayoutDocument) -> LayoutDocument {
        var document = theirs.members ?? [:]
        document["ociVersion"] = .string("1.0.0")

        var process = document["process"]?.members ?? [:]
        var capabilities = process["capabilities"]?.members ?? [:]
        for set in ["inheritable", "ambient"] { capabilities[set] = nil }
        process["capabilities"] = .object(capabilities)
        process["cwd"] = process["cwd"].map(absolute)
        document["process"] = .object(process)

        var linux = document["linux"]?.members ?? [:]
        // Since 0.5.
        let cgroup = LayoutDocument.object(["type": .string("cgroup")])
        let namespaces = (linux["namespaces"]?.elements ?? []).filter { $0 != cgroup }
        linux["namespaces"] = .array([cgroup] + namespaces)
        let masked = ["/proc/acpi", "/proc/asound", "/proc/keys"].map { LayoutDocument.string($0) }
        linux["maskedPaths"] = linux["maskedPaths"].map { .array(($0.elements ?? []) + masked) }
        linux["readonlyPaths"] = linux["readonlyPaths"].map {
            .array(($0.elements ?? []).filter { !masked.contains($0) })
        }
        document["linux"] = .object(linux)

        document["mounts"] = document["mounts"].map { mounts in
            .array(
                (mounts.elements ?? []).map { mount in
                    var mount = mount.members ?? [:]
                    mount["destination"] = mount["destination"].map(absolute)
                    if mount["source"] == .string("/etc/resolv.conf") {
                        mount["options"] = .array(
                            ["rbind", "nosuid", "noexec", "nodev", "ro"].map { .string($0) })
                    }
                    return .object(mount)
                })
        }

        let nothing = ["", "0001-01-01T00:00:00Z"].map { LayoutDocument.string($0) }
        let annotations = document["annotations"]?.members ?? [:]
        document["annotations"] = .object(
            annotations.filter {
                !($0.key.hasPrefix("org.opencontainers.image.") && nothing.contains($0.value))
            })
        return .object(document)
    }

    /// From the root, where a path is none.
    private static func absolute(_ path: LayoutDocument) -> LayoutDocument {
        guard let text = path.text, !text.hasPrefix("/") else { return path }
        return .string("/" + text)
    }

    /// The same for all orders of which a runtime does not care; 0.4.7 writes volumes in an order by chance.
    static func sorted(_ configuration: LayoutDocument) -> LayoutDocument {
        configuration.mapMembers { key, value in
            guard ["maskedPaths", "readonlyPaths", "mounts"].contains(key), let elements = value.elements
            else {
                return value
            }
            return .array(elements.sorted { "\($0)" < "\($1)" })
        }
    }
}
