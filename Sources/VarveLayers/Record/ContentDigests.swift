package import VarveOCI
package import VarveSystem
import Synchronization

/// The digests of files, taken while they were written: whoever records the tree afterwards reads none of them again.
///
/// They are kept by inode number. One that a deleted file leaves is given out again, but every regular file of a tree
/// that is being extracted is written and comes here, so the last digest for a number is that of the file that has it.
public final class ContentDigests: Sendable {
    private struct Written {
        var size: Int64
        var modificationTime: Timestamp
        var digest: Digest
    }

    private let files = Mutex<[UInt64: Written]>([:])

    package init() {}

    /// - Parameter status: what fstat said when the file was done.
    func insert(_ digest: Digest, of status: FileStatus) {
        let written = Written(
            size: status.size, modificationTime: status.modificationTime, digest: digest)
        files.withLock { $0[status.inode] = written }
    }

    /// Nil if the file was not written here, or another has its number on a file system that does not keep to them.
    package func digest(of status: FileStatus) -> Digest? {
        files.withLock { files in
            guard let written = files[status.inode], written.size == status.size,
                written.modificationTime == status.modificationTime
            else { return nil }
            return written.digest
        }
    }
}

/// Hashes a file as it is written, holes included.
struct WrittenContent {
    private var hasher = DigestHasher()
    private var end: Int64 = 0

    mutating func add(_ bytes: UnsafeRawBufferPointer, at offset: Int64) {
        fill(to: offset)
        unsafe hasher.update(bytes)
        end += Int64(bytes.count)
    }

    /// The digest of a file of that size.
    mutating func finish(size: Int64) -> Digest {
        fill(to: size)
        return hasher.finish()
    }

    private static let zeros = [UInt8](repeating: 0, count: 64 << 10)

    /// A hole reads as zeros.
    private mutating func fill(to offset: Int64) {
        while end < offset {
            let count = Int(min(offset - end, Int64(Self.zeros.count)))
            hasher.update(count == Self.zeros.count ? Self.zeros : Array(Self.zeros[..<count]))
            end += Int64(count)
        }
    }
}
