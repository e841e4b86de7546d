import VarveArchive
import Glibc
import VarveSystem
import SystemPackage

/// A directory of the layer's own, with the layers below elsewhere.
///
/// Whatever an entry needs of the layers below (the directories on the way to it, a symbolic link there, the file that a
/// hard link leads to) is copied up into the layer's directory first, as overlayfs does when something is written. Then
/// the layer is applied as it would be on top of them. Deletions become whiteouts.
final class StandaloneTarget: LayerTarget {
    let isOneOfSeveral = true
    private let directories: TreeDirectories
    private var root: FileDescriptor { directories.root }
    private let layer: StandaloneLayer
    private let isBottom: Bool
    /// Gives the tree below; may wait until it is all there.
    private let lower: () throws -> LowerTree
    private var lowerTree: LowerTree?
    /// What is copied of the layers below counts as if it had been in it.
    private var archive: TarReader?
    /// Directories that hide those of the same path below. An entry of theirs that comes later may take the mark away, so
    /// it is set again at the end. Those that were deleted since stay here: what takes their place is hidden from the layers
    /// below as well, itself or by a directory above it.
    private var opaque = PathSet()
    /// Whiteouts made, by directory and name. They may be gone by now.
    private var whiteouts = PathSet()
    /// Where files of the layers below were copied up to, and the copy's inode number: something else may be there by now.
    private var copies: [CopyKey: (place: PathTable.Place, inode: UInt64)] = [:]
    private let copiedPaths = PathTable()

    private var lastWalk: (path: BytePath, walked: [BytePath])?

    /// Of layers below: the names of their files that have several.
    private var linkedNames: [Int: LinkedNames] = [:]

    private struct CopyKey: Hashable {
        var layer: Int
        var inode: UInt64
    }

    init(
        _ directories: TreeDirectories, layer: StandaloneLayer, isBottom: Bool,
        lower: @escaping () throws -> LowerTree
    ) {
        self.directories = directories
        self.layer = layer
        self.isBottom = isBottom
        self.lower = lower
    }

    // MARK: Entries

    func begin(_ archive: TarReader) { self.archive = archive }

    func prepare(_ entry: TarEntry, _ place: EntryPath, keepDirlinks: Bool) throws {
        try refuseOwnNotes(entry)
        if place.name.isEmpty {
            layer.hasRootEntry = true
            return
        }
        guard let directory = try walkOnce(place.directory, entry: entry.path) else { return }
        if entry.kind == .directory {
            if keepDirlinks { _ = try copyUpLink(directory, place.name, entry: entry.path) }
            // A directory that takes the place of a file, or comes after a whiteout of its name, is a new one: that of the
            // layers below does not show.
            if let existing = try status(directory, place.name), !existing.isDirectory,
                !(keepDirlinks && existing.isSymbolicLink)
            {
                opaque.insert(directory + [place.name])
            }
        }
        if entry.kind == .hardLink { try prepareTarget(of: entry) }
        whiteouts.remove(place.name, in: directory)
        if entry.kind != .directory || keepDirlinks { forgetWay(directory + [place.name]) }
    }

    /// What overlayfs would take for a note of its own, or a file for a deletion.
    private func refuseOwnNotes(_ entry: TarEntry) throws(LayerError) {
        guard layer.whiteouts == .overlayfs else { return }
        let isWhiteout = entry.kind == .characterDevice && entry.deviceMajor == 0 && entry.deviceMinor == 0
        if isWhiteout
            || entry.extendedAttributes.contains(where: { $0.name.hasPrefix(OverlayAttribute.prefix) })
        {
            throw .unrepresentable(
                path: entry.path, reason: "overlayfs would take it for a note of its own",
                remedy: .useAnotherDriver)
        }
    }

    private func prepareTarget(of entry: TarEntry) throws {
        let target = try EntryPath(entry.linkTarget)
        guard !target.name.isEmpty,
            let directory = try walk(target.directory, entry: entry.path, creates: false),
            try status(directory, target.name) == nil, isSeenThrough(directory)
        else { return }
        let path = directory + [target.name]
        guard let found = try below(path), !found.status.isDirectory else { return }
        try copyUp(found, to: path, entry: entry.path)
    }

