import VarveArchive
import VarveOCI
import VarveSystem

/// How much an image may unpack to. What a few compressed bytes become is the image's choice, so there is an end to it.
public struct UnpackLimits: Sendable, Hashable {
    /// Bytes: 1 TiB.
    package static let defaultSize: Int64 = 1 << 40
    /// 10 million, twice as many as the largest images have.
    package static let defaultEntries = 10_000_000

    /// Bytes of the uncompressed archives of all layers that are read, and of the holes of sparse files in them.
    public var size = defaultSize
    /// Entries of these archives.
    public var entries = defaultEntries

    package init() {}
}

/// What is left of the limits while the layers of one image are read, one after another or side by side.
struct UnpackAllowance: Sendable {
    private let limits: UnpackLimits
    /// For the readers of all layers.
    let archives: TarAllowance

    init(_ limits: UnpackLimits) {
        self.limits = limits
        archives = TarAllowance(size: limits.size, entries: Int64(limits.entries))
    }

    /// What is to be said of an error that is one of these limits; nil for any other.
    func explain(_ error: TarError, _ layer: Descriptor) -> VarveError? {
        let (what, limit): (String, VarveError.Limit)
        switch error.reason {
        case .tooLarge: (what, limit) = ("\(limits.size) bytes", .imageSize)
        case .tooManyEntries: (what, limit) = ("\(limits.entries) entries", .imageEntries)
        default: return nil
        }
        return VarveError(
            .invalidInput,
            "the image unpacks to more than \(what), which its layer \(layer.digest) exceeds",
            subject: BytePath("\(layer.digest)"), remedy: .raiseLimit(limit)
        )
    }
}
