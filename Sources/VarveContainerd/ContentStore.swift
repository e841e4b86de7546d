package import VarveArchive
package import VarveOCI
package import VarveStore

/// containerd's content store, as the differ uses it: one for each call, in the namespace of the call.
package protocol ContentStore: BlobSource {
    /// Says that blobs will be read soon, in this order. Those that lie on a disk may be brought into memory meanwhile; those that are not
    /// there, or cannot be, are passed over. Returns at once.
    func prefetch(_ blobs: [Digest])

    /// Begins to write a blob that nobody has named yet.
    ///
    /// - Parameter reference: the name of the upload; empty for one that nobody else uses.
    func write(reference: String) throws -> any ContentWriter
}

/// A blob on its way into the content store. One that is let go unfinished is given up.
package protocol ContentWriter: ByteSink {
    /// Stores the blob, once all of it was written. That it is there already is no error.
    func commit(digest: Digest, size: Int64, labels: [String: String]) throws
}
