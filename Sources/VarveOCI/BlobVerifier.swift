import VarveSystem

/// Checks the size and digest of a blob as its bytes come by. What was read counts only once `finish` did not
/// throw.
package struct BlobVerifier {
    package let descriptor: Descriptor
    private var hasher: DigestHasher
    private var count: Int64 = 0

    package init(_ descriptor: Descriptor) {
        self.descriptor = descriptor
        hasher = DigestHasher(descriptor.digest.algorithm)
    }

    /// Throws `invalidInput` as soon as there are more bytes than the descriptor says.
    package mutating func update(_ bytes: UnsafeRawBufferPointer) throws(OCIError) {
        count += Int64(bytes.count)
        if count > descriptor.size {
            throw .invalid(
                "the blob \(descriptor.digest) is longer than the \(descriptor.size) bytes that its "
                    + "descriptor says", subject: BytePath("\(descriptor.digest)"), remedy: .copyImageAgain)
        }
        unsafe hasher.update(bytes)
    }

    /// Throws `invalidInput` unless all bytes have come by and their digest is the descriptor's.
    package func finish() throws(OCIError) {
        if count != descriptor.size {
            throw .invalid(
                "the blob \(descriptor.digest) ends after \(count) bytes, but its descriptor says "
                    + "\(descriptor.size)", subject: BytePath("\(descriptor.digest)"), remedy: .copyImageAgain
            )
        }
        if hasher.finish() != descriptor.digest {
            throw .invalid(
                "the blob \(descriptor.digest) is damaged: its content has another digest",
                subject: BytePath("\(descriptor.digest)"), remedy: .copyImageAgain
            )
        }
    }
}
