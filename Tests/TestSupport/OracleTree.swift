import CLinux
import Glibc
package import VarveSystem
package import SystemPackage

/// What the oracle and `TreeCompare` leave out of their sight.
package struct OracleOptions: Sendable {
    /// Names that begin with `.wh.` are as absent: no layer can hold them (OCI image-spec, layer.md,
    /// "Whiteouts").
    package var ignoresWhiteoutNames = false
    /// Modification times are compared by whole seconds, which is all that a plain ustar header holds.
    package var ignoresSubsecondTimes = false
    /// These paths and everything below them are as absent. `.` is the root's own metadata alone.
    package var masked: Set<BytePath> = []

    package init(
        ignoresWhiteoutNames: Bool = false, ignoresSubsecondTimes: Bool = false, masked: Set<BytePath> = []
    ) {
        self.ignoresWhiteoutNames = ignoresWhiteoutNames
        self.ignoresSubsecondTimes = ignoresSubsecondTimes
        self.masked = masked
    }
}

/// A tree could not be read, so nothing can be said of it.
package struct OracleError: Error, CustomStringConvertible {
    package var call: String
    package var path: BytePath
    package var reason: Errno
    package var description: String { "The oracle could not \(call) \"\(path)\": \(reason)." }
}

/// One file as the oracle sees it: everything that counts but the content, which is read when it is compared.
struct OracleNode {
    var status: FileStatus
    /// Of a symbolic link.
    var target: BytePath?
    /// All but `btrfs.*`, which are settings of the file system, not of the image.
    var attributes: [ExtendedAttribute]

    /// How this file differs from `other`, content and link group apart; empty if it does not.
    func differences(from other: OracleNode, _ options: OracleOptions) -> [String] {
        guard status.mode & 0o170000 == other.status.mode & 0o170000 else {
            return ["type \(Self.name(status)), was \(Self.name(other.status))"]
        }
        var found = [String]()
        func check<Value: Equatable>(_ what: String, _ mine: Value, _ theirs: Value) {
            if mine != theirs { found.append("\(what) \(mine), was \(theirs)") }
        }
        if status.permissions != other.status.permissions {
            let mine = String(status.permissions, radix: 8),
                theirs = String(other.status.permissions, radix: 8)
            found.append("mode \(mine), was \(theirs)")
        }
        check("uid", status.uid, other.status.uid)
        check("gid", status.gid, other.status.gid)
        if status.isRegular { check("size", status.size, other.status.size) }
        let mine = status.modificationTime, theirs = other.status.modificationTime
        check("mtime seconds", mine.seconds, theirs.seconds)
        if !options.ignoresSubsecondTimes { check("mtime nanoseconds", mine.nanoseconds, theirs.nanoseconds) }
        if status.type == .characterDevice || status.type == .blockDevice {
            check("major device", status.deviceMajor, other.status.deviceMajor)
            check("minor device", status.deviceMinor, other.status.deviceMinor)
        }
        if target != other.target {
            found.append("target \(target?.description ?? "-"), was \(other.target?.description ?? "-")")
        }
        if attributes != other.attributes {
            let mine = Set(attributes), theirs = Set(other.attributes)
            let names = Set(mine.symmetricDifference(theirs).map(\.name)).sorted()
            found.append("xattrs \(names.map(\.description).joined(separator: ", "))")
        }
        return found
    }

    private static func name(_ status: FileStatus) -> String {
        status.type.map { "\($0)" } ?? String(status.mode, radix: 8)
    }
}

/// Every file of a tree, read by a full walk: nothing is cut short, nothing is trusted but lstat(2).
struct OracleTree {
    let root: FileDescriptor
    /// By path below the root; the root itself is `.`.
    private(set) var nodes: [BytePath: OracleNode] = [:]

