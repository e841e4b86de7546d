private import Crypto

/// A digest computed as the bytes come by.
package struct DigestHasher {
    // BoringSSL's SHA-2 (swift-crypto) uses the processor's SHA instructions where it has them. One of the
    // two is set; they are optionals rather than cases of an enum so that they are updated in place, without
    // a copy.
    private var sha256: SHA256?
    private var sha512: SHA512?

    package init(_ algorithm: DigestAlgorithm = .sha256) {
        switch algorithm {
        case .sha256: sha256 = SHA256()
        case .sha512: sha512 = SHA512()
        }
    }

    package mutating func update(_ bytes: UnsafeRawBufferPointer) {
        unsafe sha256?.update(bufferPointer: bytes)
        unsafe sha512?.update(bufferPointer: bytes)
    }

    package mutating func update(_ bytes: [UInt8]) {
        unsafe bytes.withUnsafeBytes { unsafe update($0) }
    }

    /// The digest of everything so far; more may follow.
    package func finish() -> Digest {
        if let sha512 {
            return unsafe sha512.finalize().withUnsafeBytes { unsafe Digest(algorithm: .sha512, hashed: $0) }
        }
        return unsafe (sha256 ?? SHA256()).finalize().withUnsafeBytes {
            unsafe Digest(algorithm: .sha256, hashed: $0)
        }
    }
}
