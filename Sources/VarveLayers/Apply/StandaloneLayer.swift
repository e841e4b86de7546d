public import VarveSystem

/// How a layer's whiteouts are kept where the layers below are not in the same directory.
public enum WhiteoutStyle: String, Sendable {
    /// As overlayfs wants them (Documentation/filesystems/overlayfs.rst): a character device 0/0 in place of a name, the
    /// attribute `trusted.overlay.opaque` on a directory.
    case overlayfs
    /// As the layer has them: empty files `.wh.NAME` and `.wh..wh..opq`, for the store to interpret.
    case files
}

/// A layer in a directory of its own, as it lies below others.
public struct LowerLayer: Sendable {
    /// The directory that the layer was extracted into.
    public var root: SharedDescriptor
    /// How the directory says what the layer deletes.
    public var whiteouts: WhiteoutStyle

    /// A layer that lies in a directory of its own.
    public init(root: SharedDescriptor, whiteouts: WhiteoutStyle) {
        self.root = root
        self.whiteouts = whiteouts
    }
}

/// A layer that is extracted into a directory of its own, and what its extraction found out.
///
/// Used by one thread at a time: by that which extracts, and by the driver before and after.
public final class StandaloneLayer: @unchecked Sendable {
    /// How deletions are to be written down in the directory.
    public let whiteouts: WhiteoutStyle
    /// The layer has an entry for the root directory, which its own directory then shows. Otherwise the root of the
    /// image is as the layers below have it.
    public internal(set) var hasRootEntry = false
    /// What lies in the directory is not the layer's alone: something of the layers below had to be copied up (a
    /// directory that the layer has no entry for, a symbolic link on the way to an entry, the target of a hard link).
    /// Over other layers it would be another, so it may be shared by ChainID only, not by digest.
    public internal(set) var dependsOnLower = false

    /// A layer that is yet to be extracted.
    public init(whiteouts: WhiteoutStyle) { self.whiteouts = whiteouts }
}