    // MARK: The way to an entry

    /// The path of the last entry's directory, and where it led: it is not walked again, unless something on it may have been replaced.
    private func walkOnce(_ path: BytePath, entry: BytePath) throws -> [BytePath]? {
        if let lastWalk, lastWalk.path == path { return lastWalk.walked }
        lastWalk = nil
        guard let walked = try walk(path, entry: entry, creates: true) else { return nil }
        lastWalk = (path, walked)
        return walked
    }

    /// Something was put at a path, or taken away.
    private func forgetWay(_ path: [BytePath]) {
        let path = join(path)
        if let way = lastWalk, join(way.walked).isAt(orBelow: path) || way.path.isAt(orBelow: path) {
            lastWalk = nil
        }
    }

    /// Copies up what the layers below have on the way to a directory. Returns its path with no symbolic link in it; nil
    /// if it is not there, neither in the layer nor below, and `creates` is false. With `creates`, what is missing
    /// everywhere is left for the applier to make.
    private func walk(_ path: BytePath, entry: BytePath, creates: Bool) throws -> [BytePath]? {
        var walk = try PathWalk(path, in: root)
        // Of each directory on the way, the root first, whether it or one above it hides those below.
        var hides = [opaque.contains([])]
        while let name = try walk.next() {
            hides.removeLast(hides.count - walk.walked.count - 1)
            let isHidden = hides.last ?? true
            var found = try walk.status(of: name)
            if layer.whiteouts == .overlayfs, let device = found, device.isOverlayWhiteout {
                guard creates else { return nil }
                // Deleted, and there again by way of what is to come: a new directory.
                try removeWhiteout(walk.walked, name)
                opaque.insert(walk.walked + [name])
                return walk.remainder(from: name)
            }
            if found == nil, !isBottom, !isHidden,
                try !isDeleted(name, in: walk.directory.fd, walk.walked),
                let below = try below(walk.walked + [name])
            {
                guard below.status.isDirectory || below.status.isSymbolicLink else {
                    // It gives way to the directory that is to come.
                    return creates ? walk.remainder(from: name) : nil
                }
                try copyUp(below, to: walk.walked + [name], entry: entry)
                found = below.status
            }
            guard let found else { return creates ? walk.remainder(from: name) : nil }
            if found.isSymbolicLink {
                // The applier says what is wrong with a circle.
                guard try walk.follow(name) else { return nil }
            } else if found.isDirectory {
                try walk.enter(name)
                hides.append(isHidden || opaque.contains(walk.walked))
            } else {
                guard creates else { return nil }
                // The directory that takes the place of the layer's own file is a new one, as in `prepare`.
                opaque.insert(walk.walked + [name])
                return walk.remainder(from: name)
            }
        }
        return walk.walked
    }

    /// For `--keep-dirlinks`: a link below in place of a directory entry.
    private func copyUpLink(_ directory: [BytePath], _ name: BytePath, entry: BytePath) throws -> Bool {
        guard !isBottom, try status(directory, name) == nil, isSeenThrough(directory),
            let below = try below(directory + [name]), below.status.isSymbolicLink
        else { return false }
        try copyUp(below, to: directory + [name], entry: entry)
        _ = try walk(join(directory + [name]), entry: entry, creates: true)
        return true
    }

    private func below(_ path: [BytePath]) throws -> LowerTree.Found? {
        if isBottom { return nil }
        layer.dependsOnLower = true
        return try tree().find(path)
    }

    private func tree() throws -> LowerTree {
        if let lowerTree { return lowerTree }
        let tree = try lower()
        lowerTree = tree
        return tree
    }

    /// Whether no directory on the way, nor the last, hides those below.
    private func isSeenThrough(_ path: [BytePath]) -> Bool { !opaque.contains(atOrAbove: path) }

    private func isDeleted(
        _ name: BytePath, in directory: FileDescriptor, _ path: [BytePath]
    ) throws(LayerError) -> Bool {
        guard layer.whiteouts == .files else { return false }
        return try attempt("look at", join(path + [name])) { () throws(Errno) in
            try directory.statusIfPresent(of: Whiteout.name(deleting: name)) != nil
        }
    }

