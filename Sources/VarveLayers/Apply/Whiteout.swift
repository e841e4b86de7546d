package import VarveSystem

/// The names by which a layer deletes what lies below it (OCI image-spec layer.md, "Whiteouts").
package enum Whiteout: Sendable {
    package static let prefix = Array(".wh.".utf8)
    /// In a directory: whatever lower layers have put there is gone.
    package static let opaqueName = BytePath(".wh..wh..opq")
    /// Names that AUFS kept for itself (`.wh..wh.plnk`, `.wh..wh.aufs`, …); other tools skip them too.
    static let aufsPrefix = Array(".wh..wh.".utf8)

    /// Where AUFS keeps files that have several names.
    static let plinkName = BytePath(".wh..wh.plnk")

    enum Meaning {
        /// An ordinary entry.
        case none
        /// Everything in the same directory from lower layers is deleted.
        case opaque
        /// This name, from lower layers, is deleted.
        case deletes(BytePath)
        /// Bookkeeping of another file system; stands for nothing.
        case ignored
    }

    static func meaning(of name: BytePath, entry path: BytePath) throws(LayerError) -> Meaning {
        guard name.hasPrefix(prefix) else { return .none }
        if name == opaqueName { return .opaque }
        if isBookkeeping(name) { return .ignored }
        let deleted = name.dropFirst(prefix.count)
        if deleted.isEmpty || deleted == "." || deleted == ".." {
            throw .invalidEntry(path: path, reason: "a whiteout must name a file in its own directory")
        }
        return .deletes(deleted)
    }

    /// A name that AUFS kept for itself.
    package static func isBookkeeping(_ name: BytePath) -> Bool {
        name.hasPrefix(aufsPrefix) && name != opaqueName
    }

    /// The name of the entry that deletes `name`.
    package static func name(deleting name: BytePath) -> BytePath {
        BytePath(prefix + Array(name.bytes)) ?? name
    }
}

extension BytePath {
    static func == (left: BytePath, right: String) -> Bool { left.bytes.elementsEqual(right.utf8) }
}
