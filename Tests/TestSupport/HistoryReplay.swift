import CLinux
import CVarveBtrfsUtil
import Glibc
package import VarveSystem
package import SystemPackage

/// Carries operations out below one directory. Every path is resolved below it and through no symbolic link,
/// and nothing but a regular file or a directory is ever opened: a history that was shortened may find a
/// device or a link where it once had a file.
package final class HistoryReplay {
    private let tree: SharedDescriptor
    private var root: FileDescriptor { tree.fd }
    /// Files without a name that are kept alive.
    private var held = [SharedDescriptor]()
    /// What the operation under way has open: it stays so until that is done, whoever still refers to it.
    private var opened = [SharedDescriptor]()

    /// Files that stay open for writing, with a mapping of their first page where they have one.
    private var writers = [(file: SharedDescriptor, mapping: UInt?)]()

    package init(root: SharedDescriptor) { tree = root }

    deinit {
        for writer in writers {
            if let mapping = writer.mapping {
                unsafe munmap(UnsafeMutableRawPointer(bitPattern: mapping), 4096)
            }
        }
    }

    /// Writes to every file held. Returns whether anything was written.
    func writeLate(_ operation: HistoryOperation) -> Bool {
        let bytes = HistoryRandom.bytes(min(operation.count(1), 4096), seed: operation.number(2))
        var hasWritten = false
        for writer in writers {
            if (try? write(writer.file.fd, bytes, at: operation.number(0))) != nil { hasWritten = true }
            guard bytes.count.isMultiple(of: 2), let mapping = writer.mapping else { continue }
            // Through the mapping, by the kernel: what it may not write is an error (proc_pid_mem(5)), and no signal.
            guard let memory = try? FileDescriptor.workingDirectory.open("/proc/self/mem", [.writeOnly]),
                (try? write(memory.fd, bytes.prefix(64).map { ~$0 }, at: Int64(mapping))) != nil
            else { continue }
            hasWritten = true
        }
        return hasWritten
    }

    private func hold(_ path: BytePath) throws(Errno) {
        let file = try file(path)
        var mapping: UInt?
        if try file.fd.status().size >= 64 {
            let mapped = unsafe mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file.fd.rawValue, 0)
            if let mapped = unsafe mapped, unsafe mapped != MAP_FAILED { mapping = UInt(bitPattern: mapped) }
        }
        writers.append((file, mapping))
    }

    private struct Place {
        var directory: SharedDescriptor
        var fd: FileDescriptor { directory.fd }
        var name: BytePath
    }

    package func apply(_ operation: HistoryOperation) throws(Errno) {
        defer { opened = [] }
        guard operation.isQuiet else { return try perform(operation) }
        var times = [(place: Place, name: BytePath, status: FileStatus)]()
        for path in operation.paths {
            guard let place = try? place(path) else { continue }
            if let status = try? place.fd.status(of: place.name) { times.append((place, place.name, status)) }
            if let status = try? place.fd.status() { times.append((place, .current, status)) }
        }
        try perform(operation)
        for (place, name, status) in times {
            guard let now = try? place.fd.status(of: name), now.type == status.type else { continue }
            try? place.fd.setTimes(of: name, access: status.accessTime, modification: status.modificationTime)
        }
    }

    private func perform(_ operation: HistoryOperation) throws(Errno) {
        switch operation.verb {
        case .create, .tmpfile, .write, .append, .truncate, .punch, .zero, .allocate, .rewrite, .defrag,
            .fsync:
            try changeFile(operation)
        case .reflink, .clone, .copy, .dedupe: try changeTwoFiles(operation)
        case .read: try read(operation.word(0))
        case .hold: try hold(operation.word(0))
        case .sync: try root.synchronizeFileSystem()
        case .mkdir, .mkdirs, .symlink, .fifo, .device, .socket, .link, .links, .rename, .exchange:
            try changeNames(operation)
        case .unlink, .orphan, .rmdir, .rmtree: try remove(operation)
        case .replace, .twin: try duplicate(operation)
        case .chmod, .chown, .setattr, .delattr, .setcap, .setacl, .property, .touch, .same:
            try changeMetadata(operation)
        case .subvolume:
            let place = try place(operation.word(0))
            try HistorySubvolumes.create(place.fd, place.name)
        case .nest:
            let source = try directory(operation.word(0))
            let place = try place(operation.word(1))
            // Only ever a nested one: a snapshot of the tree itself would nest without end.
            guard try source.fd.status().inode == 256, try source.fd.status().device != root.status().device
            else { throw .invalidArgument }
            try HistorySubvolumes.snapshot(source.fd, place.fd, place.name, isReadOnly: false)
        case .unsubvolume:
            let place = try place(operation.word(0))
            guard try place.fd.status(of: place.name).inode == 256 else { throw .invalidArgument }
            try HistorySubvolumes.delete(place.fd, place.name)
        case .snapshot, .rebase, .freeze, .edit, .late: throw .invalidArgument
        }
    }

    // MARK: Finding

    private func directory(_ path: BytePath) throws(Errno) -> SharedDescriptor {
        opened.append(SharedDescriptor(try OracleTree.openDirectory(root, path)))
        return opened[opened.count - 1]
    }

    private func place(_ path: BytePath) throws(Errno) -> Place {
        let name = path.lastComponent
        if name.isEmpty { throw .invalidArgument }
        return Place(directory: try directory(path.parent), name: name)
    }

    private func file(_ path: BytePath, _ flags: OpenFlags = .readWrite) throws(Errno) -> SharedDescriptor {
        let place = try place(path)
        guard try place.fd.status(of: place.name).isRegular else { throw .invalidArgument }
        opened.append(SharedDescriptor(try place.fd.open(place.name, [flags, .noFollow, .nonBlocking])))
        return opened[opened.count - 1]
    }

    // MARK: Files

    private func changeFile(_ operation: HistoryOperation) throws(Errno) {
        if operation.verb == .create {
            let place = try place(operation.word(0))
            let file = try place.fd.open(
                place.name, [.readWrite, .create, .exclusive, .noFollow], mode: operation.bits(2) & 0o7777)
            return try file.fd.writeFull(HistoryRandom.bytes(operation.count(0), seed: operation.number(1)))
        }
        if operation.verb == .tmpfile {
            let place = try place(operation.word(0))
            let temporary = OpenFlags(rawValue: VARVE_O_TMPFILE)
            let file = try place.fd.open(.current, [.readWrite, temporary], mode: 0o644)
            try file.fd.writeFull(HistoryRandom.bytes(operation.count(0), seed: operation.number(1)))
            let result = unsafe BytePath("").withCString { empty in
                unsafe place.name.withCString { name in
                    unsafe linkat(file.fd.rawValue, empty, place.fd.rawValue, name, VARVE_AT_EMPTY_PATH)
                }
            }
            return try check(result)
        }
        if operation.verb == .fsync, operation.word(0) == .current { return try root.synchronize() }
        let file = try file(operation.word(0))
        let offset = operation.verb.shape.numbers > 0 ? operation.number(0) : 0
        switch operation.verb {
        case .write:
            try write(file.fd, HistoryRandom.bytes(operation.count(1), seed: operation.number(2)), at: offset)
        case .append:
            let end = try file.fd.status().size
            try write(file.fd, HistoryRandom.bytes(operation.count(0), seed: operation.number(1)), at: end)
        case .truncate: try file.fd.setSize(offset)
        // PUNCH_HOLE needs KEEP_SIZE (fallocate(2)).
        case .punch: try check(varve_fallocate(file.fd.rawValue, 3, offset, operation.number(1)))
        case .zero: try check(varve_fallocate(file.fd.rawValue, 16, offset, operation.number(1)))
        case .allocate:
            try check(
                varve_fallocate(
                    file.fd.rawValue, operation.number(2) == 1 ? 1 : 0, offset, operation.number(1)))
        case .rewrite: try write(file.fd, try file.fd.readAll(limit: 1 << 24), at: 0)
        case .fsync: try file.fd.synchronize()
        default:
            // BTRFS_IOC_DEFRAG_RANGE (linux/btrfs.h): start, length, flags with COMPRESS off, threshold …
            var range: [UInt64] = [0, .max, 0, 0, 0, 0]
            try unsafe check(
                range.withUnsafeMutableBytes { raw in
                    guard let base = raw.baseAddress else { return -1 }
                    return unsafe ioctl(file.fd.rawValue, 0x4030_9410, base)
                })
        }
    }

    private func changeTwoFiles(_ operation: HistoryOperation) throws(Errno) {
        let source = try file(operation.word(0))
        if operation.verb == .reflink, let place = try? place(operation.word(1)),
            try place.fd.statusIfPresent(of: place.name) == nil
        {
            _ = try place.fd.open(place.name, [.readWrite, .create, .exclusive, .noFollow], mode: 0o644)
        }
        let target = try file(operation.word(1))
        switch operation.verb {
        case .reflink: try check(varve_clone_range(target.fd.rawValue, 0, source.fd.rawValue, 0, 0))
        case .clone:
            try check(
                varve_clone_range(
                    target.fd.rawValue, UInt64(operation.count(1)), source.fd.rawValue,
                    UInt64(operation.count(0)),
                    UInt64(operation.count(2))))
        case .copy:
            guard lseek(source.fd.rawValue, operation.count(0), SEEK_SET) >= 0,
                lseek(target.fd.rawValue, operation.count(1), SEEK_SET) >= 0
            else { throw Errno(rawValue: errno) }
            if varve_copy_file_range(source.fd.rawValue, target.fd.rawValue, operation.count(2)) < 0 {
                throw Errno(rawValue: errno)
            }
        default:
            // FIDEDUPERANGE (linux/fs.h): offset, length, one destination; its descriptor, offset, result.
            let size = min(try source.fd.status().size, try target.fd.status().size)
            var request: [UInt64] = [0, UInt64(size), 1, UInt64(target.fd.rawValue), 0, 0, 0]
            try unsafe check(
                request.withUnsafeMutableBytes { raw in
                    guard let base = raw.baseAddress else { return -1 }
                    return unsafe ioctl(source.fd.rawValue, 0xc018_9436, base)
                })
            // The low half of the last word is the status: 0 same, 1 different, else an errno.
            if UInt32(truncatingIfNeeded: request[6]) != 0 { throw .invalidArgument }
        }
    }

    private func write(_ fd: FileDescriptor, _ bytes: [UInt8], at offset: Int64) throws(Errno) {
        let result: Result<Void, Errno> = unsafe bytes.withUnsafeBytes { raw in
            do throws(Errno) { return unsafe .success(try fd.writeFull(raw, at: offset)) } catch {
                return .failure(error)
            }
        }
        try result.get()
    }

    private func read(_ path: BytePath) throws(Errno) {
        if path == .current {
            let opened = try directory(.current)
            _ = try opened.fd.entries()
            return
        }
        let place = try place(path)
        let status = try place.fd.status(of: place.name)
        if status.isRegular {
            let opened = try file(path)
            _ = try opened.fd.readAll(limit: 1 << 24)
        }
        if status.isDirectory {
            let opened = try directory(path)
            _ = try opened.fd.entries()
        }
        if status.isSymbolicLink { _ = try place.fd.readSymbolicLink(place.name) }
    }

    // MARK: Names

    private func changeNames(_ operation: HistoryOperation) throws(Errno) {
        let place = try place(operation.word(0))
        switch operation.verb {
        case .mkdir: try place.fd.makeDirectory(place.name, mode: operation.bits(0) & 0o7777)
        case .mkdirs:
            try place.fd.makeDirectory(place.name, mode: 0o755)
            var parent = try place.fd.openDirectory(place.name)
            let name = HistoryGenerator.chainName(operation.count(1))
            for _ in 0..<min(operation.count(0), 2100) {
                try parent.fd.makeDirectory(name, mode: 0o755)
                parent = try parent.fd.openDirectory(name)
            }
        case .symlink: try place.fd.makeSymbolicLink(place.name, target: operation.word(1))
        case .fifo: try makeNode(place, .fifo, operation.bits(0) & 0o7777, 0, 0)
        case .device:
            let type = operation.number(0) == 1 ? VarveSystem.FileType.blockDevice : .characterDevice
            try makeNode(place, type, 0o600, operation.bits(1), operation.bits(2))
        case .socket: try makeNode(place, .socket, 0o755, 0, 0)
        case .links:
            let directory = try directory(operation.word(1))
            for index in operation.count(0)..<(operation.count(0) + min(operation.count(1), 70_000)) {
                try place.fd.link(place.name, to: directory.fd, BytePath("l\(index)"))
            }
        default:
            let other = try self.place(operation.word(1))
            switch operation.verb {
            case .link: try place.fd.link(place.name, to: other.fd, other.name)
            case .exchange: try place.fd.exchange(place.name, with: other.fd, other.name)
            default: try place.fd.rename(place.name, to: other.fd, other.name)
            }
        }
    }

    private func makeNode(
        _ place: Place, _ type: VarveSystem.FileType, _ permissions: UInt32, _ major: UInt32, _ minor: UInt32
    ) throws(Errno) {
        try place.fd.makeNode(place.name, mode: type.rawValue | permissions, major: major, minor: minor)
    }

    private func remove(_ operation: HistoryOperation) throws(Errno) {
        let place = try place(operation.word(0))
        switch operation.verb {
        case .orphan:
            held.append(try file(operation.word(0)))
            try place.fd.unlink(place.name)
        case .unlink: try place.fd.unlink(place.name)
        case .rmdir: try place.fd.removeDirectory(place.name)
        default: try removeTree(operation.word(0))
        }
    }

    private func removeTree(_ path: BytePath) throws(Errno) {
        var pending = [path]
        var directories = [BytePath]()
        let before = opened.count
        while let next = pending.popLast() {
            defer { opened.removeSubrange(before...) }
            let place = try place(next)
            let status = try place.fd.status(of: place.name)
            if !status.isDirectory {
                try place.fd.unlink(place.name)
            } else if status.inode == 256 {
                try HistorySubvolumes.delete(place.fd, place.name)
            } else {
                directories.append(next)
                let opened = try directory(next)
                pending += try opened.fd.entries().map { next.appending($0.name) }.sorted()
            }
        }
        for next in directories.reversed() {
            defer { opened.removeSubrange(before...) }
            let place = try place(next)
            try place.fd.removeDirectory(place.name)
        }
    }

    /// A new inode that equals the one of the first path in all that counts.
    private func duplicate(_ operation: HistoryOperation) throws(Errno) {
        let source = try place(operation.word(0))
        let status = try source.fd.status(of: source.name)
        let attributes = try source.fd.extendedAttributes(of: source.name)
        let target = operation.verb == .twin ? try place(operation.word(1)) : source
        var content = [UInt8]()
        var link = BytePath.empty
        if status.isDirectory { throw .isDirectory }
        if status.isRegular {
            let opened = try file(operation.word(0))
            content = try opened.fd.readAll(limit: 1 << 24)
        }
        if status.isSymbolicLink { link = try source.fd.readSymbolicLink(source.name) }
        if operation.verb == .replace { try source.fd.unlink(source.name) }
        if status.isRegular {
            let made = try target.fd.open(
                target.name, [.readWrite, .create, .exclusive, .noFollow], mode: 0o600)
            try made.fd.writeFull(content)
        } else if status.isSymbolicLink {
            try target.fd.makeSymbolicLink(target.name, target: link)
        } else {
            try target.fd.makeNode(
                target.name, mode: status.mode, major: status.deviceMajor, minor: status.deviceMinor)
        }
        try target.fd.changeOwner(of: target.name, uid: status.uid, gid: status.gid)
        if !status.isSymbolicLink { try target.fd.changeMode(of: target.name, to: status.permissions) }
        for attribute in attributes where !attribute.name.hasPrefix("btrfs.".utf8) {
            try target.fd.setExtendedAttribute(attribute, of: target.name)
        }
        try target.fd.setTimes(
            of: target.name, access: status.accessTime, modification: status.modificationTime)
    }

    // MARK: Metadata

    private func changeMetadata(_ operation: HistoryOperation) throws(Errno) {
        // The root has no name in a directory of this tree.
        let isRoot = operation.word(0) == .current
        let place =
            isRoot ? Place(directory: try directory(.current), name: .current) : try place(operation.word(0))
        let fd = place.fd, name = place.name
        switch operation.verb {
        case .chmod: try fd.changeMode(of: name, to: operation.bits(0) & 0o7777)
        case .chown: try fd.changeOwner(of: name, uid: operation.bits(0), gid: operation.bits(1))
        case .setattr:
            let value = HistoryRandom.bytes(operation.count(0), seed: operation.number(1))
            try fd.setExtendedAttribute(ExtendedAttribute(name: operation.word(1), value: value), of: name)
        case .delattr: try fd.removeExtendedAttribute(operation.word(1), of: name)
        case .setcap:
            // struct vfs_cap_data, revision 2 with the effective bit (linux/capability.h).
            let words: [UInt32] = [0x0200_0001, operation.bits(0), 0, 0, 0]
            try set("security.capability", words.flatMap(Self.littleEndian), place)
        case .setacl:
            // Version 2, then tag, permissions and id of each entry (linux/posix_acl_xattr.h).
            var value = Self.littleEndian(2)
            let bits = UInt16(truncatingIfNeeded: operation.number(2) & 7)
            let entries: [(UInt16, UInt16, UInt32)] = [
                (1, 6, .max), (2, bits, operation.bits(1)), (4, 4, .max), (0x10, 7, .max), (0x20, 4, .max),
            ]
            for (tag, permissions, id) in entries {
                value += Self.littleEndian(UInt32(tag) | UInt32(permissions) << 16) + Self.littleEndian(id)
            }
            let isDefault = operation.number(0) == 1
            try set(isDefault ? "system.posix_acl_default" : "system.posix_acl_access", value, place)
        case .property: try set("btrfs.compression", Array(operation.word(1).bytes), place)
        case .touch:
            let nanoseconds = UInt32(clamping: min(operation.count(1), 999_999_999))
            let time = Timestamp(seconds: operation.number(0), nanoseconds: nanoseconds)
            try fd.setTimes(of: name, access: try fd.status(of: name).accessTime, modification: time)
        default: try setToSame(place, operation.number(0))
        }
    }

    private func setToSame(_ place: Place, _ what: Int64) throws(Errno) {
        let status = try place.fd.status(of: place.name)
        switch what {
        case 0: try place.fd.changeMode(of: place.name, to: status.permissions)
        case 1:
            // A file loses its set-ID bits to a chown, so they are given back.
            let attributes = try place.fd.extendedAttributes(of: place.name)
            try place.fd.changeOwner(of: place.name, uid: status.uid, gid: status.gid)
            if !status.isSymbolicLink { try place.fd.changeMode(of: place.name, to: status.permissions) }
            for attribute in attributes where attribute.name == BytePath("security.capability") {
                try place.fd.setExtendedAttribute(attribute, of: place.name)
            }
        case 2:
            for attribute in try place.fd.extendedAttributes(of: place.name) {
                try place.fd.setExtendedAttribute(attribute, of: place.name)
            }
        default:
            try place.fd.setTimes(
                of: place.name, access: status.accessTime, modification: status.modificationTime)
        }
    }

    private func set(_ name: String, _ value: [UInt8], _ place: Place) throws(Errno) {
        try place.fd.setExtendedAttribute(
            ExtendedAttribute(name: BytePath(name), value: value), of: place.name)
    }

    private static func littleEndian(_ value: UInt32) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }

    private func check(_ result: CInt) throws(Errno) {
        if result != 0 { throw Errno(rawValue: errno) }
    }
}

