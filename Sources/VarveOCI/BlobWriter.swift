package import VarveFormats
internal import Glibc
internal import Synchronization
internal import VarveSystem
internal import SystemPackage

/// Writes one blob into a layout: to a temporary file, hashed on the way, and under its digest once it is
/// whole and on disk. A writer that goes away unfinished removes its file.
///
/// Each `write` is one system call: whoever has many small pieces gathers them first.
package final class BlobWriter {
    /// The start of every name that is not yet part of a layout.
    static let temporaryPrefix = ".varve-blob-"

    private let layout: ImageLayout
    /// Held for as long as this writer lives, whatever `layout` does.
    private let lock: HeldLock
    private let temporary: BytePath
    private var file: TemporaryFile?
    private var hasher: DigestHasher
    private var count: Int64 = 0
    private var early = EarlyWriting()
    /// What `finish` stored; nil before.
    package private(set) var blob: (digest: Digest, size: Int64)?

    /// Keeps garbage collection away from the layout until `layout` itself goes away, so that the blob lives
    /// until something refers to it.
    package init(_ layout: ImageLayout, algorithm: DigestAlgorithm = .sha256) throws(OCIError) {
        lock = try layout.beginWriting()
        self.layout = layout
        hasher = DigestHasher(algorithm)
        let made = try attempt("make a temporary file in the image layout", layout.path) {
            () throws(Errno) in
            try TemporaryFile.make(in: layout.directory.fd, layout.cancellation)
        }
        (temporary, file) = made
        layout.giveToOwner(made.1.descriptor.fd)
    }

    deinit {
        if blob == nil { try? layout.directory.fd.unlink(temporary) }
    }

    /// Takes all of `bytes`.
    package func write(_ bytes: UnsafeRawBufferPointer) throws(OCIError) {
        guard let fd = file?.descriptor.fd else {
            preconditionFailure("a blob is written after it was finished")
        }
        unsafe hasher.update(bytes)
        count += Int64(bytes.count)
        do throws(Errno) {
            try unsafe fd.writeFull(bytes)
            early.wrote(bytes.count, to: fd)
        } catch {
            throw .io("write a blob into the image layout", layout.path, error)
        }
    }

    package func write(_ bytes: [UInt8]) throws(OCIError) {
        let outcome: Result<Void, OCIError> = unsafe bytes.withUnsafeBytes { buffer in
            Result { () throws(OCIError) in try unsafe write(buffer) }
        }
        try outcome.get()
    }

    /// Stores the blob durably; `blob` then says what it is. A second call does nothing. An equal blob that
    /// is there already stays as it is; a damaged one is replaced.
    package func finish() throws(OCIError) {
        guard let file else { return }
        self.file = nil
        let descriptor = Descriptor(mediaType: "", digest: hasher.finish(), size: count)
        do throws(Errno) {
            try store(file, as: descriptor)
        } catch {
            try? layout.directory.fd.unlink(temporary)
            throw .io("store the blob", layout.blobPath(descriptor.digest), error)
        }
        blob = (descriptor.digest, count)
    }

    private func store(_ file: TemporaryFile, as descriptor: Descriptor) throws(Errno) {
        let root = layout.directory.fd
        let name = BytePath(descriptor.digest.hex)
        var isOnDisk = false
        while true {
            let presence = try layout.hold(descriptor)
            if presence == .held {
                try? root.unlink(temporary)
                return
            }
            if !isOnDisk { try file.descriptor.fd.synchronize() }
            isOnDisk = true
            let folder = try layout.makeBlobFolder(descriptor.digest.algorithm)
            var isNew = presence == .absent
            do throws(Errno) {
                if isNew {
                    try root.rename(temporary, to: folder.fd, name, replacing: false)
                } else {
                    try layout.replaceBlob(by: temporary, in: folder.fd, name)
                }
            } catch .fileExists where isNew {
                // Somebody else stored it just now.
                continue
            } catch .invalidArgument where isNew {
                // This file system replaces always, perhaps another's blob.
                isNew = false
                try root.rename(temporary, to: folder.fd, name)
            }
            layout.keep(file, descriptor.digest, isNew: isNew)
            return try folder.fd.synchronize()
        }
    }
}

/// The file that a blob is written to. It is locked shared from before anything is in it, so that it can be told from that
/// of a writer that died, and stays so under its name as a blob.
struct TemporaryFile {
    let descriptor: SharedDescriptor
    /// Nil on file systems without flock(2).
    let lock: HeldLock?

    static func make(in directory: FileDescriptor, _ cancellation: Cancellation) throws(Errno) -> (
        BytePath, TemporaryFile
    ) {
        while true {
            if cancellation.isCancelled { throw .canceled }
            let name = BytePath(BlobWriter.temporaryPrefix + randomName())
            let file = SharedDescriptor(
                try directory.open(name, [.readWrite, .create, .exclusive, .noFollow], mode: 0o644))
            guard let isLocked = try? file.fd.tryLock(.shared) else {
                return (name, TemporaryFile(descriptor: file, lock: nil))
            }
            // Somebody who cleans up may hold it just now, or have taken it away already.
            if isLocked, let status = try? file.fd.status(), status.linkCount > 0 {
                return (name, TemporaryFile(descriptor: file, lock: HeldLock(on: file)))
            }
            try? directory.unlink(name)
        }
    }
}

extension ImageLayout {
    /// Stores a document and returns its descriptor.
    package func putJSON(
        _ object: JSONObject, mediaType: String, platform: Platform? = nil
    ) throws(OCIError) -> Descriptor {
        try put(JSONValue.object(object).serialized(), mediaType: mediaType, platform: platform)
    }

    /// Keeps the lock on a blob that has its name now.
    func keep(_ file: TemporaryFile, _ digest: Digest, isNew: Bool) {
        guard let inode = try? file.descriptor.fd.status().inode else { return }
        blobs.withLock {
            $0.append(HeldBlob(digest: digest, inode: inode, lock: file.lock, isNew: isNew))
        }
    }

    /// Gives what root makes in somebody's layout to whom the layout belongs, so that they can work with it afterwards.
    /// Where root may not, as in some user namespaces and on network file systems, it stays root's.
    func giveToOwner(_ file: FileDescriptor) {
        guard geteuid() == 0, let owner = try? directory.fd.status(), owner.uid != 0 || owner.gid != getegid()
        else { return }
        try? file.changeOwner(uid: owner.uid, gid: owner.gid)
    }
}
