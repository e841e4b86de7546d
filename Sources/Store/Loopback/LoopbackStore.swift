import Btrfs
import Glibc
public import Logging
public import SystemCalls
import SystemPackage

/// A store for hosts with no btrfs: a btrfs in an image file beside the store's directory, mounted there.
///
/// The image of the store `PATH` is `PATH.btrfs`. Mounting is the caller's business after a reboot (`varve store mount`).
public enum LoopbackStore {
    /// The smallest that mkfs.btrfs takes with room for a store, in bytes.
    public static let minimumSize: Int64 = 256 << 20

    /// The image file of the store at `path`.
    public static func image(of path: BytePath) -> BytePath {
        var bytes = Array(path.bytes)
        while bytes.count > 1, bytes.last == UInt8(ascii: "/") { bytes.removeLast() }
        return (BytePath(bytes) ?? path).appendingBytes(".btrfs")
    }

    /// Whether there is an image file for a store at `path`, mounted or not.
    static func hasImage(_ path: BytePath) -> Bool {
        ((try? FileDescriptor.workingDirectory.statusIfPresent(of: image(of: path))) ?? nil) != nil
    }

    /// Makes the image file, formats it, mounts it at `path` and makes a store there. What an error leaves half done is
    /// taken away again.
    ///
    /// - Parameter size: of the image, in bytes; blocks are taken from the host as they are used.
    public static func create(at path: BytePath, size: Int64, logger: Logger) throws -> SnapshotStore {
        guard size >= minimumSize else {
            throw StoreError(
                .usage,
                "a loopback store needs at least \(minimumSize >> 20) MiB; give a larger --loopback SIZE")
        }
        let image = image(of: path)
        guard geteuid() == 0 else {
            throw StoreError(
                .unsupported, "only root may mount \"\(image)\"; run as root, or make a store on a btrfs")
        }
        let directory = try SnapshotStore.makeDirectory(path)
        let entries = try attempt("list the directory", path) { () throws(Errno) in try directory.fd.entries()
        }
        guard entries.isEmpty else {
            throw StoreError(
                .failed,
                "\"\(path)\" cannot become a loopback store: it is not empty; name an empty directory")
        }
        try makeImage(image, size: size, of: path)
        do {
            try format(image)
            try mount(at: path)
            do {
                return try SnapshotStore.initialize(at: path, logger: logger)
            } catch {
                try? unmount(path)
                throw error
            }
        } catch {
            try? FileDescriptor.workingDirectory.unlink(image)
            throw error
        }
    }

    private static func makeImage(_ image: BytePath, size: Int64, of path: BytePath) throws {
        do throws(Errno) {
            let file = try FileDescriptor.workingDirectory.open(
                image, [.readWrite, .create, .exclusive, .noFollow], mode: 0o600)
            do throws(Errno) {
                try file.fd.setSize(size)
            } catch {
                try? FileDescriptor.workingDirectory.unlink(image)
                throw error
            }
        } catch .fileExists {
            throw StoreError(
                .failed, "\"\(image)\" exists already; mount that store with: varve store mount \(path)")
        } catch {
            throw StoreError.system("make the image file", image, error)
        }
    }

    /// Mounts an existing loopback store, `noatime`. Does nothing if it is mounted.
    public static func mount(at path: BytePath) throws {
        let image = image(of: path)
        let file: OwnedDescriptor
        do throws(Errno) {
            file = try FileDescriptor.workingDirectory.open(image, [.readWrite, .noFollow])
        } catch .noSuchFileOrDirectory {
            throw StoreError(
                .notFound,
                "there is no loopback store at \"\(path)\" (\"\(image)\" is missing); make one with: varve store init \(path) --loopback SIZE"
            )
        } catch {
            throw StoreError.system("open the image file", image, error)
        }
        let directory = try SnapshotStore.makeDirectory(path)
        let isBtrfs = try attempt("look at", path) { () throws(Errno) in try directory.fd.fileSystem().isBtrfs
        }
        if isBtrfs, try isMountPoint(path) { return }
        do throws(Errno) {
            let device = try LoopDevice(image: file.fd)
            // The kernel takes the device apart when it is unmounted: it is attached with autoclear.
            try SystemCalls.mount(
                device.path, at: path, type: "btrfs", flags: .noAccessTime, options: "user_subvol_rm_allowed")
            extendLifetime(device)
        } catch .notPermitted {
            throw StoreError(.unsupported, "only root may mount \"\(image)\"; run as root")
        } catch .permissionDenied {
            throw StoreError(.unsupported, "only root may mount \"\(image)\"; run as root")
        } catch  where error == Errno(rawValue: ENODEV) {
            throw StoreError(
                .unsupported, "this kernel has no btrfs; load it (modprobe btrfs) or use another kernel")
        } catch .noSuchFileOrDirectory {
            throw StoreError(.unsupported, "this host has no loop devices; load them (modprobe loop)")
        } catch {
            throw StoreError.system("mount the store at", path, error)
        }
    }

    /// Unmounts a loopback store; the image stays.
    public static func unmount(_ path: BytePath) throws {
        guard try isMountPoint(path) else {
            throw StoreError(.notFound, "no store is mounted at \"\(path)\"")
        }
        do throws(Errno) {
            try SystemCalls.unmount(path)
        } catch .resourceBusy {
            throw StoreError(
                .failed,
                "\"\(path)\" is in use; end what has files open there (lsof +f -- \(path)) and try again")
        } catch .notPermitted {
            throw StoreError(.unsupported, "only root may unmount \"\(path)\"; run as root")
        } catch {
            throw StoreError.system("unmount", path, error)
        }
    }

    private static func isMountPoint(_ path: BytePath) throws(StoreError) -> Bool {
        let here = FileDescriptor.workingDirectory
        return try attempt("look at", path) { () throws(Errno) in
            let directory = try here.open(path, [.directory, .path])
            let above = try directory.fd.status(of: "..")
            let status = try directory.fd.status()
            return above.device != status.device || above.inode == status.inode
        }
    }

    /// mkfs.btrfs(8). There is no library that formats a btrfs.
    private static func format(_ image: BytePath) throws {
        let outcome: ProgramOutcome
        do throws(Errno) {
            outcome = try runProgram(["mkfs.btrfs", "--quiet", "--label", "varve", "--", image])
        } catch .noSuchFileOrDirectory {
            throw StoreError(
                .unsupported, "mkfs.btrfs is not installed; install btrfs-progs (apt-get install btrfs-progs)"
            )
        } catch {
            throw StoreError.system("run mkfs.btrfs on", image, error)
        }
        guard outcome.status == 0 else {
            throw StoreError(.failed, "mkfs.btrfs cannot format \"\(image)\": \(outcome.lastWords)")
        }
    }
}
