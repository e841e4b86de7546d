import CLinux
import Glibc
package import SystemPackage

/// The `*at` family, each anchored at a directory descriptor. The last component of a path is never followed when it
/// is a symbolic link; where links in the middle count, `open` with a `Resolution` is the way.
extension FileDescriptor {
    /// `AT_FDCWD`: paths are relative to the working directory of the process.
    package static let workingDirectory = FileDescriptor(rawValue: AT_FDCWD)

    /// openat2(2). EAGAIN and EINTR are tried again.
    package func open(
        _ path: BytePath, _ flags: OpenFlags, mode: UInt32 = 0, resolve: Resolution = []
    ) throws(Errno) -> OwnedDescriptor {
        let fd = unsafe path.withCString { name in
            unsafe varve_openat2(
                rawValue, name, UInt64(UInt32(bitPattern: flags.rawValue)) | UInt64(O_CLOEXEC), UInt64(mode),
                resolve.rawValue)
        }
        guard fd >= 0 else { throw Errno(rawValue: errno) }
        return OwnedDescriptor(owning: FileDescriptor(rawValue: fd))
    }

    /// Opens a directory below this one for listing, following no symbolic link.
    package func openDirectory(_ path: BytePath) throws(Errno) -> OwnedDescriptor {
        try open(path, [.directory, .noFollow])
    }

    /// Opens the file that this descriptor, which may be `O_PATH`, stands for: that very file, whatever has its name by now
    /// (proc_pid_fd(5)).
    package func reopened(_ flags: OpenFlags) throws(Errno) -> OwnedDescriptor {
        try FileDescriptor.workingDirectory.open(BytePath("/proc/self/fd/\(rawValue)"), flags)
    }

    /// fstat(2).
    package func status() throws(Errno) -> FileStatus {
        var raw = Glibc.stat()
        guard unsafe Glibc.fstat(rawValue, &raw) == 0 else { throw Errno(rawValue: errno) }
        return FileStatus(raw)
    }

    /// The number of the mount that this file was reached through (statx(2), `STATX_MNT_ID`), as the mount table has it.
    package func mountID() throws(Errno) -> UInt64 {
        var raw = Glibc.stat()
        var id: UInt64 = 0
        try unsafe check(varve_status_and_mount(rawValue, "", &raw, &id))
        return id
    }

    /// fstatat(2) with AT_SYMLINK_NOFOLLOW.
    package func status(of name: BytePath) throws(Errno) -> FileStatus {
        var raw = Glibc.stat()
        let result = unsafe name.withCString { unsafe fstatat(rawValue, $0, &raw, AT_SYMLINK_NOFOLLOW) }
        guard result == 0 else { throw Errno(rawValue: errno) }
        return FileStatus(raw)
    }

    /// What `name` in this directory is, and on which mount: one system call, statx(2) with AT_SYMLINK_NOFOLLOW. A mount on the
    /// name, of a file too, is looked at and not what it hides; its number (`STATX_MNT_ID`, Linux 5.8) is another than that of
    /// the directory. `.` is the directory itself. Nil if nothing has that name.
    package func mountedStatusIfPresent(of name: BytePath) throws(Errno) -> MountedStatus? {
        var raw = Glibc.stat()
        var mount: UInt64 = 0
        let result = unsafe name.withCString { unsafe varve_status_and_mount(rawValue, $0, &raw, &mount) }
        guard result == 0 else {
            if errno == ENOENT { return nil }
            throw Errno(rawValue: errno)
        }
        return MountedStatus(status: FileStatus(raw), mount: mount)
    }

    /// fstatat(2) with AT_SYMLINK_NOFOLLOW; nil if nothing has that name.
    package func statusIfPresent(of name: BytePath) throws(Errno) -> FileStatus? {
        do {
            return try status(of: name)
        } catch .noSuchFileOrDirectory {
            return nil
        }
    }

    /// mkdirat(2); the process's umask applies.
    package func makeDirectory(_ name: BytePath, mode: UInt32) throws(Errno) {
        try unsafe check(name.withCString { unsafe mkdirat(rawValue, $0, mode) })
    }

    /// unlinkat(2) of anything but a directory.
    package func unlink(_ name: BytePath) throws(Errno) {
        try unsafe check(name.withCString { unsafe unlinkat(rawValue, $0, 0) })
    }

    /// unlinkat(2) with AT_REMOVEDIR.
    package func removeDirectory(_ name: BytePath) throws(Errno) {
        try unsafe check(name.withCString { unsafe unlinkat(rawValue, $0, AT_REMOVEDIR) })
    }