    func readFile(_ path: BytePath, limit: Int) throws -> [UInt8]? {
        var path = path
        for _ in 0..<8 {
            guard let directory = try walk(path.parent, entry: path, creates: false) else { return nil }
            let name = path.lastComponent
            let place: (directory: SharedDescriptor, name: BytePath, status: FileStatus)
            if let own = try status(directory, name) {
                if own.isOverlayWhiteout { return nil }
                place = (try open(directory), name, own)
            } else {
                guard isSeenThrough(directory) else { return nil }
                let opened = try descriptor(directory)
                guard try !isDeleted(name, in: opened.fd, directory),
                    let found = try below(directory + [name])
                else { return nil }
                place = (found.directory, found.name, found.status)
            }
            if place.status.isSymbolicLink {
                let target = try attempt("read the link", path) { () throws(Errno) in
                    try place.directory.fd.readSymbolicLink(place.name)
                }
                path = target.isAbsolute ? target : join(directory).appending(target)
                continue
            }
            guard place.status.isRegular,
                let file = try? place.directory.fd.openRegularFile(
                    place.name, expecting: place.status, resolve: .noCrossing)
            else { return nil }
            return try? file.fd.readAll(limit: limit)
        }
        return nil
    }

    // MARK: Copying up

    private func copyUp(_ found: LowerTree.Found, to path: [BytePath], entry: BytePath) throws {
        if found.status.isDirectory { return try copy(found, to: path) }
        guard found.status.linkCount > 1 else { return try copy(found, to: path) }
        // One file by all its names, or it would be two.
        let key = CopyKey(layer: found.layer, inode: found.status.inode)
        if let first = copies[key] {
            let copy = copiedPaths.components(of: first.place)
            if let name = copy.last, try status(copy.dropLast(), name)?.inode == first.inode {
                return try link(copy, path)
            }
        }
        try copy(found, to: path)
        if let name = path.last, let made = try status(Array(path.dropLast()), name) {
            copies[key] = (copiedPaths.insert(path), made.inode)
        }
        for other in try names(of: found) where other != path {
            guard let directory = try walk(join(Array(other.dropLast())), entry: entry, creates: false),
                directory == Array(other.dropLast()), let name = other.last,
                try status(directory, name) == nil, isSeenThrough(directory)
            else { continue }
            let opened = try descriptor(directory)
            if try isDeleted(name, in: opened.fd, directory) { continue }
            if directories.cancellation.isCancelled { throw LayerError.cancelled }
            try archive?.countUnlisted()
            try link(path, other)
        }
    }

    /// The paths of all names of a file of the layers below that show. All files of its layer that have several are looked for at
    /// once: n of them cost one listing of the layer, not n.
    private func names(of found: LowerTree.Found) throws -> [[BytePath]] {
        let all: LinkedNames
        if let known = linkedNames[found.layer] {
            all = known
        } else {
            all = try tree().linkedNames(inLayer: found.layer)
            linkedNames[found.layer] = all
        }
        var result: [[BytePath]] = []
        for path in all.paths(ofInode: found.status.inode) where try tree().find(path)?.layer == found.layer {
            result.append(path)
        }
        return result
    }

    private func link(_ from: [BytePath], _ to: [BytePath]) throws(LayerError) {
        guard let oldName = from.last, let newName = to.last else { return }
        let source = try open(Array(from.dropLast()))
        try keepingTimes(of: Array(to.dropLast())) { (directory) throws(Errno) in
            try source.fd.link(oldName, to: directory, newName)
        }
    }

