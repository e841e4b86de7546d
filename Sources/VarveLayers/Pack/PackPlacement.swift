package import VarveSystem

/// Where what is packed lies in the layer, if not where it lies in its tree.
package struct PackPlacement: Sendable, Hashable {
    /// A path in the tree; `.` is the whole of it.
    package var source: BytePath
    /// What it is called in the layer; `.` is the root.
    package var target: BytePath

    package init(source: BytePath, target: BytePath) {
        self.source = source
        self.target = target
    }

    /// The path in the layer of one at or below `source`.
    func path(of path: BytePath) -> BytePath {
        if path == source { return target }
        let rest = source == .current ? path : path.dropFirst(source.count + 1)
        return target == .current ? rest : target.appending(rest)
    }
}
