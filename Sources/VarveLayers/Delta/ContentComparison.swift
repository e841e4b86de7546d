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
    /// Asked for each piece of a file.
    private let isStopped: () -> Bool

    init(equalExtents: ((FileStatus, FileStatus) -> Bool)?, isStopped: @escaping () -> Bool) {
        self.equalExtents = equalExtents
        self.isStopped = isStopped
    }

    func differs(_ old: OldSide<ComparedTree>, _ new: NewSide, _ path: BytePath) throws(LayerError) -> Bool {
        if let equalExtents, equalExtents(old.status, new.status) { return false }
        let left = try NewSide(directory: old.directory.fd, name: old.name, status: old.status).open(path)
        let right = try new.open(path)
        var offset: Int64 = 0
        while true {
            if isStopped() { throw .cancelled }
            let result = try attempt("read", path) { () throws(Errno) in
                try buffers.differ(left.fd, right.fd, &offset)
            }
            if let result { return result }
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

    /// Compares the next piece of two files of equal size. Where both have a hole, nothing is read.
    ///
    /// - Parameter offset: where the piece begins; moved to its end.
    /// - Returns: nil if both go on.
    func differ(_ left: FileDescriptor, _ right: FileDescriptor, _ offset: inout Int64) throws(Errno) -> Bool?
    {
        let starts = (try left.nextData(from: offset), try right.nextData(from: offset))
        guard let start = [starts.0, starts.1].compactMap({ $0 }).min() else { return false }
        let a = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[..<Self.size])
        let b = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[Self.size...])
        let countA = unsafe try left.readFull(into: a, at: start)
        let countB = unsafe try right.readFull(into: b, at: start)
        if countA != countB { return true }
        if countA == 0 { return false }
        offset = start + Int64(countA)
        if let baseA = a.baseAddress, let baseB = b.baseAddress, unsafe memcmp(baseA, baseB, countA) != 0 {
            return true
        }
        return nil
    }
}
