import VarveSystem

/// Compares two files by what counts in an image: see Docs/delta.md, "Exact". Access and change times, inode numbers
/// and extents do not count; the size of a directory does not either.
struct FileComparison<Old: OldTree> {
    /// Says whether the content of two regular files of equal size differs.
    typealias Content = (OldSide<Old>, NewSide, _ path: BytePath) throws(LayerError) -> Bool

    private let tree: Old
    private let contentDiffers: Content

    init(_ tree: Old, content: @escaping Content) {
        self.tree = tree
        contentDiffers = content
    }

    func differs(_ old: OldSide<Old>, _ new: NewSide, path: BytePath) throws(LayerError) -> Bool {
        let a = old.status
        let b = new.status
        if a.mode != b.mode || a.uid != b.uid || a.gid != b.gid { return true }
        if !tree.isSame(a.modificationTime, b.modificationTime) { return true }
        switch b.type {
        case .regular where a.size != b.size:
            return true
        case .characterDevice where tree.knowsDeviceNumbers, .blockDevice where tree.knowsDeviceNumbers:
            if a.deviceMajor != b.deviceMajor || a.deviceMinor != b.deviceMinor { return true }
        case .symbolicLink:
            if try tree.target(of: old, path: path) != new.target(path) {
                return true
            }
        default:
            break
        }
        let attributes = try Self.counted(new.attributes(path))
        if let before = try tree.attributes(of: old, path: path),
            Self.counted(before) != attributes
        {
            return true
        }
        // In a user name space, ids that it does not have all look alike.
        if attributes.contains(where: { PosixACL.isACL($0.name) && PosixACL.namesUnknown($0.value) }) {
            return true
        }
        if try tree.mayDifferUnseen(old, new, path: path) { return true }
        if b.type == .regular, b.size > 0 { return try contentDiffers(old, new, path) }
        return false
    }

    private static func counted(_ attributes: [ExtendedAttribute]) -> [ExtendedAttribute] {
        attributes.filter { belongsToImage($0.name) }
    }
}
