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
        /// Runs `look` on the directory `name`; false if the caller may give itself the permission that it lacks.
        func look(
            _ name: BytePath, in parent: FileDescriptor, _ path: @autoclosure () -> BytePath,
            _ look: () throws(Errno) -> Void
        )
            throws -> Bool
        {
            do throws(Errno) {
                try look()
                return true
            } catch .permissionDenied {
                let status = try attempt("look at", path()) { () throws(Errno) in
                    try parent.status(of: name)
                }
                if status.uid == geteuid() { return false }
                throw StoreError(
                    .unsupported,
                    "the bundle \"\(bundle)\" cannot be deleted: the directory \"\(path())\" in it belongs to another user (uid \(status.uid))",
                    subject: bundle, remedy: .runAsRoot
                )
            } catch {
                throw StoreError.system("look into", path(), error)
            }
        }
        /// The entries of the directory that the way has reached. What is empty goes with its name alone.
        func entries(_ way: DirectoryDescent) throws(Errno) -> [DirectoryEntry] {
            let entries = try way.current.fd.entries()
            if !entries.isEmpty { try way.current.fd.checkWritable(.current) }
            return entries
        }
        func checkProtection(
            _ name: BytePath, in parent: FileDescriptor, _ path: @autoclosure () -> BytePath
        ) throws {
            let protection = try attempt("look at", path()) { () throws(Errno) in
                try parent.protection(of: name)
            }
            guard !protection.isEmpty else { return }
            let flag = protection.contains(.immutable) ? "i" : "a"
            throw StoreError(
                .unsupported,
                "the bundle \"\(bundle)\" cannot be deleted: \"\(path())\" in it bears the flag \(flag) of chattr(1), which only root can take away",
                subject: bundle, remedy: .clearFlag("\(flag)", of: path())
            )
        }
        try checkProtection(.current, in: directory, bundle)
        var way: DirectoryDescent?
        var pending: [[DirectoryEntry]] = []
        _ = try look(.current, in: directory, bundle) { () throws(Errno) in
            let first = SharedDescriptor(
                try directory.open(.current, [.directory, .noFollow], resolve: .noCrossing))
            let opened = try DirectoryDescent(first, resolve: .noCrossing)
            way = opened
            pending = [try entries(opened)]
        }
        guard let way else { return }
        while let top = pending.indices.last {
            guard let entry = pending[top].popLast() else {
                pending.removeLast()
                _ = try attempt("look into", bundle.appending(way.path)) { () throws(Errno) in try way.leave()
                }
                continue
            }
            let fd = way.current.fd
            // Made only for a message: deep down, the path is long.
            func path() -> BytePath { bundle.appending(way.path).appending(entry.name) }
            try checkProtection(entry.name, in: fd, path())
            let isDirectory =
                if let type = entry.type {
                    type == .directory
                } else {
                    try attempt("look at", path()) { () throws(Errno) in
                        try fd.status(of: entry.name).isDirectory
                    }
                }
            guard isDirectory else { continue }
            var isEntered = false
            let isOpen = try look(entry.name, in: fd, path()) { () throws(Errno) in
                try way.enter(entry.name)
                isEntered = true
                pending.append(try entries(way))
            }
            if !isOpen, isEntered {
                _ = try attempt("look into", bundle.appending(way.path)) { () throws(Errno) in
                    try way.leave()
                }
            }
        }
    }
}
