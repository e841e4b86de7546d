import VarveFormats
private import VarveSystem

/// The digest algorithms that image-spec registers and Varve computes (descriptor.md, "Registered
/// algorithms").
@usableFromInline package enum DigestAlgorithm: String, Hashable, Sendable, CaseIterable {
    case sha256
    case sha512

    /// Digits of a digest in lower-case hexadecimal.
    package var hexCount: Int {
        switch self {
        case .sha256: 64
        case .sha512: 128
        }
    }

    /// What the text of a digest begins with.
    var prefix: [UInt8] {
        switch self {
        case .sha256: Self.sha256Prefix
        case .sha512: Self.sha512Prefix
        }
    }

    private static let sha256Prefix = Array("sha256:".utf8)
    private static let sha512Prefix = Array("sha512:".utf8)
}

/// A content digest, `ALGORITHM:HEX` (image-spec descriptor.md, "Digests"). Only a registered algorithm with
/// exactly as many lower-case digits as it has can be made, so its text is safe as part of a path.
public struct Digest: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let algorithm: DigestAlgorithm
    /// Lower-case hexadecimal.
    public let hex: String

    /// Nil unless `text` is a digest in exactly the form above.
    public init?(_ text: String) { self.init(utf8: Array(text.utf8)) }

    /// Nil unless `text` is a digest in exactly the form above.
    package init?(_ text: Substring) { self.init(utf8: Array(text.utf8)) }

    /// Nil unless `text` is a digest in exactly the form above.
    package init?(utf8 text: [UInt8]) {
        let algorithm = text.starts(with: DigestAlgorithm.sha256.prefix) ? DigestAlgorithm.sha256 : .sha512
        guard text.starts(with: algorithm.prefix) else { return nil }
        self.init(algorithm: algorithm, hexDigits: text[algorithm.prefix.count...])
    }

    /// Nil unless `hex` has the length of the algorithm and only lower-case digits.
    @inlinable
    package init?(algorithm: DigestAlgorithm, hex: some StringProtocol) {
        self.init(algorithm: algorithm, hexDigits: Array(hex.utf8)[...])
    }

    @usableFromInline
    init?(algorithm: DigestAlgorithm, hexDigits: ArraySlice<UInt8>) {
        guard hexDigits.count == algorithm.hexCount, hexDigits.allSatisfy(Self.isLowerHex) else { return nil }
        self.algorithm = algorithm
        hex = String(decoding: hexDigits, as: UTF8.self)
    }

    /// - Parameter bytes: as many as the algorithm gives.
    init(algorithm: DigestAlgorithm, hashed bytes: UnsafeRawBufferPointer) {
        var text = [UInt8]()
        text.reserveCapacity(algorithm.hexCount)
        for index in bytes.indices { unsafe text.appendHex(bytes[index]) }
        self.algorithm = algorithm
        hex = String(decoding: text, as: UTF8.self)
    }

    /// Nil unless there are 32 of them.
    package init?(sha256 bytes: [UInt8]) {
        guard bytes.count * 2 == DigestAlgorithm.sha256.hexCount else { return nil }
        self = unsafe bytes.withUnsafeBytes { unsafe Digest(algorithm: .sha256, hashed: $0) }
    }

    /// The digest as it was computed: half as many bytes as it has digits.
    package var bytes: [UInt8] {
        var result = [UInt8]()
        result.reserveCapacity(hex.utf8.count / 2)
        var high: UInt8?
        for digit in hex.utf8 {
            let value = digit < UInt8(ascii: "a") ? digit - UInt8(ascii: "0") : digit - UInt8(ascii: "a") + 10
            if let first = high {
                result.append(first << 4 | value)
                high = nil
            } else {
                high = value
            }
        }
        return result
    }

    /// The digest of bytes in memory.
    package init(of bytes: some Sequence<UInt8>, algorithm: DigestAlgorithm = .sha256) {
        var hasher = DigestHasher(algorithm)
        hasher.update(Array(bytes))
        self = hasher.finish()
    }

    private static func isLowerHex(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
            || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains(byte)
    }

    public var description: String { algorithm.rawValue + ":" + hex }

    /// `sha256-HEX`: the digest as the name of a file.
    package var fileName: String { algorithm.rawValue + "-" + hex }

    /// Appends the bytes of its text.
    func write(to text: inout [UInt8]) {
        text.append(contentsOf: algorithm.prefix)
        text.append(contentsOf: hex.utf8)
    }

    public static func < (left: Digest, right: Digest) -> Bool { left.description < right.description }
}

extension Digest: Codable {
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        guard let digest = Digest(text) else {
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "not a sha256 or sha512 digest")
        }
        self = digest
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

/// The digest of a layer's uncompressed tar archive (image-spec config.md, "Layer DiffID").
public struct DiffID: Hashable, Sendable, Codable, CustomStringConvertible {
    /// The digest of the layer before it was compressed.
    public let digest: Digest
    /// The DiffID with this digest.
    public init(_ digest: Digest) { self.digest = digest }
    public var description: String { digest.description }

    public init(from decoder: any Decoder) throws { digest = try Digest(from: decoder) }
    public func encode(to encoder: any Encoder) throws { try digest.encode(to: encoder) }
}

/// The name of a stack of layers (image-spec config.md, "Layer ChainID").
public struct ChainID: Hashable, Sendable, Codable, CustomStringConvertible {
    /// The digest that is computed from the DiffIDs of the layers (image-spec config.md, "Layer ChainID").
    public let digest: Digest
    /// The ChainID with this digest.
    public init(_ digest: Digest) { self.digest = digest }
    public var description: String { digest.description }
    /// `sha256-HEX`.
    package var fileName: String { digest.fileName }

    public init(from decoder: any Decoder) throws { digest = try Digest(from: decoder) }
    public func encode(to encoder: any Encoder) throws { try digest.encode(to: encoder) }

    /// The chain that has `diffID` on top of `self`: SHA-256 of both in text with a space between.
    package func appending(_ diffID: DiffID) -> ChainID {
        var text = [UInt8]()
        text.reserveCapacity(2 * 71 + 1)
        digest.write(to: &text)
        text.append(UInt8(ascii: " "))
        diffID.digest.write(to: &text)
        return ChainID(Digest(of: text))
    }

    /// The ChainIDs of every prefix, lowest first: the element at `i` names the layers `0 … i`.
    package static func prefixes(of diffIDs: [DiffID]) -> [ChainID] {
        var result = [ChainID]()
        result.reserveCapacity(diffIDs.count)
        for diffID in diffIDs {
            result.append(result.last?.appending(diffID) ?? ChainID(diffID.digest))
        }
        return result
    }
}