    /// renameat2(2).
    package func rename(
        _ name: BytePath, to directory: FileDescriptor, _ newName: BytePath, replacing: Bool = true
    ) throws(Errno) {
        let flags = replacing ? 0 : VARVE_RENAME_NOREPLACE
        durabilityPoint()
        try unsafe check(
            name.withCString { from in
                unsafe newName.withCString { to in
                    unsafe varve_renameat2(rawValue, from, directory.rawValue, to, flags)
                }
            })
        durabilityPoint()
    }

    /// renameat2(2) with RENAME_EXCHANGE.
    package func exchange(_ name: BytePath, with directory: FileDescriptor, _ other: BytePath) throws(Errno) {
        try unsafe check(
            name.withCString { from in
                unsafe other.withCString { to in
                    unsafe varve_renameat2(rawValue, from, directory.rawValue, to, VARVE_RENAME_EXCHANGE)
                }
            })
    }

    /// linkat(2); a symbolic link is linked itself, not followed.
    package func link(_ name: BytePath, to directory: FileDescriptor, _ newName: BytePath) throws(Errno) {
        try unsafe check(
            name.withCString { from in
                unsafe newName.withCString { to in unsafe linkat(rawValue, from, directory.rawValue, to, 0) }
            })
    }

    /// symlinkat(2).
    package func makeSymbolicLink(_ name: BytePath, target: BytePath) throws(Errno) {
        try unsafe check(
            target.withCString { target in unsafe name.withCString { unsafe symlinkat(target, rawValue, $0) }
            })
    }

    /// mknodat(2). `mode` holds the type bits; the process's umask applies.
    package func makeNode(_ name: BytePath, mode: UInt32, major: UInt32, minor: UInt32) throws(Errno) {
        try unsafe check(name.withCString { unsafe varve_mknodat(rawValue, $0, mode, major, minor) })
    }

    /// The absolute path of what this descriptor has open (proc_pid_fd(5)). The kernel appends " (deleted)" to that of
    /// what has no name any more.
    package func path() throws(Errno) -> BytePath {
        try FileDescriptor.workingDirectory.readSymbolicLink(BytePath("/proc/self/fd/\(rawValue)"))
    }

    /// Whether the caller may write to `name` in this directory (faccessat2(2), AT_EACCESS); EROFS if it lies in a read-only
    /// subvolume or mount, also for root.
    package func checkWritable(_ name: BytePath) throws(Errno) {
        try unsafe check(name.withCString { unsafe faccessat(rawValue, $0, W_OK, AT_EACCESS) })
    }

    /// readlinkat(2), however long the target is (`PATH_MAX` at most on Linux).
    package func readSymbolicLink(_ name: BytePath) throws(Errno) -> BytePath {
        var buffer = [UInt8](repeating: 0, count: 4097)
        let length = unsafe name.withCString { name in
            unsafe buffer.withUnsafeMutableBytes { bytes in
                guard let base = bytes.baseAddress else { return -1 }
                return unsafe readlinkat(
                    rawValue, name, base.assumingMemoryBound(to: CChar.self), bytes.count)
            }
        }
        guard length >= 0 else { throw Errno(rawValue: errno) }
        guard let target = BytePath(buffer.prefix(length)) else { throw .invalidArgument }
        return target
    }

    /// fchownat(2) with AT_SYMLINK_NOFOLLOW. The kernel clears set-ID bits and file capabilities of a regular file.
    package func changeOwner(of name: BytePath, uid: UInt32, gid: UInt32) throws(Errno) {
        try unsafe check(name.withCString { unsafe fchownat(rawValue, $0, uid, gid, AT_SYMLINK_NOFOLLOW) })
    }

    /// fchown(2).
    package func changeOwner(uid: UInt32, gid: UInt32) throws(Errno) { try check(fchown(rawValue, uid, gid)) }

    /// Takes the access control lists of a file or directory away, such as it inherits from where it is made.
    package func removeAccessControlLists() throws(Errno) {
        for name: BytePath in ["system.posix_acl_access", "system.posix_acl_default"] {
            do throws(Errno) {
                // What is not there is not taken away: that would be a change too.
                if try extendedAttribute(name) != nil { try removeExtendedAttribute(name) }
            } catch .notSupported {
            }
        }
    }

    /// Gives the file to the caller, if it is another's.
    package func makeOwn() throws(Errno) {
        let status = try status()
        if status.uid == geteuid(), status.gid == getegid() { return }
        try changeOwner(uid: geteuid(), gid: getegid())
    }

    /// fchmodat(3) with AT_SYMLINK_NOFOLLOW. EOPNOTSUPP for a symbolic link, whose mode means nothing on Linux.
    package func changeMode(of name: BytePath, to permissions: UInt32) throws(Errno) {
        try unsafe check(name.withCString { unsafe fchmodat(rawValue, $0, permissions, AT_SYMLINK_NOFOLLOW) })
    }

