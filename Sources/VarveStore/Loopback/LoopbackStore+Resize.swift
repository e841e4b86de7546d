import VarveBtrfs
package import Logging
package import VarveSystem
import SystemPackage

extension LoopbackStore {
    /// What a store is to become.
    package enum NewSize: Sendable {
        case bytes(Int64)
        /// By so many bytes more, or fewer.
        case by(Int64)
    }

    /// The loop device on which the store that is mounted at `path` lies.
    ///
    /// - Throws: `unsupported` where it is not in its image file.
    static func device(of path: BytePath, image: FileDescriptor) throws(VarveError) -> AttachedFile {
        let (source, file, attached) = try attempt("look at the mount of", path) {
            () throws(Errno) -> (BytePath?, BytePath, [AttachedFile]) in
            let directory = try FileDescriptor.workingDirectory.openDirectory(path)
            let id = try directory.fd.mountID()
            return (
                try MountTable.read().last { $0.id == id }?.source, try image.path(), try AttachedFile.all()
            )
        }
        guard let device = attached.first(where: { $0.device == source && $0.file == file }) else {
            throw VarveError(
                .unsupported,
                "the store at \"\(path)\" does not lie in its image file \"\(LoopbackStore.image(of: path))\"",
                subject: path, remedy: .follow("unmount what lies there, and mount the store"))
        }
        return device
    }

    /// Makes a mounted store larger or smaller, while it is used.
    ///
    /// - Returns: the bytes that its image file has now.
    /// - Throws: `noSpace` where what is in it does not fit.
    @discardableResult
    package static func resize(_ path: BytePath, to size: NewSize, logger: Logger) throws -> Int64 {
        let store = try SnapshotStore.open(at: path, logger: logger)
        guard try hasImage(path), try isMountPoint(path) else {
            throw VarveError(
                .unsupported, "the store at \"\(path)\" is not in an image file of its own", subject: path,
                remedy: .follow("enlarge or shrink its file system with the means of that"))
        }
        let name = image(of: path)
        let file = try openImage(of: path)
        let lock = try lockImage(file.fd, path)
        defer { extendLifetime(lock) }
        let device = try device(of: path, image: file.fd)
        let old = try attempt("look at", name) { () throws(Errno) in try file.fd.status().size }
        racePoint("resize-store")
        // In whole blocks of btrfs, as its file system counts.
        let wanted = try newSize(size, from: old, path) / 4096 * 4096
        guard wanted >= minimumSize else {
            throw VarveError(
                .usage, "a loopback store needs at least \(minimumSize >> 20) MiB", subject: path,
                remedy: .follow("give a larger size"))
        }
        try warnOfSize(wanted, of: file.fd, path, logger)
        // The kernel gives a device the size of its file; what is larger for a moment harms nobody.
        let loop = try attempt("open", device.device) { () throws(Errno) in
            SharedDescriptor(try FileDescriptor.workingDirectory.open(device.device, [.readWrite]))
        }
        func fit(_ bytes: Int64) throws(VarveError) {
            try attempt("change the size of", name) { () throws(Errno) in
                try file.fd.setSize(bytes)
                try loop.fd.fitLoopDevice()
                try file.fd.synchronize()
            }
        }
        if wanted > old { try fit(wanted) }
        do throws(Errno) {
            try store.directory.fd.resizeFileSystem(to: UInt64(wanted))
        } catch {
            if wanted > old { try? fit(old) }
            if error == .noSpace {
                throw VarveError(
                    .noSpace, "what is in the store at \"\(path)\" does not fit into \(byteCount(wanted))",
                    subject: path, remedy: .follow("collect garbage and remove snapshots, or leave it larger")
                )
            }
            throw VarveError.system("change the size of the file system at", path, error)
        }
        if wanted < old {
            try attempt("commit a transaction of", path) { () throws(Errno) in
                try store.directory.fd.synchronizeFileSystem()
            }
            try fit(wanted)
        }
        return wanted
    }

    private static func newSize(_ size: NewSize, from old: Int64, _ path: BytePath) throws(VarveError)
        -> Int64
    {
        switch size {
        case .bytes(let bytes): return bytes
        case .by(let change):
            let (sum, overflow) = old.addingReportingOverflow(change)
            guard !overflow else {
                throw VarveError(
                    .usage, "the size of the store at \"\(path)\" would be more than a file can have",
                    subject: path, remedy: .name("a smaller size"))
            }
            return sum
        }
    }
}
