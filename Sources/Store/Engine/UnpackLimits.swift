import Archive
import OCI

/// How much an image may unpack to. What a few compressed bytes become is the image's choice, so there is an end to it.
public struct UnpackLimits: Sendable, Hashable {
    /// Bytes: 1 TiB.
    public static let defaultSize: Int64 = 1 << 40
    /// 10 million, twice as many as the largest images have.
    public static let defaultEntries = 10_000_000

    /// Bytes of the uncompressed archives of all layers that are read, and of the holes of sparse files in them.
    public var size = defaultSize
    /// Entries of these archives.
    public var entries = defaultEntries

    public init() {}
}

/// What is left of the limits while the layers of one image are read.
struct UnpackAllowance {
    private let limits: UnpackLimits
    private var size: Int64 = 0
    private var entries = 0

    init(_ limits: UnpackLimits) { self.limits = limits }

    /// For the reader of the next layer.
    var tarLimits: TarLimits {
        var result = TarLimits()
        result.size = max(0, limits.size - size)
        result.entries = max(0, limits.entries - entries)
        return result
    }

    /// Takes what a layer needed from what is left.
    mutating func use(_ archive: TarReader) {
        size = min(limits.size, size + min(archive.size, limits.size - size))
        entries = min(limits.entries, entries + min(archive.entries, limits.entries - entries))
    }

    /// What is to be said of an error that is one of these limits; nil for any other.
    func explain(_ error: TarError, _ layer: Descriptor) -> StoreError? {
        let (what, option): (String, String)
        switch error.reason {
        case .tooLarge: (what, option) = ("\(limits.size) bytes", "--max-size")
        case .tooManyEntries: (what, option) = ("\(limits.entries) entries", "--max-entries")
        default: return nil
        }
        return StoreError(
            .invalidInput,
            "the image unpacks to more than \(what), which its layer \(layer.digest) exceeds; if you trust it, allow more with \(option)"
        )
    }
}
