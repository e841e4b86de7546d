import Glibc
import VarveSystem
import SystemPackage

/// Where targets make files: in the directory that `$VARVE_FUZZ_SCRATCH` names (Scripts/fuzz removes it, also after a
/// crash), else in one in memory, which goes when the process ends by itself.
enum FuzzScratch {
    private static let shared = Result { try make() }

    /// A directory of this name, empty, made once in a process.
    static func make(_ name: BytePath) throws -> (path: BytePath, directory: SharedDescriptor) {
        let (path, parent) = try shared.get()
        try parent.fd.makeDirectory(name, mode: 0o755)
        return (path.appending(name), SharedDescriptor(try parent.fd.openDirectory(name)))
    }

    private static func make() throws -> (path: BytePath, directory: SharedDescriptor) {
        let top = unsafe getenv("VARVE_FUZZ_SCRATCH").map { unsafe String(cString: $0) } ?? "/dev/shm"
        let path = BytePath(top).appending("varve-fuzz-\(getpid())")
        try FileDescriptor.workingDirectory.makeDirectory(path, mode: 0o755)
        atexit {
            if case .success(let (path, _)) = FuzzScratch.shared {
                try? FuzzScratch.remove(path, from: FileDescriptor.workingDirectory)
            }
        }
        return (path, SharedDescriptor(try FileDescriptor.workingDirectory.openDirectory(path)))
    }

    static func remove(_ name: BytePath, from directory: FileDescriptor) throws {
        guard try directory.status(of: name).isDirectory else { return try directory.unlink(name) }
        let opened = SharedDescriptor(try directory.openDirectory(name))
        defer { extendLifetime(opened) }
        for entry in try opened.fd.entries() { try remove(entry.name, from: opened.fd) }
        try directory.removeDirectory(name)
    }
}
