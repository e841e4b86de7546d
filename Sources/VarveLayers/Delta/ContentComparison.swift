import Glibc
import VarveSystem
import SystemPackage

/// Compares the content of files of two trees, for one thread.
struct ContentComparison {
    /// Two buffers, made once for a whole delta.
    private let buffers = ContentBuffers()
    /// Says whether the extents of two files of equal size are the same, so that nothing need be read. Nil where the
    /// caller may not look at extents.
    private let equalExtents: ((_ old: FileStatus, _ new: FileStatus) -> Bool)?

    init(equalExtents: ((FileStatus, FileStatus) -> Bool)?) { self.equalExtents = equalExtents }

    func differs(_ old: OldSide<ComparedTree>, _ new: NewSide, _ path: BytePath) throws(LayerError) -> Bool {
        if let equalExtents, equalExtents(old.status, new.status) { return false }
        let left = try NewSide(directory: old.directory.fd, name: old.name, status: old.status).open(path)
        let right = try new.open(path)
        return try attempt("read", path) { () throws(Errno) in try buffers.differ(left.fd, right.fd) }
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
