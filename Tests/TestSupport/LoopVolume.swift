import Glibc
package import VarveSystem
package import SystemPackage

/// A btrfs of its own for one test: a sparse image file on a loop device, mounted at a fresh directory, all of which
/// is gone when the value goes away. Needs `CAP_SYS_ADMIN`, the loop driver and `mkfs.btrfs`.
///
/// Image and mount point are named `varve-test-PID-RANDOM.img` and `varve-test-PID-RANDOM` below `$TMPDIR` or
/// `/var/tmp`, so that leftovers of killed processes can be recognised.
package struct LoopVolume: ~Copyable, Sendable {
    /// The mount point.
    package let path: BytePath
    /// The root of the file system, open for listing. It is closed with the volume.
    package let root: FileDescriptor
    /// `/dev/loopN`.
    package let devicePath: BytePath

    /// - Parameters:
    ///   - size: bytes; the file is sparse. mkfs.btrfs refuses less than about 114 MB.
    ///   - flags: of mount(2); `noatime` unless told.
    ///   - options: of btrfs(5), with commas between them.
    ///   - format: further arguments of mkfs.btrfs.
    package init(
        size: Int64 = 2 << 30, flags: MountFlags = .noAccessTime, options: String = "", format: [String] = []
    ) throws {
        let parent = temporaryDirectory()
        let name = BytePath("varve-test-\(getpid())-" + randomName())
        let imageName = BytePath("\(name).img")
        let directory = try Self.attempt("open \(parent)") { () throws(Errno) in
            try FileDescriptor.workingDirectory.open(parent, [.directory])
        }
        let path = parent.appending(name)
        let imagePath = parent.appending(imageName)

        // The loop device keeps the file alive, so its name can go as soon as it is attached.
        defer { try? directory.fd.unlink(imageName) }
        let image = try Self.attempt("create \(imagePath)") { () throws(Errno) in
            let file = try directory.fd.open(imageName, [.readWrite, .create, .exclusive], mode: 0o600)
            try file.fd.setSize(size)
            return file
        }
        // It looks at all loop devices, and fails if one of another test goes away meanwhile.
        var attempts = 0
        while true {
            let result = try runCommand(["mkfs.btrfs", "-q"] + format + [imagePath.description])
            if result.status == 0 { break }
            attempts += 1
            guard attempts < 20, result.errorText.contains("cannot check mount status") else {
                throw TestSupportError("mkfs.btrfs ended with \(result.status): \(result.errorText)")
            }
        }
        let device = try Self.attempt("attach \(imagePath) to a loop device (needs CAP_SYS_ADMIN)") {
            () throws(Errno) in try LoopDevice(image: image.fd)
        }
        try Self.attempt("create \(path)") { () throws(Errno) in
            try directory.fd.makeDirectory(name, mode: 0o755)
        }
        do {
            try Self.attempt("mount \(device.path) at \(path) with \"\(options)\"") { () throws(Errno) in
                try mount(device.path, at: path, type: "btrfs", flags: flags, options: options)
            }
        } catch {
            try? directory.fd.removeDirectory(name)
            throw error
        }
        do {
            root = try Self.attempt("open \(path)") { () throws(Errno) in
                try directory.fd.open(name, [.directory, .noFollow])
            }.release()
        } catch {
            try? unmount(path, detaching: true)
            try? directory.fd.removeDirectory(name)
            throw error
        }
        self.path = path
        devicePath = device.path
        // `device` is closed here: from now on the mount holds it, and autoclear takes it apart with the mount.
    }

    deinit {
        _ = close(root.rawValue)
        do throws(Errno) {
            try unmount(path)
        } catch {
            // A descriptor of the test is still open: out of the tree now, away when that is closed.
            try? unmount(path, detaching: true)
        }
        try? FileDescriptor.workingDirectory.removeDirectory(path)
    }

    private static func attempt<R: ~Copyable>(_ what: String, _ body: () throws(Errno) -> R) throws -> R {
        do throws(Errno) {
            return try body()
        } catch {
            throw TestSupportError("cannot \(what): \(error)")
        }
    }
}
