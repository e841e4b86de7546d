import VarveBtrfs
import Glibc
import VarveLayers
import VarveSystem
import SystemPackage

/// What forbids to delete a bundle: looked for before anything of it is moved, and again when the deletion failed all the
/// same, to say why.
struct RemovalObstacle {
    private let bundle: BytePath
    /// The bundle's directory.
    private let directory: FileDescriptor

    init(_ directory: FileDescriptor, _ bundle: BytePath) {
        self.directory = directory
        self.bundle = bundle
    }

    /// Throws if something forbids it.
    ///
    /// - Parameter walks: also looks at each directory and file, for a caller other than root whose bundle is a plain
    ///   directory: root can take away what forbids to list or delete a file.
    func check(walks: Bool) throws {
        if let obstacle = mount() ?? swapFile() { throw obstacle }
        if walks, geteuid() != 0 { try walk() }
    }

    /// What made a deletion fail that was begun; nil if it can not be told.
    func explanation() -> StoreError? { mount() ?? swapFile() }

    private func mount() -> StoreError? {
        guard let place = try? directory.path(), let mounts = try? MountTable.mounts(below: place) else {
            return nil
        }
        let points = mounts.map(\.point)
        guard let point = points.min() else { return nil }
        let others = points.count > 1 ? " (and \(points.count - 1) more)" : ""
        return StoreError(
            .unsupported,
            "the bundle \"\(bundle)\" cannot be deleted: something is mounted at \"\(point)\"\(others)",
            subject: bundle, remedy: .unmount(point, recursively: points.count > 1)
        )
    }

    private func swapFile() -> StoreError? {
        guard let place = try? directory.path(),
            let file = ActiveSwapFile.all().first(where: { $0.components.starts(with: place.components) })
        else { return nil }
        return StoreError(
            .unsupported,
            "the bundle \"\(bundle)\" cannot be deleted: \"\(file)\" is a swap file in use",
            subject: bundle, remedy: .turnOffSwap(file)
        )
    }

    /// Directories that cannot be listed or emptied, and files that flags keep.
    private func walk() throws {
        final class Level {
            let descriptor: OwnedDescriptor
            let path: BytePath
            var entries: [DirectoryEntry]
            init(_ descriptor: consuming OwnedDescriptor, _ path: BytePath) throws(Errno) {
                entries = try descriptor.fd.entries()
                self.descriptor = descriptor
                self.path = path
            }
        }
        func level(_ parent: FileDescriptor, _ name: BytePath, _ path: BytePath) throws -> Level? {
            do throws(Errno) {
                let level = try Level(
                    try parent.open(name, [.directory, .noFollow], resolve: .noCrossing), path)
                // What is empty goes with its name alone.
                if !level.entries.isEmpty { try level.descriptor.fd.checkWritable(.current) }
                return level
            } catch .permissionDenied {
                // The caller may give itself the permission.
                let status = try attempt("look at", path) { () throws(Errno) in try parent.status(of: name) }
                if status.uid == geteuid() { return nil }
                throw StoreError(
                    .unsupported,
                    "the bundle \"\(bundle)\" cannot be deleted: the directory \"\(path)\" in it belongs to another user (uid \(status.uid))",
                    subject: bundle, remedy: .runAsRoot
                )
            } catch {
                throw StoreError.system("look into", path, error)
            }
        }
        func checkProtection(_ name: BytePath, in parent: FileDescriptor, _ path: BytePath) throws {
            let protection = try attempt("look at", path) { () throws(Errno) in
                try parent.protection(of: name)
            }
            guard !protection.isEmpty else { return }
            let flag = protection.contains(.immutable) ? "i" : "a"
            throw StoreError(
                .unsupported,
                "the bundle \"\(bundle)\" cannot be deleted: \"\(path)\" in it bears the flag \(flag) of chattr(1), which only root can take away",
                subject: bundle, remedy: .clearFlag("\(flag)", of: path)
            )
        }
        try checkProtection(.current, in: directory, bundle)
        var levels = [try level(directory, .current, bundle)].compactMap { $0 }
        while let current = levels.last {
            guard let entry = current.entries.popLast() else {
                levels.removeLast()
                continue
            }
            let path = current.path.appending(entry.name)
            try checkProtection(entry.name, in: current.descriptor.fd, path)
            let isDirectory =
                if let type = entry.type {
                    type == .directory
                } else {
                    try attempt("look at", path) { () throws(Errno) in
                        try current.descriptor.fd.status(of: entry.name).isDirectory
                    }
                }
            if isDirectory, let below = try level(current.descriptor.fd, entry.name, path) {
                levels.append(below)
            }
        }
    }
}
