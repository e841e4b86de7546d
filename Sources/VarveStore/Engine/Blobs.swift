package import VarveArchive
package import VarveOCI
import VarveSystem

/// Where the engine reads the blobs of layers: an image layout, or the content store of a daemon, behind a socket.
package protocol BlobSource: Sendable {
    /// The bytes of a blob, from its first to its last.
    ///
    /// The source need not check them: size and digest are checked against the descriptor while they are read
    /// (`LayerStream`). They are read on another thread than that of the caller.
    func bytes(of blob: Descriptor) throws -> sending any ByteSource
}

/// Where the engine puts the blobs of new layers.
package protocol BlobTarget {
    /// A blob that is yet to be written. One that goes away unfinished leaves nothing behind.
    func makeBlob() throws -> any NewBlob
}

/// A blob on its way to where it is kept. It is there for others, durably, once `finish` has returned.
package protocol NewBlob: ByteSink {
    /// The digest and the size in bytes of what was stored; nil before `finish`.
    var stored: (digest: Digest, size: Int64)? { get }
}

extension ImageLayout: BlobSource, BlobTarget {
    package func bytes(of blob: Descriptor) throws -> sending any ByteSource {
        FileSource(SharedDescriptor(try openBlob(blob)))
    }

    package func makeBlob() throws -> any NewBlob { BlobSink(try BlobWriter(self)) }
}
