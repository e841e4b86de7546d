/// Bytes that are pulled: a blob being read, inflated or passed on by another thread.
///
/// The runs are borrowed from the source, so that a byte is copied only where it is transformed.
package protocol ByteSource: AnyObject {
    /// The next run of bytes, valid until the next call; empty at the end, and on every call after it.
    ///
    /// Runs may have any length; all but the last are, where the source can choose, multiples of 512 bytes.
    func next() throws -> UnsafeRawBufferPointer
}

/// Bytes that are pushed: a layer being written, compressed and hashed.
package protocol ByteSink: AnyObject {
    /// Takes all of `bytes`, which stay the caller's after the call.
    func write(_ bytes: UnsafeRawBufferPointer) throws

    /// Says that nothing more comes. What is still held back goes out; a second call does nothing.
    func finish() throws
}
