package import VarveArchive
import Glibc
package import VarveSystem
package import SystemPackage

/// What the packer writes besides the changes themselves.
package struct PackOptions: Sendable {
    /// Times later than this become this: `SOURCE_DATE_EPOCH` (reproducible-builds.org/specs/source-date-epoch).
    package var latestTime: Timestamp?
    /// Times lose their fractions of a second, and need no pax header then.
    package var hasWholeSeconds = false
    /// How owners of files become those in the layer.
    package var owners: OwnerMapping
    /// Nil: every path of the tree is the same in the layer.
    package var placement: PackPlacement?
    /// Takes what is mounted in the tree for a part of it, as in a directory of the host that a user names.
    package var crossesMounts = false

    package init(
        latestTime: Timestamp? = nil, owners: OwnerMapping = OwnerMapping(), placement: PackPlacement? = nil
    ) {
        self.latestTime = latestTime
        self.owners = owners
        self.placement = placement
    }
}

/// Writes a delta as one layer (OCI image-spec layer.md, "Creating", "Representing Changes").
///
/// The same delta of the same tree gives the same bytes: entries in a fixed order, no names of users, no access times. The names of a file with several are one file and hard links to its first name.
package struct LayerPacker {
    private let root: FileDescriptor
    private let options: PackOptions

    /// - Parameter root: the root of the new tree; it must not change while it is packed.
    package init(root: FileDescriptor, options: PackOptions = PackOptions()) {
        self.root = root
        self.options = options
    }

    /// Writes `changes` in the order of a tree, and the end of the archive.
    ///
    /// - Parameter onBytes: called with the bytes of content written, now and then; throws to stop.
    /// - Returns: whether the layer holds the changes as they are: no socket was left out and no time changed.
    @discardableResult
    package func pack(_ changes: [Change], to writer: TarWriter, onBytes: (Int) throws -> Void = { _ in })
        throws -> Bool
    {
        var isWhole = true
        var firstNames: [FileIdentity: BytePath] = [:]
        var directories = PackedDirectories(root: root, crossesMounts: options.crossesMounts)
        let mount = try attempt("look at", .current) { () throws(Errno) in
            try root.mountedStatusIfPresent(of: .current)?.mount
        }
        let slab = PackSlab()
        // Before the first byte is written: whoever has very long paths is told at once.
        for change in changes {
            try onBytes(0)
            try checkLength(of: placeInLayer(change), for: change.path)
        }
        for change in changes.sorted(by: { Self.precedes($0.path, $1.path) }) {
            try onBytes(0)
            let name = change.path.lastComponent
            for component in change.path.components where component.hasPrefix(Whiteout.prefix) {
                throw LayerError.unrepresentable(
                    path: change.path, reason: "names that begin with \".wh.\" mean deletions in a layer",
                    remedy: .changeFile("rename \"\(component)\""))
            }
            let place = placeInLayer(change)
            if change.kind == .deleted {
                let whiteout = place
                try writer.write(TarEntry(path: whiteout, kind: .regular, mode: 0, modificationTime: .epoch))
                continue
            }
            let directory = try directories.open(change.path == .current ? .empty : change.path.parent)
            let here = change.path == .current ? .current : name
            let found = try attempt("look at", change.path) { () throws(Errno) in
                guard let found = try directory.fd.mountedStatusIfPresent(of: here) else {
                    throw Errno.noSuchFileOrDirectory
                }
                return found
            }
            if found.mount != mount, !options.crossesMounts {
                throw LayerError.mounted(on: here, in: directory.fd)
            }
            let status = found.status
            if status.type == .socket || status.type == nil { isWhole = false }
            if modificationTime(status) != status.modificationTime { isWhole = false }
            if !status.isDirectory, status.linkCount > 1 {
                let identity = FileIdentity(status)
                if let first = firstNames[identity] {
                    var entry = header(place, .hardLink, status)
                    entry.linkTarget = first
                    if options.owners.isRootless {
                        // Its owner is in an attribute.
                        entry.extendedAttributes = try attributes(
                            of: here, status, in: directory.fd, change.path)
                    }
                    entry = try options.owners.packed(entry)
                    entry.extendedAttributes = []
                    try writer.write(entry)
                    continue
                }
                firstNames[identity] = place
            }
            try write(change.path, as: place, here, status, in: directory.fd, to: writer, slab, onBytes)
        }
        try writer.finish()
        return isWhole
    }

    /// The order of a tree: the root first, then each directory and at once all that is in it. In the byte order of whole
    /// paths `a-b` would stand between `a` and `a/b`, and GNU tar, which sets the times of a directory when it has left
    /// it, would set those of `a` too early.
    private static func precedes(_ left: BytePath, _ right: BytePath) -> Bool {
        if left == .current || right == .current { return left == .current && right != .current }
        let slash = UInt8(ascii: "/")
        for (a, b) in zip(left.bytes, right.bytes) where a != b {
            return (a == slash ? 0 : a) < (b == slash ? 0 : b)
        }
        return left.count < right.count
    }

    /// PATH_MAX of limits.h less the closing NUL, and less the slash that a directory's entry ends in.
    static let pathLimit = 4094

    /// Where the entry for a change stands in the layer.
    private func placeInLayer(_ change: Change) -> BytePath {
        guard change.kind == .deleted else {
            return options.placement?.path(of: change.path) ?? change.path
        }
        return change.path.parent.appending(Whiteout.name(deleting: change.path.lastComponent))
    }

    private func checkLength(of entry: BytePath, for path: BytePath) throws(LayerError) {
        if entry.count > Self.pathLimit { throw Self.tooLong(path, in: entry.count) }
    }

    /// The error for a path for which the layer would need one of so many bytes.
    static func tooLong(_ path: BytePath, in bytes: Int) -> LayerError {
        .unrepresentable(
            path: path,
            reason:
                "its path in the layer would be \(bytes) bytes long, and \(pathLimit) is the most that tools read",
            remedy: .changeFile("move it up"))
    }

    private func write(
        _ path: BytePath, as place: BytePath, _ name: BytePath, _ status: FileStatus,
        in directory: FileDescriptor,
        to writer: TarWriter,
        _ slab: PackSlab, _ onBytes: (Int) throws -> Void
    ) throws {
        let kind: TarKind
        switch status.type {
        case .regular: kind = .regular
        case .directory: kind = .directory
        case .symbolicLink: kind = .symbolicLink
        case .characterDevice: kind = .characterDevice
        case .blockDevice: kind = .blockDevice
        case .fifo: kind = .fifo
        case .socket, nil: return
        }
        var entry = header(place, kind, status)
        entry.extendedAttributes = try attributes(of: name, status, in: directory, path)
        entry = try options.owners.packed(entry)
        switch kind {
        case .symbolicLink:
            entry.linkTarget = try attempt("read the link", path) { () throws(Errno) in
                try directory.readSymbolicLink(name, expecting: status)
            }
        case .characterDevice, .blockDevice:
            entry.deviceMajor = status.deviceMajor
            entry.deviceMinor = status.deviceMinor
        case .regular:
            entry.size = status.size
        default:
            break
        }
        try writer.write(entry)
        guard kind == .regular, status.size > 0 else { return }
        let file = try directory.openFileInTree(
            name, expecting: status, path, crossesMounts: options.crossesMounts)
        var left = status.size
        while left > 0 {
            let bytes = unsafe UnsafeMutableRawBufferPointer(
                rebasing: slab.memory[..<Int(min(left, Int64(slab.memory.count)))])
            let count = try attempt("read", path) { () throws(Errno) in
                unsafe try file.fd.readFull(into: bytes)
            }
            guard count > 0 else {
                throw LayerError.system(operation: "read all of", path: path, errno: .ioError)
            }
            try unsafe writer.writeContent(UnsafeRawBufferPointer(rebasing: bytes[..<count]))
            left -= Int64(count)
            try onBytes(count)
        }
    }

    /// The attributes of the file that was looked at, such as its capabilities: of no other that has its name by now.
    private func attributes(
        of name: BytePath, _ status: FileStatus, in directory: FileDescriptor, _ path: BytePath
    ) throws(LayerError) -> [ExtendedAttribute] {
        let all = try attempt("read the attributes of", path) { () throws(Errno) in
            racePoint("read-attributes")
            return try directory.extendedAttributes(of: name, expecting: status)
                .filter { belongsToImage($0.name) }
        }
        if options.owners.isIdentity { return all }
        return try all.map { (attribute) throws(LayerError) -> ExtendedAttribute in
            guard PosixACL.isACL(attribute.name) else { return attribute }
            return ExtendedAttribute(
                name: attribute.name, value: try options.owners.packedACL(attribute.value, path: path))
        }
    }

    private func header(_ path: BytePath, _ kind: TarKind, _ status: FileStatus) -> TarEntry {
        TarEntry(
            path: path, kind: kind, mode: status.permissions, uid: status.uid, gid: status.gid,
            modificationTime: modificationTime(status))
    }

    private func modificationTime(_ status: FileStatus) -> Timestamp {
        var time = status.modificationTime
        if let latest = options.latestTime, latest < time { time = latest }
        return options.hasWholeSeconds ? Timestamp(seconds: time.seconds) : time
    }
}

/// One buffer for all files of a layer.
@safe
private final class PackSlab {
    let memory: UnsafeMutableRawBufferPointer
    init() { unsafe memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096) }
    deinit { unsafe memory.deallocate() }
}

/// Changes come in path order, so the directory of one is mostly that of the next.
private struct PackedDirectories {
    let root: FileDescriptor
    private let crossesMounts: Bool
    private var last: (path: BytePath, descriptor: SharedDescriptor)?

    init(root: FileDescriptor, crossesMounts: Bool) {
        self.root = root
        self.crossesMounts = crossesMounts
    }

    mutating func open(_ path: BytePath) throws(LayerError) -> SharedDescriptor {
        if let last, last.path == path { return last.descriptor }
        let opened = SharedDescriptor(
            try root.openInTree(
                path.isEmpty ? .current : path, [.directory], resolve: [.beneath, .noSymlinks],
                crossesMounts: crossesMounts, "open the directory", path))
        last = (path, opened)
        return opened
    }
}
