import VarveArchive
import VarveSystem
import SystemPackage

/// A regular file that was made just now and is empty, on the way to what its entry says.
final class NewFile {
    let entry: TarEntry
    let path: BytePath
    /// Nil once the file is done.
    private var descriptor: OwnedDescriptor?
    /// It was asked for with this mode, which the umask may have made less.
    private let mode: UInt32
    /// Its directory hands down a group or ACLs.
    private let inherits: Bool
    private var end: Int64 = 0
    private var early = EarlyWriting()
    /// Bytes at the end of a file that are worth a call to put the disk to work.
    private static let restSize = 128 << 10
    private var content: WrittenContent?

    /// - Parameter isHashed: its digest will be wanted.
    init(
        _ entry: TarEntry, _ path: BytePath, _ descriptor: consuming OwnedDescriptor, mode: UInt32,
        inherits: Bool, isHashed: Bool
    ) {
        self.entry = entry
        self.path = path
        self.descriptor = .some(descriptor)
        self.mode = mode
        self.inherits = inherits
        content = isHashed ? WrittenContent() : nil
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int64) throws {
        unsafe content?.add(bytes, at: offset)
        try attempt("write", path) { () throws(Errno) in
            guard let fd = descriptor?.fd else { return }
            unsafe try fd.writeFull(bytes, at: offset)
            early.wrote(bytes.count, to: fd)
        }
        end = offset + Int64(bytes.count)
    }

    /// After the content: size, owner, mode, attributes, times, in this order (see `LayerApplier`).
    func finish(_ metadata: EntryMetadata, digests: ContentDigests?) throws {
        guard let descriptor = descriptor.take() else { return }
        let fd = descriptor.fd
        early.start(fd, from: Self.restSize)
        // A sparse file may end in a hole.
        if end < entry.size {
            do throws(Errno) {
                try fd.setSize(entry.size)
            } catch {
                throw metadata.failure("set the size of", path, error)
            }
        }
        if inherits {
            try metadata.apply(entry, to: fd, existing: try metadata.status(of: fd, path))
        } else {
            try attempt("set the owner of", path) { () throws(Errno) in
                if entry.uid != metadata.uid || entry.gid != metadata.gid {
                    try fd.changeOwner(uid: entry.uid, gid: entry.gid)
                }
            }
            let attributes = try metadata.attributes(of: entry)
            for attribute in attributes where metadata.comesFirst(attribute) {
                try metadata.set(attribute, on: fd, path)
            }
            if entry.mode != mode & ~metadata.umask {
                try attempt("set the mode of", path) { () throws(Errno) in
                    try fd.changeMode(to: entry.mode)
                }
            }
            for attribute in attributes where !metadata.comesFirst(attribute) {
                try metadata.set(attribute, on: fd, path)
            }
        }
        try attempt("set the times of", path) { () throws(Errno) in
            try fd.setTimes(
                access: entry.accessTime ?? entry.modificationTime, modification: entry.modificationTime)
        }
        if let digests, let digest = content?.finish(size: entry.size) {
            digests.insert(digest, of: try metadata.status(of: fd, path))
        }
        do throws(Errno) { try descriptor.close() } catch { throw metadata.failure("write", path, error) }
    }
}
