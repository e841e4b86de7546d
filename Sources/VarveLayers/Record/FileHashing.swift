import VarveOCI
import VarveSystem
import SystemPackage

/// Hashes the content of files, with one buffer: for one thread.
@safe
final class FileHashing {
    private let memory: UnsafeMutableRawBufferPointer

    init() { unsafe memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 4096) }
    deinit { unsafe memory.deallocate() }

    /// The SHA-256 of a regular file.
    func digest(of file: NewSide, _ path: BytePath) throws(LayerError) -> Digest {
        let opened = try file.open(path)
        return try attempt("read", path) { () throws(Errno) in
            var hasher = DigestHasher()
            while true {
                let count = unsafe try opened.fd.readFull(into: memory)
                if count == 0 { return hasher.finish() }
                unsafe hasher.update(UnsafeRawBufferPointer(rebasing: memory[..<count]))
            }
        }
    }
}