    /// A file or an empty directory, with all that counts in an image.
    private func copy(_ found: LowerTree.Found, to path: [BytePath]) throws {
        guard let name = path.last else { return }
        try archive?.countUnlisted(content: found.status.isRegular ? found.status.size : 0)
        let from = found.directory.fd
        let status = found.status
        try keepingTimes(of: Array(path.dropLast())) { (directory) throws(Errno) in
            switch status.type {
            case .directory: try directory.makeDirectory(name, mode: 0o700)
            case .symbolicLink:
                try directory.makeSymbolicLink(name, target: try from.readSymbolicLink(found.name))
            case .regular:
                let source = try from.openRegularFile(found.name, expecting: status, resolve: .noCrossing)
                let target = try directory.open(
                    name, [.writeOnly, .create, .exclusive, .noFollow], mode: 0o600)
                try target.fd.copyContent(of: source.fd)
                try target.close()
            default:
                try directory.makeNode(
                    name, mode: status.mode, major: status.deviceMajor, minor: status.deviceMinor)
            }
            try directory.changeOwner(of: name, uid: status.uid, gid: status.gid)
            if !status.isSymbolicLink {
                for attribute in try directory.extendedAttributeNames(of: name)
                where PosixACL.isACL(attribute) {
                    // Inherited from the directory's default ACL.
                    try directory.removeExtendedAttribute(attribute, of: name)
                }
                try directory.changeMode(of: name, to: status.permissions)
            }
            for attribute in try from.extendedAttributes(of: found.name)
            where belongsToImage(attribute.name) && !attribute.name.hasPrefix(OverlayAttribute.prefix) {
                try directory.setExtendedAttribute(attribute, of: name)
            }
            try directory.setTimes(of: name, access: status.accessTime, modification: status.modificationTime)
        }
    }

    // MARK: Deletions

    func delete(_ name: BytePath, in path: BytePath, entry: BytePath, keeping written: WrittenNames) throws {
        directories.forget()
        guard !isBottom, let directory = try walk(path, entry: entry, creates: false) else { return }
        lastWalk = nil
        let whole = join(directory + [name])
        if let existing = try status(directory, name), !existing.isOverlayWhiteout {
            let opened = try open(directory)
            let inode = try attempt("look at", path) { () throws(Errno) in try opened.fd.status().inode }
            var stays = written.contains(name, in: inode)
            if existing.isDirectory {
                let inside = try open(directory + [name])
                let kept = try TreeRemoval.removeContents(
                    of: inside.fd, path: whole, keeping: written, cancellation: directories.cancellation)
                if !stays {
                    var isRemoved = false
                    try keepingTimes(of: directory) { (fd) throws(Errno) in
                        do throws(Errno) {
                            try fd.removeDirectory(name)
                            isRemoved = true
                        } catch .directoryNotEmpty where kept {}
                    }
                    stays = !isRemoved
                }
            } else if !stays {
                try keepingTimes(of: directory) { (fd) throws(Errno) in try fd.unlink(name) }
            }
            if stays, existing.isDirectory { opaque.insert(directory + [name]) }
            // What stays hides what is below it, with its mark if it is a directory.
            if stays, layer.whiteouts == .overlayfs { return }
        }
        guard isSeenThrough(directory) else { return }
        try makeWhiteout(directory, name)
    }

    func deleteContents(of path: BytePath, entry: BytePath, keeping written: WrittenNames) throws {
        directories.forget()
        guard !isBottom, let directory = try walk(path, entry: entry, creates: false) else { return }
        lastWalk = nil
        let opened = try open(directory)
        let before = try attempt("look at", path) { () throws(Errno) in try opened.fd.status() }
        if !written.isSettled(before.inode) {
            _ = try TreeRemoval.removeContents(
                of: opened.fd, path: path, keeping: written, cancellation: directories.cancellation)
            try attempt("set the times of", path) { () throws(Errno) in
                try opened.fd.setTimes(access: before.accessTime, modification: before.modificationTime)
            }
        }
        opaque.insert(directory)
        try markOpaque(directory)
    }

    private func makeWhiteout(_ directory: [BytePath], _ name: BytePath) throws(LayerError) {
        try keepingTimes(of: directory) { (fd) throws(Errno) in
            do throws(Errno) {
                switch layer.whiteouts {
                case .overlayfs:
                    try fd.makeNode(name, mode: FileType.characterDevice.rawValue, major: 0, minor: 0)
                case .files:
                    try fd.open(
                        Whiteout.name(deleting: name), [.writeOnly, .create, .exclusive, .noFollow],
                        mode: 0o600
                    ).close()
                }
            } catch .fileExists {}
        }
        whiteouts.insert(directory + [name])
    }

    private func removeWhiteout(_ directory: [BytePath], _ name: BytePath) throws(LayerError) {
        try keepingTimes(of: directory) { (fd) throws(Errno) in try fd.unlink(name) }
        whiteouts.remove(name, in: directory)
    }

