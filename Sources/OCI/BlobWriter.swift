internal import Glibc
internal import SystemCalls
internal import SystemPackage

/// Writes one blob into a layout: to a temporary file, hashed on the way, and under its digest once it is
/// whole and on disk. A writer that goes away unfinished removes its file.
///
/// Each `write` is one system call: whoever has many small pieces gathers them first.
public final class BlobWriter {
    /// The start of every name that is not yet part of a layout.
    static let temporaryPrefix = ".varve-blob-"

    private let layout: ImageLayout
    /// Held for as long as this writer lives, whatever `layout` does.
    private let lock: HeldLock
    private let temporary: BytePath
    private var file: OwnedDescriptor?
    private var hasher: DigestHasher
    private var count: Int64 = 0
    /// What `finish` stored; nil before.
    public private(set) var blob: (digest: Digest, size: Int64)?

    /// Keeps garbage collection away from the layout until `layout` itself goes away, so that the blob lives
    /// until something refers to it.
    public init(_ layout: ImageLayout, algorithm: DigestAlgorithm = .sha256) throws(OCIError) {
        lock = try layout.beginWriting()
        self.layout = layout
        hasher = DigestHasher(algorithm)
        let temporary = BytePath(Self.temporaryPrefix + randomName())
        self.temporary = temporary
        file = try attempt("make a temporary file in the image layout", layout.path) { () throws(Errno) in
            try layout.directory.fd.open(
                temporary, [.writeOnly, .create, .exclusive, .noFollow], mode: 0o644)
        }
    }

    deinit {
        if blob == nil { try? layout.directory.fd.unlink(temporary) }
    }

    /// Takes all of `bytes`.
    public func write(_ bytes: UnsafeRawBufferPointer) throws(OCIError) {
        guard let fd = file?.fd else { preconditionFailure("a blob is written after it was finished") }
        unsafe hasher.update(bytes)
        count += Int64(bytes.count)
        do throws(Errno) {
            try unsafe fd.writeFull(bytes)
        } catch {
            throw .io("write a blob into the image layout", layout.path, error)
        }
    }

    public func write(_ bytes: [UInt8]) throws(OCIError) {
        let outcome: Result<Void, OCIError> = unsafe bytes.withUnsafeBytes { buffer in
            Result { () throws(OCIError) in try unsafe write(buffer) }
        }
        try outcome.get()
    }

    /// Stores the blob durably; `blob` then says what it is. A second call does nothing. An equal blob that
    /// is there already stays as it is; a damaged one is replaced.
    public func finish() throws(OCIError) {
        guard let file = file.take() else { return }
        let digest = hasher.finish()
        let name = ImageLayout.blobPath(digest)
        let root = layout.directory.fd
        let descriptor = Descriptor(mediaType: "", digest: digest, size: count)
        if layout.holdsIntact(descriptor) {
            try? root.unlink(temporary)
            blob = (digest, count)
            return
        }
        do throws(Errno) {
            try file.fd.synchronize()
            try file.close()
            let folder = try layout.openBlobDirectory(digest.algorithm)
            try root.rename(temporary, to: root, name)
            try folder.fd.synchronize()
        } catch {
            try? root.unlink(temporary)
            throw .io("store the blob", layout.path.appending(name), error)
        }
        blob = (digest, count)
    }
}

extension ImageLayout {
    /// Stores a document and returns its descriptor.
    public func putJSON(
        _ object: JSONObject, mediaType: String, platform: Platform? = nil
    ) throws(OCIError) -> Descriptor {
        let writer = try BlobWriter(self)
        let bytes = JSONValue.object(object).serialized()
        try writer.write(bytes)
        try writer.finish()
        guard let blob = writer.blob else { preconditionFailure("a finished writer has a blob") }
        return Descriptor(mediaType: mediaType, digest: blob.digest, size: blob.size, platform: platform)
    }

    /// Whether the blob is there and its content is right.
    func holdsIntact(_ descriptor: Descriptor) -> Bool {
        guard let file = try? openBlob(descriptor) else { return false }
        var verifier = BlobVerifier(descriptor)
        let isIntact: Bool? = try? unsafe withUnsafeTemporaryAllocation(byteCount: 1 << 18, alignment: 4096) {
            buffer in
            while true {
                let filled = try unsafe file.fd.readFull(into: buffer)
                if filled == 0 { break }
                try unsafe verifier.update(UnsafeRawBufferPointer(rebasing: buffer[..<filled]))
            }
            try verifier.finish()
            return true
        }
        return isIntact ?? false
    }

    /// `blobs/ALGORITHM`, made where a layout lacks it.
    func openBlobDirectory(_ algorithm: DigestAlgorithm) throws(Errno) -> OwnedDescriptor {
        let name = BytePath("blobs/\(algorithm.rawValue)")
        do throws(Errno) {
            return try directory.fd.open(name, [.directory], resolve: .beneath)
        } catch .noSuchFileOrDirectory {
            for made in [BytePath("blobs"), name] {
                do throws(Errno) {
                    try directory.fd.makeDirectory(made, mode: 0o755)
                } catch .fileExists {
                    continue
                }
            }
            try directory.fd.synchronize()
            return try directory.fd.open(name, [.directory], resolve: .beneath)
        }
    }
}