    /// Walks the directory `root`. Sockets, nested subvolumes, and what `options` mask are left out as if
    /// they were not there.
    init(_ root: FileDescriptor, _ options: OracleOptions) throws {
        self.root = root
        let own = try Self.attempt("open", .current) { () throws(Errno) in
            try root.open(.current, [.directory])
        }
        let status = try Self.attempt("stat", .current) { () throws(Errno) in try own.fd.status() }
        let isBtrfs = try Self.attempt("statfs", .current) { () throws(Errno) in try Self.isBtrfs(own.fd) }
        if !options.masked.contains(.current) {
            let attributes = try Self.attempt("list the xattrs of", .current) { () throws(Errno) in
                try own.fd.extendedAttributes()
            }
            nodes[.current] = OracleNode(
                status: status, target: nil, attributes: Self.counted(attributes))
        }
        var pending = [BytePath.empty]
        while let path = pending.popLast() {
            let directory = try Self.attempt("open", path) { () throws(Errno) in
                try Self.openDirectory(root, path)
            }
            let entries = try Self.attempt("list", path) { () throws(Errno) in try directory.fd.entries() }
            for entry in entries {
                let child = path.appending(entry.name)
                if options.ignoresWhiteoutNames, entry.name.hasPrefix(".wh.".utf8) { continue }
                if options.masked.contains(child) { continue }
                let node = try Self.attempt("read", child) { () throws(Errno) -> OracleNode? in
                    let found = try directory.fd.status(of: entry.name)
                    if found.type == .socket { return nil }
                    // A subvolume's root has inode 256 and a device number of its own; in a snapshot of the
                    // tree that held it, an empty directory with inode 2 stands in its place.
                    if found.isDirectory, found.inode == 256, found.device != status.device { return nil }
                    if found.isDirectory, found.inode == 2, isBtrfs { return nil }
                    let target = found.isSymbolicLink ? try directory.fd.readSymbolicLink(entry.name) : nil
                    let attributes = try directory.fd.extendedAttributes(of: entry.name)
                    return OracleNode(status: found, target: target, attributes: Self.counted(attributes))
                }
                guard let node else { continue }
                nodes[child] = node
                if node.status.isDirectory { pending.append(child) }
            }
        }
    }

    /// The names of every file that is no directory, by inode: those with one name too.
    var linkGroups: [UInt64: [BytePath]] {
        var groups = [UInt64: [BytePath]]()
        for (path, node) in nodes where !node.status.isDirectory {
            groups[node.status.inode, default: []].append(path)
        }
        return groups
    }

    /// Compares every byte of two regular files.
    static func contentIsEqual(_ left: OracleTree, _ right: OracleTree, _ path: BytePath) throws -> Bool {
        let mine = try attempt("open", path) { () throws(Errno) in try openFile(left.root, path) }
        let theirs = try attempt("open", path) { () throws(Errno) in try openFile(right.root, path) }
        return try attempt("read", path) { () throws(Errno) in try bytesAreEqual(mine.fd, theirs.fd) }
    }

    private static func bytesAreEqual(_ left: FileDescriptor, _ right: FileDescriptor) throws(Errno) -> Bool {
        let half = 1 << 16
        let result: Result<Bool, Errno> = unsafe withUnsafeTemporaryAllocation(
            byteCount: 2 * half, alignment: 64
        ) {
            buffer in
            let mine = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[..<half])
            let theirs = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[half...])
            do throws(Errno) {
                while true {
                    let count = try unsafe left.readFull(into: mine)
                    guard try unsafe right.readFull(into: theirs) == count else { return .success(false) }
                    if count == 0 { return .success(true) }
                    guard let left = mine.baseAddress, let right = theirs.baseAddress,
                        unsafe memcmp(left, right, count) == 0
                    else { return .success(false) }
                }
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    private static func counted(_ attributes: [ExtendedAttribute]) -> [ExtendedAttribute] {
        attributes.filter { !$0.name.hasPrefix("btrfs.".utf8) }.sorted { $0.name < $1.name }
    }

    private static func isBtrfs(_ fd: FileDescriptor) throws(Errno) -> Bool {
        var type: UInt64 = 0, flags: UInt64 = 0
        guard unsafe varve_fstatfs(fd.rawValue, &type, &flags) == 0 else { throw .invalidArgument }
        return type == VARVE_BTRFS_SUPER_MAGIC
    }

    /// Opens a directory however long its path is: the kernel takes `PATH_MAX` bytes at a time.
    static func openDirectory(_ root: FileDescriptor, _ path: BytePath) throws(Errno) -> OwnedDescriptor {
        if path.count < 4000 {
            return try root.open(
                path.isEmpty ? .current : path, [.directory, .noFollow], resolve: .noSymlinks)
        }
        var current = try root.open(.current, [.directory])
        var part = BytePath.empty
        for name in path.components {
            if part.count + name.count >= 4000 {
                current = try current.fd.open(part, [.directory, .noFollow], resolve: .noSymlinks)
                part = .empty
            }
            part = part.appending(name)
        }
        return try current.fd.open(part, [.directory, .noFollow], resolve: .noSymlinks)
    }

    private static func openFile(_ root: FileDescriptor, _ path: BytePath) throws(Errno) -> OwnedDescriptor {
        if path.count < 4000 { return try root.open(path, [.noFollow, .nonBlocking], resolve: .noSymlinks) }
        let directory = try openDirectory(root, path.parent)
        return try directory.fd.open(path.lastComponent, [.noFollow, .nonBlocking])
    }

    private static func attempt<R: ~Copyable>(
        _ call: String, _ path: BytePath, _ body: () throws(Errno) -> R
    ) throws(OracleError) -> R {
        do {
            return try body()
        } catch {
            throw OracleError(call: call, path: path.isEmpty ? .current : path, reason: error)
        }
    }
}