    /// fchmod(2).
    package func changeMode(to permissions: UInt32) throws(Errno) { try check(fchmod(rawValue, permissions)) }

    /// utimensat(2) with AT_SYMLINK_NOFOLLOW.
    package func setTimes(of name: BytePath, access: Timestamp, modification: Timestamp) throws(Errno) {
        var times = (access.timespec, modification.timespec)
        let result = unsafe name.withCString { name in
            unsafe withUnsafeBytes(of: &times) { raw in
                unsafe utimensat(
                    rawValue, name, raw.baseAddress?.assumingMemoryBound(to: timespec.self),
                    AT_SYMLINK_NOFOLLOW)
            }
        }
        try check(result)
    }

    /// futimens(3).
    package func setTimes(access: Timestamp, modification: Timestamp) throws(Errno) {
        var times = (access.timespec, modification.timespec)
        let result = unsafe withUnsafeBytes(of: &times) { raw in
            unsafe futimens(rawValue, raw.baseAddress?.assumingMemoryBound(to: timespec.self))
        }
        try check(result)
    }

    /// Changes what is in this directory without a trace in its times.
    package func keepingTimes(_ body: () throws(Errno) -> Void) throws(Errno) {
        let before = try status()
        try body()
        try setTimes(access: before.accessTime, modification: before.modificationTime)
    }

    /// fsync(2): a file's data and metadata, or a directory's entries, are on disk when it returns.
    package func synchronize() throws(Errno) {
        try check(fsync(rawValue))
        durabilityPoint()
    }

    /// syncfs(2): the whole file system is on disk when it returns.
    package func synchronizeFileSystem() throws(Errno) { try check(varve_syncfs(rawValue)) }

    /// Copies the content of a file to this one, which is empty, by copy_file_range(2), which shares blocks where both lie on one btrfs, else by
    /// reading and writing. A hole stays one: it cost whoever made it nothing. What is appended meanwhile is not copied.
    ///
    /// - Parameter check: asked after each piece, which has at most 64 MiB.
    package func copy(contentsOf source: FileDescriptor, check: () throws(Errno) -> Void) throws(Errno) {
        // Whoever else may write to it may write for ever.
        let size = try source.status().size
        var offset: Int64 = 0
        while offset < size, let start = try source.nextData(from: offset) {
            // SEEK_HOLE of linux/fs.h. There is one at the end of each file; where the file system cannot tell, all is data.
            let hole = Glibc.lseek(source.rawValue, Int(start), 4)
            let end = min(hole >= 0 ? Int64(hole) : .max, size)
            offset = start
            while offset < end {
                try check()
                let count = try copyPiece(of: source, at: offset, Int(min(end - offset, 64 << 20)))
                if count == 0 { return try setSize(max(offset, size)) }
                offset += Int64(count)
            }
        }
        try setSize(size)
    }

    /// - Returns: the bytes that were copied; 0 at the end of the file.
    private func copyPiece(of source: FileDescriptor, at offset: Int64, _ count: Int) throws(Errno) -> Int {
        for fd in [source.rawValue, rawValue] where Glibc.lseek(fd, Int(offset), SEEK_SET) < 0 {
            throw Errno(rawValue: errno)
        }
        let copied = varve_copy_file_range(source.rawValue, rawValue, count)
        if copied >= 0 { return copied }
        switch Errno(rawValue: errno) {
        case .interrupted, .improperLink, .invalidArgument, .noFunction, .notSupportedOnSocket: break
        case let error: throw error
        }
        var piece = [UInt8](repeating: 0, count: min(count, 1 << 20))
        let result = unsafe piece.withUnsafeMutableBytes { buffer -> Result<Int, Errno> in
            do throws(Errno) {
                let count = try unsafe source.readFull(into: buffer, at: offset)
                try unsafe writeFull(UnsafeRawBufferPointer(rebasing: buffer[..<count]), at: offset)
                return .success(count)
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    /// posix_fallocate(3) of the first `bytes`: they take room from now on, and what they hold stays.
    package func allocate(bytes: Int64) throws(Errno) {
        let error = posix_fallocate(rawValue, 0, Int(bytes))
        if error != 0 { throw Errno(rawValue: error) }
    }

    /// ftruncate(2).
    package func setSize(_ bytes: Int64) throws(Errno) { try check(ftruncate(rawValue, Int(bytes))) }

    private func check(_ result: CInt) throws(Errno) {
        if result != 0 { throw Errno(rawValue: errno) }
    }
}
