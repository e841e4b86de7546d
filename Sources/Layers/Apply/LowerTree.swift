import SystemCalls
import SystemPackage

/// The tree that layers in directories of their own give together, as overlayfs would show it: read only, and only as
/// much of it as is asked for.
public struct LowerTree: Sendable {
    /// A file of the tree: where it lies and in which layer.
    struct Found {
        /// Counted from the bottom.
        var layer: Int
        var directory: SharedDescriptor
        var name: BytePath
        var status: FileStatus
    }

    private let layers: [LowerLayer]

    /// - Parameter layers: the bottom one first.
    public init(_ layers: [LowerLayer]) { self.layers = layers }

    /// What lies at a path that has no symbolic link on its way; nil if nothing does.
    func find(_ path: [BytePath]) throws(LayerError) -> Found? {
        let whole = path.reduce(BytePath.empty) { $0.appending($1) }
        return try attempt("look at", whole) { () throws(Errno) in
            for (index, layer) in layers.enumerated().reversed() {
                switch try Self.look(path, in: layer) {
                case .found(let directory, let name, let status):
                    return Found(layer: index, directory: directory, name: name, status: status)
                case .hidden: return nil
                case .absent: continue
                }
            }
            return nil
        }
    }

    private enum Sight {
        case found(SharedDescriptor, BytePath, FileStatus)
        /// Nothing, and whatever layers below have there does not show.
        case hidden
        case absent
    }

    private static func look(_ path: [BytePath], in layer: LowerLayer) throws(Errno) -> Sight {
        var directory = layer.root
        var hides = try isOpaque(directory.fd, layer.whiteouts)
        for (index, name) in path.enumerated() {
            guard let status = try directory.fd.statusIfPresent(of: name) else {
                if layer.whiteouts == .files,
                    try directory.fd.statusIfPresent(of: Whiteout.name(deleting: name)) != nil
                {
                    return .hidden
                }
                return hides ? .hidden : .absent
            }
            if layer.whiteouts == .overlayfs, status.isOverlayWhiteout { return .hidden }
            if index == path.count - 1 { return .found(directory, name, status) }
            guard status.isDirectory else { return .hidden }
            directory = SharedDescriptor(try directory.fd.openDirectory(name))
            hides = try isOpaque(directory.fd, layer.whiteouts) || hides
        }
        return .absent
    }

    static func isOpaque(_ directory: FileDescriptor, _ style: WhiteoutStyle) throws(Errno) -> Bool {
        switch style {
        case .files: return try directory.statusIfPresent(of: Whiteout.opaqueName) != nil
        case .overlayfs:
            do throws(Errno) {
                return try directory.extendedAttribute(OverlayAttribute.opaque) == [UInt8(ascii: "y")]
            } catch .notSupported {
                return false
            }
        }
    }

    /// The paths of all names of a file with several that show, whatever directory of its layer they lie in.
    func names(of file: Found) throws(LayerError) -> [[BytePath]] {
        var result: [[BytePath]] = []
        // Directories still to list, with their paths.
        var pending: [([BytePath], SharedDescriptor)] = [([], layers[file.layer].root)]
        while let (path, directory) = pending.popLast(), result.count < file.status.linkCount {
            let entries = try attempt("list the directory", path.last ?? .current) { () throws(Errno) in
                try directory.fd.entries()
            }
            for entry in entries {
                let here = path + [entry.name]
                let status = try attempt("look at", entry.name) { () throws(Errno) in
                    try directory.fd.statusIfPresent(of: entry.name)
                }
                guard let status else { continue }
                if status.isDirectory {
                    let opened = try attempt("open the directory", entry.name) { () throws(Errno) in
                        try directory.fd.openDirectory(entry.name)
                    }
                    pending.append((here, SharedDescriptor(opened)))
                } else if status.inode == file.status.inode, try find(here)?.layer == file.layer {
                    result.append(here)
                }
            }
        }
        return result
    }
}

/// The attributes by which overlayfs keeps its own notes (Documentation/filesystems/overlayfs.rst).
enum OverlayAttribute {
    static let prefix = Array("trusted.overlay.".utf8)
    static let opaque: BytePath = "trusted.overlay.opaque"
}

extension FileStatus {
    /// A character device 0/0.
    var isOverlayWhiteout: Bool { type == .characterDevice && deviceMajor == 0 && deviceMinor == 0 }
}
