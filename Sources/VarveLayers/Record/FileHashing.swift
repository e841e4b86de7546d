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
    ///
    /// - Parameter isStopped: asked for each piece of it: a sparse file may be as large as any can be.
    /// - Throws: `LayerError.cancelled` when it is stopped.
    func digest(of file: NewSide, _ path: BytePath, isStopped: () -> Bool) throws(LayerError) -> Digest {
        let opened = try file.open(path)
        var hasher = DigestHasher()
        while true {
            if isStopped() { throw .cancelled }
            let count = try attempt("read", path) { () throws(Errno) in
                unsafe try opened.fd.readFull(into: memory)
            }
            if count == 0 { return hasher.finish() }
            unsafe hasher.update(UnsafeRawBufferPointer(rebasing: memory[..<count]))
        }
    }
}
