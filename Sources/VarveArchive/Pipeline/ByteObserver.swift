/// Sees all bytes of a stream in order, without keeping or changing them: a digest, a counter.
package protocol ByteObserver: AnyObject {
    /// `bytes` are valid during the call only.
    func observe(_ bytes: UnsafeRawBufferPointer)

    /// Called once, after the last byte of a stream that ended without an error. What it throws (say, because
    /// the digest is not the expected one) reaches the reader of the stream in place of its end.
    func finish() throws
}

/// An observer made of closures.
@safe
package final class ClosureObserver: ByteObserver {
    private let take: (UnsafeRawBufferPointer) -> Void
    private let end: () throws -> Void

    package init(
        _ take: @escaping (UnsafeRawBufferPointer) -> Void, atEnd end: @escaping () throws -> Void = {}
    ) {
        unsafe self.take = unsafe take
        self.end = end
    }

    package func observe(_ bytes: UnsafeRawBufferPointer) { unsafe take(bytes) }
    package func finish() throws { try end() }
}