    private func markOpaque(_ path: [BytePath]) throws(LayerError) {
        switch layer.whiteouts {
        case .overlayfs:
            let directory = try open(path)
            try attempt("mark as opaque", path.last ?? .current) { () throws(Errno) in
                try directory.fd.setExtendedAttribute(
                    ExtendedAttribute(name: OverlayAttribute.opaque, value: [UInt8(ascii: "y")]))
            }
        case .files:
            try keepingTimes(of: path) { (fd) throws(Errno) in
                do throws(Errno) {
                    try fd.open(
                        Whiteout.opaqueName, [.writeOnly, .create, .exclusive, .noFollow], mode: 0o600
                    ).close()
                } catch .fileExists {}
            }
        }
    }

    func finishEntries() throws {
        try opaque.forEach { path in if try isDirectory(path) { try markOpaque(path) } }
    }

    /// A whiteout of nothing would show in the listing of a directory that only this layer has.
    func finishAboveLower() throws {
        guard layer.whiteouts == .overlayfs else { return }
        let made = whiteouts
        try made.forEach { path in
            guard let name = path.last, try status(path.dropLast(), name)?.isOverlayWhiteout == true,
                try tree().find(path) == nil
            else { return }
            layer.dependsOnLower = true
            try removeWhiteout(path.dropLast(), name)
        }
    }

    // MARK: Small things

    private func join(_ path: [BytePath]) -> BytePath { BytePath(joining: path) }

    /// A directory of the layer, by a path with no symbolic link in it.
    private func open(_ path: [BytePath]) throws(LayerError) -> SharedDescriptor {
        SharedDescriptor(try descriptor(path))
    }

    private func descriptor(_ path: [BytePath]) throws(LayerError) -> OwnedDescriptor {
        let whole = join(path)
        return try attempt("open the directory", whole) { () throws(Errno) in try openPath(whole) }
    }

    private func openPath(_ path: BytePath) throws(Errno) -> OwnedDescriptor {
        try root.open(path.isEmpty ? .current : path, [.directory], resolve: [.beneath, .noSymlinks])
    }

    private func isDirectory(_ path: [BytePath]) throws(LayerError) -> Bool {
        guard let name = path.last else { return true }
        return try status(Array(path.dropLast()), name)?.isDirectory == true
    }

    /// What the layer has under a name; nil too if the directory is not there.
    private func status(_ directory: [BytePath], _ name: BytePath) throws(LayerError) -> FileStatus? {
        try attempt("look at", join(directory + [name])) { () throws(Errno) in
            do throws(Errno) {
                let opened = try openPath(join(directory))
                return try opened.fd.statusIfPresent(of: name)
            } catch .noSuchFileOrDirectory {
                return nil
            } catch .notDirectory {
                // The applier says what is wrong with that.
                return nil
            }
        }
    }

    /// Changes the names in a directory without a trace in its times: they are the image's.
    private func keepingTimes(
        of path: [BytePath], _ body: (FileDescriptor) throws(Errno) -> Void
    ) throws(LayerError) {
        let directory: SharedDescriptor = try open(path)
        try attempt("write to the directory", join(path)) { () throws(Errno) in
            try directory.fd.keepingTimes { () throws(Errno) in try body(directory.fd) }
        }
    }
}

extension BytePath {
    /// Whether this is `path` or a path below it; both are free of `.` and `..`.
    fileprivate func isAt(orBelow path: BytePath) -> Bool {
        path.isEmpty
            || hasPrefix(path.bytes) && (count == path.count || bytes[path.count] == UInt8(ascii: "/"))
    }
}

extension FileDescriptor {
    /// Appends all of another file.
    fileprivate func copyContent(of source: FileDescriptor) throws(Errno) {
        let failure: Errno? = unsafe withUnsafeTemporaryAllocation(byteCount: 256 << 10, alignment: 4096) {
            buffer in
            do throws(Errno) {
                while true {
                    let count = unsafe try source.readFull(into: buffer)
                    if count == 0 { return nil }
                    unsafe try writeFull(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
                }
            } catch {
                return error
            }
        }
        if let failure { throw failure }
    }
}
