package import SystemPackage

extension Place {
    /// Whether something lies in the root file system of a bundle (OCI runtime-spec, bundle.md). Root of a container is root to the kernel, and what
    /// belongs to root there is no safer than what belongs to another user: it can put anything in the place of what a path leads to.
    ///
    /// - Parameter opened: a file or a directory.
    package static func isInContainer(_ opened: FileDescriptor) throws(Errno) -> Bool {
        let path = try opened.path()
        let components = path.components
        for (index, name) in components.enumerated() where name == "rootfs" {
            let bundle = BytePath("/").appending(BytePath(joining: Array(components[..<index])))
            for document in ["umoci.json", "config.json"] as [BytePath] {
                let found = try FileDescriptor.workingDirectory.statusIfPresent(
                    of: bundle.appending(document))
                if found != nil { return true }
            }
        }
        return false
    }
}
