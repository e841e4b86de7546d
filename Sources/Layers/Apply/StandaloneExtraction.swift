import Archive
import Glibc
import SystemCalls
import SystemPackage

/// What has to be different where a layer goes into a directory of its own, with the layers below elsewhere.
///
/// Whatever an entry needs of the layers below (the directories on the way to it, a symbolic link there, the file that a
/// hard link leads to) is copied up into the layer's directory first, as overlayfs does when something is written. Then
/// the layer is applied as it would be on top of them. Deletions become whiteouts.
final class StandaloneExtraction {
    private let root: FileDescriptor
    private let layer: StandaloneLayer
    private let isBottom: Bool
    /// Gives the tree below; may wait until it is all there.
    private let lower: () throws -> LowerTree
    private var lowerTree: LowerTree?
    /// Directories that hide those of the same path below. An entry of theirs that comes later may take the mark away, so
    /// it is set again at the end.
    private var opaque: Set<BytePath> = []
    /// Whiteouts made, by directory and name.
    private var whiteouts: Set<BytePath> = []
    /// Where files of the layers below were copied up to.
    private var copies: [CopyKey: BytePath] = [:]

    private var lastWay: (path: BytePath, walked: [BytePath])?

    private struct CopyKey: Hashable {
        var layer: Int
        var inode: UInt64
    }

    init(
        resolver: TreeResolver, layer: StandaloneLayer, isBottom: Bool,
        lower: @escaping () throws -> LowerTree
    ) {
        root = resolver.root
        self.layer = layer
        self.isBottom = isBottom
        self.lower = lower
    }

    // MARK: Entries

