import VarveArchive
import VarveLayers
package import VarveOCI
package import VarveSystem

/// What a layer holds, as its archive says: nothing is extracted.
package struct LayerContents: Sendable {
    /// What an entry does to the tree below.
    package enum Kind: String, Sendable {
        case file, directory, symlink, hardlink, character, block, fifo
        /// What has the name in a layer below is gone.
        case whiteout
        /// What layers below have in the directory is gone.
        case opaque
    }

    package struct Entry: Sendable {
        package var path: BytePath
        package var kind: Kind
        /// Bytes of a file's content.
        package var size: Int64
        /// Of a link.
        package var target: BytePath?
    }

    /// How many entries there are of which kind, and the bytes of all files.
    package struct Summary: Sendable {
        package var entries = 0
        package var whiteouts = 0
        package var bytes: Int64 = 0
    }

    private let image: ResolvedImage
    private let allowance: UnpackAllowance
    private let cancellation: Cancellation

    /// - Parameter limits: of all that is read.
    package init(
        of image: ResolvedImage, limits: UnpackLimits = UnpackLimits(), cancellation: Cancellation
    ) {
        self.image = image
        allowance = UnpackAllowance(limits)
        self.cancellation = cancellation
    }

    /// Reads a layer to its end; its digests are checked as for an unpack.
    ///
    /// - Parameters:
    ///   - index: of the layer, the bottom one is 0.
    ///   - take: gets each entry, in the order of the archive.
    package func read(_ index: Int, _ take: (Entry) throws -> Void) throws {
        let stream = try LayerStream(
            image.layers[index], diffID: image.diffIDs[index], from: image.layout, cancellation: cancellation)
        try stream.read(allowance) { entry in
            try cancellation.check()
            if let entry = Self.entry(entry) { try take(entry) }
        }
    }

    package func summary(of index: Int) throws -> Summary {
        var summary = Summary()
        try read(index) { entry in
            summary.entries += 1
            if entry.kind == .whiteout || entry.kind == .opaque { summary.whiteouts += 1 }
            summary.bytes = summary.bytes.addingReportingOverflow(entry.size).partialValue
        }
        return summary
    }

    /// Nil for what stands for nothing.
    private static func entry(_ entry: TarEntry) -> Entry? {
        let path = entry.path.cleaned.relative
        let name = path.lastComponent
        if Whiteout.isBookkeeping(name) { return nil }
        if name == Whiteout.opaqueName { return Entry(path: path.parent, kind: .opaque, size: 0) }
        if name.hasPrefix(Whiteout.prefix) {
            let deleted = name.dropFirst(Whiteout.prefix.count)
            return Entry(
                path: path.parent.isEmpty ? deleted : path.parent.appending(deleted), kind: .whiteout, size: 0
            )
        }
        let kind: Kind =
            switch entry.kind {
            case .regular: .file
            case .directory: .directory
            case .symbolicLink: .symlink
            case .hardLink: .hardlink
            case .characterDevice: .character
            case .blockDevice: .block
            case .fifo: .fifo
            }
        return Entry(
            path: path.isEmpty ? .current : path, kind: kind, size: entry.size,
            target: entry.linkTarget.isEmpty ? nil : entry.linkTarget)
    }
}

extension BytePath {
    /// Without slashes at the start.
    fileprivate var relative: BytePath {
        var path = self
        while path.hasPrefix([UInt8(ascii: "/")]) { path = path.dropFirst(1) }
        return path == .current ? .empty : path
    }
}
