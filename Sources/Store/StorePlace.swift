import Glibc
import SystemCalls
import SystemPackage

/// Directories that were made for something that may yet fail.
struct MadeDirectories {
    private var paths: [BytePath] = []

    mutating func add(_ path: BytePath) { paths.append(path) }

    /// Takes those away again that are still empty, the last made first.
    func remove() {
        for path in paths.reversed() { try? FileDescriptor.workingDirectory.removeDirectory(path) }
    }
}

/// Whether a place is the caller's own, so that nobody else can put something into a store or another in its place.
/// Root is trusted, and so is who owns a directory on the way.
extension SnapshotStore {
    /// A symbolic link that another user has put there leads to where that user wants.
    static func checkLink(_ path: BytePath) throws(StoreError) {
        let status = try attempt("look at", path) { () throws(Errno) in
            try FileDescriptor.workingDirectory.statusIfPresent(of: path)
        }
        guard let status, status.type == .symbolicLink, status.uid != 0, status.uid != geteuid() else {
            return
        }
        throw StoreError(
            .failed,
            "\"\(path)\" cannot be a store: it is a symbolic link of another user (uid \(status.uid)); name the directory itself"
        )
    }

    /// Throws unless the directory is the caller's, and nobody else may write to it or to one above it; in one with the
    /// sticky bit, such as /tmp, nobody can move what is another's.
    static func requireOwnPlace(_ directory: FileDescriptor, _ path: BytePath) throws(StoreError) {
        let status = try attempt("look at", path) { () throws(Errno) in try directory.status() }
        guard status.uid == geteuid() else {
            throw StoreError(
                .failed,
                "\"\(path)\" cannot be a store: it belongs to another user (uid \(status.uid)); name a directory of your own"
            )
        }
        if status.mode & 0o022 != 0 {
            throw StoreError(
                .failed,
                "\"\(path)\" cannot be a store: others may write to it (mode \(String(status.permissions, radix: 8))); take that away with chmod go-w"
            )
        }
        var above = try attempt("look above", path) { () throws(Errno) in
            try directory.open("..", [.directory, .path])
        }
        while true {
            let (current, next) = try attempt("look above", path) { () throws(Errno) in
                (try above.fd.status(), try above.fd.status(of: ".."))
            }
            // The group of the caller's own is taken for one that nobody else is in, as many hosts have it.
            let isOpenToGroup = current.mode & 0o020 != 0 && current.gid != 0 && current.gid != getegid()
            if current.mode & 0o1000 == 0, isOpenToGroup || current.mode & 0o002 != 0 {
                let link = BytePath("/proc/self/fd/\(above.fd.rawValue)")
                let name = (try? FileDescriptor.workingDirectory.readSymbolicLink(link)) ?? path.parent
                throw StoreError(
                    .failed,
                    "\"\(path)\" cannot be a store: others may write to \"\(name)\" above it (mode \(String(current.permissions, radix: 8))), and put another in its place; take that away with chmod go-w \(name)"
                )
            }
            if current.device == next.device, current.inode == next.inode { return }
            above = try attempt("look above", path) { () throws(Errno) in
                try above.fd.open("..", [.directory, .path])
            }
        }
    }
}