    /// Makes the way for an entry that is about to be applied.
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
                opaque.insert(join(directory + [place.name]))
            }
        }
        if entry.kind == .hardLink { try prepareTarget(of: entry) }
        whiteouts.remove(join(directory + [place.name]))
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
                remedy: "unpack the image with another driver")
        }
    }

    private func prepareTarget(of entry: TarEntry) throws {
        let target = try EntryPath(entry.linkTarget)
        guard !target.name.isEmpty,
            let directory = try walk(target.directory, entry: entry.path, creates: false),
            try status(directory, target.name) == nil, try isSeenThrough(directory)
        else { return }
        let path = directory + [target.name]
        guard let found = try below(path), !found.status.isDirectory else { return }
        try copyUp(found, to: path, entry: entry.path)
    }

    // MARK: The way to an entry

    /// The same way as to the entry before need not be walked again, unless something on it may have been replaced.
    private func walkOnce(_ path: BytePath, entry: BytePath) throws -> [BytePath]? {
        if let lastWay, lastWay.path == path { return lastWay.walked }
        lastWay = nil
        guard let walked = try walk(path, entry: entry, creates: true) else { return nil }
        lastWay = (path, walked)
        return walked
    }

    /// Something was put at a path, or taken away.
    private func forgetWay(_ path: [BytePath]) {
        if let way = lastWay, way.walked.starts(with: path) || way.path.components.starts(with: path) {
            lastWay = nil
        }
    }

    /// Copies up what the layers below have on the way to a directory. Returns its path with no symbolic link in it; nil
    /// if it is not there, neither in the layer nor below, and `creates` is false. With `creates`, what is missing
    /// everywhere is left for the applier to make.
    private func walk(_ path: BytePath, entry: BytePath, creates: Bool) throws -> [BytePath]? {
        var pending = Array(path.components.reversed())
        var walked: [BytePath] = []
        var links = 0
        while let name = pending.popLast() {
            if name == "." { continue }
            if name == ".." {
                _ = walked.popLast()
                continue
            }
            var found = try status(walked, name)
            if layer.whiteouts == .overlayfs, let device = found, device.isOverlayWhiteout {
                guard creates else { return nil }
                // Deleted, and there again by way of what is to come: a new directory.
                try removeWhiteout(walked, name)
                opaque.insert(join(walked + [name]))
                return walked + [name] + pending.reversed()
            }
            if found == nil {
                if !isBottom, try isSeenThrough(walked), try !isDeleted(walked, name),
                    let below = try below(walked + [name])
                {
                    guard below.status.isDirectory || below.status.isSymbolicLink else {
                        if creates {
                            throw LayerError.invalidEntry(
                                path: entry, reason: "what should be its directory is not one")
                        }
                        return nil
                    }
                    try copyUp(below, to: walked + [name], entry: entry)
                    found = below.status
                }
            }
            guard let found else { return creates ? walked + [name] + pending.reversed() : nil }
            if found.isSymbolicLink {
                links += 1
                guard links <= 40 else { return nil }
                let target = try attempt("read the link", name) { [walked] () throws(Errno) in
                    let directory = try openPath(join(walked))
                    return try directory.fd.readSymbolicLink(name)
                }
                if target.isAbsolute { walked.removeAll() }
                pending.append(contentsOf: target.components.reversed())
            } else if found.isDirectory {
                walked.append(name)
            } else {
                return creates ? walked + [name] + pending.reversed() : nil
            }
        }
        return walked
    }

    /// For `--keep-dirlinks`: a link below in place of a directory entry.
    private func copyUpLink(_ directory: [BytePath], _ name: BytePath, entry: BytePath) throws -> Bool {
        guard !isBottom, try status(directory, name) == nil, try isSeenThrough(directory),
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
    private func isSeenThrough(_ path: [BytePath]) throws(LayerError) -> Bool {
        for count in 0...path.count where opaque.contains(join(Array(path.prefix(count)))) { return false }
        return true
    }

    private func isDeleted(_ directory: [BytePath], _ name: BytePath) throws(LayerError) -> Bool {
        guard layer.whiteouts == .files else { return false }
        return try status(directory, Whiteout.name(deleting: name)) != nil
    }

    // MARK: Copying up

    private func copyUp(_ found: LowerTree.Found, to path: [BytePath], entry: BytePath) throws {
        if found.status.isDirectory { return try copy(found, to: path) }
        guard found.status.linkCount > 1 else { return try copy(found, to: path) }
        // One file by all its names, or it would be two.
        let key = CopyKey(layer: found.layer, inode: found.status.inode)
        if let first = copies[key] {
            try link(first.components, path)
            return
        }
        copies[key] = join(path)
        try copy(found, to: path)
        for other in try tree().names(of: found) where other != path {
            guard let directory = try walk(join(Array(other.dropLast())), entry: entry, creates: false),
                directory == Array(other.dropLast()), let name = other.last,
                try status(directory, name) == nil,
                try isSeenThrough(directory), try !isDeleted(directory, name)
            else { continue }
            try link(path, other)
        }
    }

    private func link(_ from: [BytePath], _ to: [BytePath]) throws(LayerError) {
        guard let oldName = from.last, let newName = to.last else { return }
        let source = try open(Array(from.dropLast()))
        try keepingTimes(of: Array(to.dropLast())) { (directory) throws(Errno) in
            try source.fd.link(oldName, to: directory, newName)
        }
    }

    /// A file or an empty directory, with all that counts in an image.
    private func copy(_ found: LowerTree.Found, to path: [BytePath]) throws(LayerError) {
        guard let name = path.last else { return }
        let from = found.directory.fd
        let status = found.status
        try keepingTimes(of: Array(path.dropLast())) { (directory) throws(Errno) in
            switch status.type {
            case .directory: try directory.makeDirectory(name, mode: 0o700)
            case .symbolicLink:
                try directory.makeSymbolicLink(name, target: try from.readSymbolicLink(found.name))
            case .regular:
                let source = try from.openRegularFile(found.name, expecting: status)
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

    /// What lower layers have under `name` does not show. `written` says what this layer has put there: that stays.
    func delete(
        _ name: BytePath, in path: BytePath, entry: BytePath, written: (UInt64, BytePath) -> Bool
    ) throws {
        guard !isBottom, let directory = try walk(path, entry: entry, creates: false) else { return }
        lastWay = nil
        let whole = join(directory + [name])
        if let existing = try status(directory, name), !existing.isOverlayWhiteout {
            let opened = try open(directory)
            let inode = try attempt("look at", path) { () throws(Errno) in try opened.fd.status().inode }
            var stays = written(inode, name)
            if existing.isDirectory {
                let inside = try open(directory + [name])
                let kept = try TreeRemoval.removeContents(of: inside.fd, path: whole, keep: written)
                stays = stays || kept
                opaque = opaque.filter { $0 == whole || !$0.components.starts(with: directory + [name]) }
                whiteouts = whiteouts.filter { !$0.components.starts(with: directory + [name]) }
            }
            if !stays {
                opaque.remove(whole)
                try keepingTimes(of: directory) { (fd) throws(Errno) in
                    if existing.isDirectory { try fd.removeDirectory(name) } else { try fd.unlink(name) }
                }
                copies = copies.filter { $0.value != whole }
            } else if existing.isDirectory, layer.whiteouts == .overlayfs {
                opaque.insert(whole)
                return
            } else if layer.whiteouts == .overlayfs {
                // The layer's own file hides what is below it.
                return
            }
        }
        guard try isSeenThrough(directory) else { return }
        try makeWhiteout(directory, name)
    }

    /// Nothing that lower layers have in the directory shows.
    func deleteContents(of path: BytePath, entry: BytePath, written: (UInt64, BytePath) -> Bool) throws {
        guard !isBottom, let directory = try walk(path, entry: entry, creates: false) else { return }
        lastWay = nil
        let whole = join(directory)
        let opened = try open(directory)
        let before = try attempt("look at", path) { () throws(Errno) in try opened.fd.status() }
        _ = try TreeRemoval.removeContents(of: opened.fd, path: path, keep: written)
        try attempt("set the times of", path) { () throws(Errno) in
            try opened.fd.setTimes(access: before.accessTime, modification: before.modificationTime)
        }
        opaque = opaque.filter { !$0.components.starts(with: directory) }
        whiteouts = whiteouts.filter { !$0.components.starts(with: directory) }
        opaque.insert(whole)
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
        whiteouts.insert(join(directory + [name]))
    }

    private func removeWhiteout(_ directory: [BytePath], _ name: BytePath) throws(LayerError) {
        try keepingTimes(of: directory) { (fd) throws(Errno) in try fd.unlink(name) }
        whiteouts.remove(join(directory + [name]))
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

    /// When all entries are applied, and before directories get their times.
    func finishEntries() throws {
        for path in opaque.sorted() where try isDirectory(path.components) { try markOpaque(path.components) }
    }

    /// When the layers below are all there: a whiteout of nothing would show in the listing of a directory that only this
    /// layer has.
    func finish() throws {
        guard layer.whiteouts == .overlayfs else { return }
        for path in whiteouts.sorted() {
            let components = path.components
            guard let name = components.last, try tree().find(components) == nil else { continue }
            layer.dependsOnLower = true
            try removeWhiteout(Array(components.dropLast()), name)
        }
    }

    // MARK: Small things

    private func join(_ path: [BytePath]) -> BytePath { path.reduce(.empty) { $0.appending($1) } }

    /// A directory of the layer, by a path with no symbolic link in it.
    private func open(_ path: [BytePath]) throws(LayerError) -> SharedDescriptor {
        let whole = join(path)
        return SharedDescriptor(
            try attempt("open the directory", whole) { () throws(Errno) in try openPath(whole) })
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
            let before = try directory.fd.status()
            try body(directory.fd)
            try directory.fd.setTimes(access: before.accessTime, modification: before.modificationTime)
        }
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
