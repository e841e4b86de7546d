import VarveSystem
import SystemPackage

/// The tree that layers in directories of their own give together, as overlayfs would show it: read only, and only as
/// much of it as is asked for.
package struct LowerTree: Sendable {
    /// A file of the tree: where it lies and in which layer.
    struct Found {
        /// Counted from the bottom.
        var layer: Int
        var directory: SharedDescriptor
        var name: BytePath
        var status: FileStatus
    }

    private let layers: [LowerLayer]
    /// The mount that each layer lies on; nil where the kernel does not tell. What is mounted in a layer is none of it, and an error.
    private let mounts: [UInt64?]

    /// - Parameter layers: the bottom one first.
    package init(_ layers: [LowerLayer]) {
        self.layers = layers
        mounts = layers.map { try? $0.root.fd.mountID() }
    }

    /// What lies at a path that has no symbolic link on its way; nil if nothing does.
    func find(_ path: [BytePath]) throws(LayerError) -> Found? {
        for (index, layer) in layers.enumerated().reversed() {
            let lookup: Lookup
            do throws(Errno) {
                lookup = try Self.look(path, in: layer, mount: mounts[index])
            } catch .improperLink {
                throw .mounted(on: BytePath(joining: path), in: layer.root.fd)
            } catch {
                throw .system(operation: "look at", path: BytePath(joining: path), errno: error)
            }
            switch lookup {
            case .found(let directory, let name, let status):
                return Found(layer: index, directory: directory, name: name, status: status)
            case .hidden: return nil
            case .absent: continue
            }
        }
        return nil
    }

    private enum Lookup {
        case found(SharedDescriptor, BytePath, FileStatus)
        /// Nothing, and whatever layers below have there does not show.
        case hidden
        case absent
    }

    /// - Throws: `improperLink` (EXDEV) where something is mounted on the way or at its end.
    private static func look(_ path: [BytePath], in layer: LowerLayer, mount: UInt64?) throws(Errno) -> Lookup
    {
        var directory = layer.root
        var hides = try isOpaque(directory.fd, layer.whiteouts)
        for (index, name) in path.enumerated() {
            guard let found = try directory.fd.mountedStatusIfPresent(of: name) else {
                if layer.whiteouts == .files,
                    try directory.fd.statusIfPresent(of: Whiteout.name(deleting: name)) != nil
                {
                    return .hidden
                }
                return hides ? .hidden : .absent
            }
            if let mount, found.mount != mount { throw .improperLink }
            let status = found.status
            if layer.whiteouts == .overlayfs, status.isOverlayWhiteout { return .hidden }
            if index == path.count - 1 { return .found(directory, name, status) }
            guard status.isDirectory else { return .hidden }
            directory = SharedDescriptor(
                try directory.fd.open(name, [.directory, .noFollow], resolve: .noCrossing))
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

    /// The names of all files of one layer that have several: the whole layer is listed.
    func linkedNames(inLayer layer: Int) throws(LayerError) -> LinkedNames {
        var result = LinkedNames()
        // Directories still to list. They are opened when it is their turn: there may be more of them than descriptors.
        var pending = [result.root]
        while let directory = pending.popLast() {
            let path = BytePath(joining: result.path(of: directory))
            let root = layers[layer].root
            let opened = try root.fd.openInTree(
                path.isEmpty ? .current : path, [.directory], resolve: [.beneath, .noSymlinks],
                "list the directory", path)
            try attempt("list the directory", path) { () throws(Errno) in
                for entry in try opened.fd.entries() {
                    // A mount on a name is another file, which no entry of the layer is a link to.
                    guard let found = try opened.fd.mountedStatusIfPresent(of: entry.name),
                        mounts[layer].map({ $0 == found.mount }) ?? true
                    else { continue }
                    let status = found.status
                    if status.isDirectory {
                        pending.append(result.add(entry.name, in: directory))
                    } else if status.linkCount > 1 {
                        result.files[status.inode, default: []].append(result.add(entry.name, in: directory))
                    }
                }
            }
        }
        return result
    }
}

/// The names of files that have several. Each is kept with the place of its directory, so that it costs the same however deep it
/// lies.
struct LinkedNames {
    private var names: [(name: BytePath, directory: Int)] = [(.empty, -1)]
    /// Places of the names of each file, by its inode number.
    fileprivate(set) var files: [UInt64: [Int]] = [:]
    fileprivate let root = 0

    fileprivate mutating func add(_ name: BytePath, in directory: Int) -> Int {
        names.append((name, directory))
        return names.count - 1
    }

    fileprivate func path(of place: Int) -> [BytePath] {
        var path: [BytePath] = []
        var place = place
        while place > root {
            path.append(names[place].name)
            place = names[place].directory
        }
        return path.reversed()
    }

    /// The paths of all names of a file.
    func paths(ofInode inode: UInt64) -> [[BytePath]] { (files[inode] ?? []).map(path(of:)) }
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
