import Glibc
import SystemCalls
import SystemPackage

/// Compares two files by what counts in an image: see Docs/delta.md, "Exact". Access and change times, inode numbers
/// and extents do not count; the size of a directory does not either.
struct FileComparison {
    /// One side: a name in a directory, with what stat said of it.
    struct Side {
        var directory: FileDescriptor
        var name: BytePath
        var status: FileStatus
    }

    /// Two buffers for comparing content, made once for a whole delta.
    private let buffers: ContentBuffers
    /// Says whether the extents of two files of equal size are the same, so that nothing need be read. Nil where the
    /// caller may not look at extents.
    private let equalExtents: ((_ old: FileStatus, _ new: FileStatus) -> Bool)?

    init(equalExtents: ((FileStatus, FileStatus) -> Bool)?) {
        buffers = ContentBuffers()
        self.equalExtents = equalExtents
    }

    func differs(_ old: Side, _ new: Side, path: BytePath) throws(LayerError) -> Bool {
        let a = old.status
        let b = new.status
        if a.mode != b.mode || a.uid != b.uid || a.gid != b.gid || a.modificationTime != b.modificationTime {
            return true
        }
        switch b.type {
        case .regular where a.size != b.size:
            return true
        case .characterDevice, .blockDevice:
            if a.deviceMajor != b.deviceMajor || a.deviceMinor != b.deviceMinor { return true }
        case .symbolicLink:
            if try target(old, path) != target(new, path) { return true }
        default:
            break
        }
        let attributes = try attributes(new, path)
        if try self.attributes(old, path) != attributes { return true }
        // In a user name space, ids that it does not have all look alike.
        if attributes.contains(where: { PosixACL.isACL($0.name) && PosixACL.namesUnknown($0.value) }) {
            return true
        }
        if b.type == .regular, b.size > 0 { return try contentDiffers(old, new, path) }
        return false
    }

    private func target(_ side: Side, _ path: BytePath) throws(LayerError) -> BytePath {
        try attempt("read the link", path) { () throws(Errno) in
            try side.directory.readSymbolicLink(side.name)
        }
    }

    private func attributes(_ side: Side, _ path: BytePath) throws(LayerError) -> [ExtendedAttribute] {
        try attempt("read the attributes of", path) { () throws(Errno) in
            do throws(Errno) {
                return try side.directory.extendedAttributes(of: side.name).filter { belongsToImage($0.name) }
            } catch .notSupported {
                return []
            }
        }
    }

    private func contentDiffers(_ old: Side, _ new: Side, _ path: BytePath) throws(LayerError) -> Bool {
        if let equalExtents, equalExtents(old.status, new.status) { return false }
        return try attempt("read", path) { () throws(Errno) in
            let left = try Self.open(old)
            let right = try Self.open(new)
            return try buffers.differ(left.fd, right.fd)
        }
    }

    private static func open(_ side: Side) throws(Errno) -> OwnedDescriptor {
        do throws(Errno) {
            return try side.directory.open(side.name, [.readOnly, .noFollow, .nonBlocking, .noAccessTime])
        } catch .notPermitted {
            // O_NOATIME is the owner's alone.
            return try side.directory.open(side.name, [.readOnly, .noFollow, .nonBlocking])
        }
    }
}

/// Two slabs for comparing two files piece by piece.
@safe
private final class ContentBuffers {
    private static let size = 256 << 10
    private let memory: UnsafeMutableRawBufferPointer

    init() {
        unsafe memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * Self.size, alignment: 4096)
    }
    deinit { unsafe memory.deallocate() }

    func differ(_ left: FileDescriptor, _ right: FileDescriptor) throws(Errno) -> Bool {
        let a = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[..<Self.size])
        let b = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[Self.size...])
        while true {
            let countA = unsafe try left.readFull(into: a)
            let countB = unsafe try right.readFull(into: b)
            if countA != countB { return true }
            if countA == 0 { return false }
            if let baseA = a.baseAddress, let baseB = b.baseAddress,
                unsafe memcmp(baseA, baseB, countA) != 0
            {
                return true
            }
        }
    }
}