/// The few subvolume calls that a history needs, straight from libbtrfsutil: what tests the Btrfs module
/// should not depend on it.
enum HistorySubvolumes {
    static func create(_ parent: FileDescriptor, _ name: BytePath) throws(Errno) {
        try unsafe check(
            name.withCString { unsafe btrfs_util_create_subvolume_fd(parent.rawValue, $0, 0, nil, nil) })
    }

    static func snapshot(
        _ source: FileDescriptor, _ parent: FileDescriptor, _ name: BytePath, isReadOnly: Bool
    ) throws(Errno) {
        let flags = isReadOnly ? BTRFS_UTIL_CREATE_SNAPSHOT_READ_ONLY : 0
        try unsafe check(
            name.withCString {
                unsafe btrfs_util_create_snapshot_fd2(source.rawValue, parent.rawValue, $0, flags, nil, nil)
            })
    }

    static func setReadOnly(_ subvolume: FileDescriptor, _ isReadOnly: Bool) throws(Errno) {
        try check(btrfs_util_set_subvolume_read_only_fd(subvolume.rawValue, isReadOnly))
    }

    /// With the subvolumes that are nested in it.
    static func delete(_ parent: FileDescriptor, _ name: BytePath) throws(Errno) {
        let plain = unsafe name.withCString { unsafe btrfs_util_delete_subvolume_fd(parent.rawValue, $0, 0) }
        if plain == BTRFS_UTIL_OK { return }
        try unsafe check(
            name.withCString {
                unsafe btrfs_util_delete_subvolume_fd(
                    parent.rawValue, $0, BTRFS_UTIL_DELETE_SUBVOLUME_RECURSIVE)
            })
    }

    private static func check(_ result: btrfs_util_error) throws(Errno) {
        if result != BTRFS_UTIL_OK { throw errno == 0 ? .ioError : Errno(rawValue: errno) }
    }
}
