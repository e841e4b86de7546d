public import Archive
import Glibc
import SystemCalls
public import SystemPackage

/// Choices that change what a layer's entries become.
public struct ApplyOptions: Sendable, Hashable {
    /// A directory entry over a symbolic link to a directory goes into that directory and keeps the link
    /// (umoci's `--keep-dirlinks`); otherwise the link is replaced.
    public var keepDirlinks: Bool
    /// Whose files become.
    public var owners: OwnerMapping

    public init(keepDirlinks: Bool = false, owners: OwnerMapping = OwnerMapping()) {
        self.keepDirlinks = keepDirlinks
        self.owners = owners
    }
}

/// Applies one layer to a tree: OCI image-spec layer.md, "Applying Changesets".
///
/// Regular files become what GNU tar run by root makes of them with `--xattrs --acls --numeric-owner`. The order for
/// each file is: content, owner, mode, extended attributes, times; writing after the attributes would drop file
/// capabilities, changing the owner after the mode would drop set-ID bits. Directories get their times when the layer
/// is done, and a directory that the layer only put something into keeps the times that it had.
///
/// Nothing outside the root is ever touched: see `TreeResolver`. One applier serves one layer.
public final class LayerApplier {
    private let resolver: TreeResolver
    private let options: ApplyOptions
    private var cache = DirectoryCache()
    private var written: WrittenNames
    private var pendingTimes = PendingTimes()
    private let umask: UInt32
    private let uid: UInt32
    private let gid: UInt32
    /// Of a layer that goes into a directory of its own.
    private let standalone: StandaloneExtraction?
    /// Takes the digest of each file that is written.
    private let digests: ContentDigests?

    private var root: FileDescriptor { resolver.root }

    /// - Parameters:
    ///   - root: the root directory of the tree, open for reading.
    ///   - isBottom: nothing lies below this layer, so that its whiteouts have nothing to delete.
    ///   - digests: where the SHA-256 of each file's content is to go; nil to hash nothing.
    ///   - standalone: the layer goes into a directory of its own, and what it found out is noted there.
    ///   - lower: the tree that the layers below give then; called when it is needed, and may wait for it.
    public init(
        root: FileDescriptor, isBottom: Bool, options: ApplyOptions = ApplyOptions(),
        digests: ContentDigests? = nil, standalone: StandaloneLayer? = nil,
        lower: @escaping () throws -> LowerTree = { LowerTree([]) }
    ) {
        uid = geteuid()
        gid = getegid()
        // A map without root is refused before the first entry.
        let owner = options.owners.isRootless ? (uid, gid) : (try? options.owners.root()) ?? (uid, gid)
        resolver = TreeResolver(root: root, owner: owner)
        self.digests = digests
        self.options = options
        written = WrittenNames(isBottom: isBottom)
        umask = currentUmask()
        self.standalone = standalone.map { [resolver] layer in
            StandaloneExtraction(resolver: resolver, layer: layer, isBottom: isBottom, lower: lower)
        }
    }

    /// Reads `archive` to its end and applies every entry. After an error the tree is half done and of no use.
    ///
    /// - Parameter onEntry: called before each entry; throws to stop.
    public func apply(_ archive: TarReader, onEntry: () throws -> Void = {}) throws {
        // Missing directories are made root's.
        _ = try options.owners.root()
        while let entry = try archive.nextEntry() {
            try onEntry()
            try apply(entry, from: archive)
        }
        try standalone?.finishEntries()
        try pendingTimes.restore(in: root)
    }

    /// The layers below a standalone one are all there: what could only be told from them is put right.
    public func finishAboveLower() throws { try standalone?.finish() }

    private func apply(_ stored: TarEntry, from archive: TarReader) throws {
        let place = try EntryPath(stored.path)
        let entry = try options.owners.unpacked(stored, caller: (uid, gid))
        for component in place.directory.components where component.hasPrefix(Whiteout.prefix) {
            // What is in AUFS's own directories is as much bookkeeping as they are.
            if Whiteout.isBookkeeping(component) { return }
            throw LayerError.invalidEntry(path: entry.path, reason: "it lies below a whiteout")
        }
        switch try Whiteout.meaning(of: place.name, entry: entry.path) {
        case .ignored:
            return
        case .opaque:
            if let standalone {
                cache.removeAll()
                return try standalone.deleteContents(of: place.directory, entry: entry.path) { [written] in
                    written.contains($1, in: $0)
                }
            }
            return try deleteContents(of: place.directory, entry: entry.path)
        case .deletes(let name):
            if let standalone {
                cache.removeAll()
                return try standalone.delete(name, in: place.directory, entry: entry.path) { [written] in
                    written.contains($1, in: $0)
                }
            }
            return try delete(name, in: place.directory, entry: entry.path)
        case .none:
            break
        }
        try standalone?.prepare(entry, place, keepDirlinks: options.keepDirlinks)
        if place.name.isEmpty {
            guard entry.kind == .directory else {
                throw LayerError.invalidEntry(path: entry.path, reason: "the root of an image is a directory")
            }
            let existing = try status(of: root, entry.path)
            try applyMetadata(entry, to: root, existing: existing)
            pendingTimes.set(entry, path: .empty, inode: existing.inode)
            // What it hands down may be another now.
            cache.removeAll()
            return
        }

        let directory = try openDirectory(place.directory, entry: entry.path)
        switch entry.kind {
        case .regular:
            try makeRegularFile(entry, place, in: directory, from: archive)
        case .directory:
            try makeDirectory(entry, place, in: directory)
        case .symbolicLink:
            let target = entry.linkTarget
            guard !target.isEmpty else {
                throw LayerError.invalidEntry(path: entry.path, reason: "a symbolic link with no target")
            }
            try make(place, in: directory) { () throws(Errno) in
                try directory.fd.makeSymbolicLink(place.name, target: target)
            }
            try applyMetadata(entry, place, in: directory)
        case .hardLink:
            try makeHardLink(entry, place, in: directory)
        case .characterDevice, .blockDevice, .fifo:
            let type: SystemCalls.FileType =
                switch entry.kind {
                case .characterDevice: .characterDevice
                case .blockDevice: .blockDevice
                default: .fifo
                }
            try make(place, in: directory) { () throws(Errno) in
                try directory.fd.makeNode(
                    place.name, mode: type.rawValue | entry.mode, major: entry.deviceMajor,
                    minor: entry.deviceMinor)
            }
            try applyMetadata(entry, place, in: directory)
        }
        written.insert(place.name, in: directory.inode)
    }

    // MARK: Kinds of entries

    private func makeRegularFile(
        _ entry: TarEntry, _ place: EntryPath, in directory: OpenDirectory, from archive: TarReader
    ) throws {
        // Made without set-ID bits: until it has its owner, a file must not run as somebody. Without privileges, an
        // attribute of users can only be set on what may be written.
        let mode = entry.mode & 0o777 | (options.owners.isRootless ? 0o600 : 0)
        var made: OwnedDescriptor?
        try make(place, in: directory) { () throws(Errno) in
            made = try directory.fd.open(
                place.name, [.writeOnly, .create, .exclusive, .noFollow], mode: mode)
        }
        guard let file = made.take() else { return }
        let path = place.path
        var end: Int64 = 0
        var content = digests.map { _ in WrittenContent() }
        while let (offset, bytes) = unsafe try archive.nextContent() {
            unsafe content?.add(bytes, at: offset)
            try attempt("write", path) { () throws(Errno) in unsafe try file.fd.writeFull(bytes, at: offset) }
            end = offset + Int64(bytes.count)
        }
        // A sparse file may end in a hole.
        if end < entry.size {
            do throws(Errno) {
                try file.fd.setSize(entry.size)
            } catch {
                throw failure("set the size of", path, error)
            }
        }
        if directory.handsDown {
            try applyMetadata(entry, to: file.fd, existing: try status(of: file.fd, path))
        } else {
            try attempt("set the owner of", path) { () throws(Errno) in
                if entry.uid != uid || entry.gid != gid {
                    try file.fd.changeOwner(uid: entry.uid, gid: entry.gid)
                }
            }
            let attributes = try attributes(of: entry)
            for attribute in attributes where comesFirst(attribute) { try set(attribute, on: file.fd, path) }
            if entry.mode != mode & ~umask {
                try attempt("set the mode of", path) { () throws(Errno) in
                    try file.fd.changeMode(to: entry.mode)
                }
            }
            for attribute in attributes where !comesFirst(attribute) { try set(attribute, on: file.fd, path) }
        }
        try attempt("set the times of", path) { () throws(Errno) in
            try file.fd.setTimes(
                access: entry.accessTime ?? entry.modificationTime, modification: entry.modificationTime)
        }
        if let digests, let digest = content?.finish(size: entry.size) {
            digests.insert(digest, of: try status(of: file.fd, path))
        }
        do throws(Errno) { try file.close() } catch { throw failure("write", path, error) }
    }

    private func makeDirectory(_ entry: TarEntry, _ place: EntryPath, in directory: OpenDirectory) throws {
        let path = place.path
        // As for a file.
        let mode = entry.mode & 0o777 | (options.owners.isRootless ? 0o700 : 0)
        var target: OwnedDescriptor?
        var isByLink = false
        var isNew = true
        do throws(Errno) {
            try directory.fd.makeDirectory(place.name, mode: mode)
        } catch .fileExists {
            let existing = try status(of: place.name, in: directory, path)
            if existing.isSymbolicLink, options.keepDirlinks, let found = try resolver.openIfDirectory(path) {
                target = .some(found)
                isByLink = true
                isNew = false
            } else if !existing.isDirectory || removeSubvolumeStub(place.name, existing, in: directory) {
                if !existing.isDirectory { try replace(place, existing, in: directory) }
                try attempt("make the directory", path) { () throws(Errno) in
                    try directory.fd.makeDirectory(place.name, mode: mode)
                }
            } else {
                isNew = false
            }
        } catch {
            throw failure("make the directory", entry.path, error)
        }
        let made = try take(&target, orOpen: place, in: directory)
        let existing = try status(of: made.fd, path)
        var handedDown = false
        if isNew, !directory.handsDown {
            try applyMetadata(entry, toNew: made.fd, existing: existing)
        } else {
            let attributes = try applyMetadata(entry, to: made.fd, existing: existing)
            handedDown =
                existing.permissions & 0o2000 != 0 || attributes.contains { $0 == PosixACL.defaultName }
        }
        let hasDefaultACL = try attributes(of: entry).contains { $0.name == PosixACL.defaultName }
        let handsDown = entry.mode & 0o2000 != 0 || hasDefaultACL
        // It may be known by another path too.
        if handsDown || handedDown { cache.removeAll() }
        // What is no link lies where its name says.
        let way =
            isByLink
            ? try resolver.truePath(of: made.fd, at: path) : directory.truePath.appending(place.name)
        pendingTimes.set(entry, path: way, inode: existing.inode)
        // Its files come next in every archive that was ever made: keep it open, as it is now.
        cache.insert(
            OpenDirectory(made, inode: existing.inode, truePath: way, handsDown: handsDown), path)
    }

    private func take(_ opened: inout OwnedDescriptor?, orOpen place: EntryPath, in directory: OpenDirectory)
        throws -> OwnedDescriptor
    {
        if let opened = opened.take() { return opened }
        return try attempt("open the directory", place.path) { () throws(Errno) in
            try directory.fd.openDirectory(place.name)
        }
    }

    /// A snapshot has an empty directory with inode number 2 where its source had a nested subvolume
    /// (BTRFS_EMPTY_SUBVOL_DIR_OBJECTID); it takes no files, and is no directory of the image. Says whether it was one.
    private func removeSubvolumeStub(_ name: BytePath, _ existing: FileStatus, in directory: OpenDirectory)
        -> Bool
    {
        guard existing.inode == 2 else { return false }
        // An ordinary directory with that number, on another file system, is made anew: it is empty, or stays.
        return (try? directory.fd.removeDirectory(name)) != nil
    }

    private func makeHardLink(_ entry: TarEntry, _ place: EntryPath, in directory: OpenDirectory) throws {
        let target = entry.linkTarget
        guard !target.isEmpty else {
            throw LayerError.invalidEntry(path: entry.path, reason: "a hard link with no target")
        }
        let targetPlace = try EntryPath(target)
        let missing = LayerError.invalidEntry(
            path: entry.path, reason: "it is a hard link to \"\(target)\", which is not in the image")
        guard !targetPlace.name.isEmpty,
            let targetDirectory = try findDirectory(targetPlace.directory, entry: entry.path),
            let targetStatus = try attempt(
                "look at", target,
                { () throws(Errno) in
                    try targetDirectory.fd.statusIfPresent(of: targetPlace.name)
                })
        else { throw missing }
        if targetStatus.isDirectory {
            throw LayerError.invalidEntry(path: entry.path, reason: "it is a hard link to a directory")
        }
        let existing = try attempt("look at", place.path) { () throws(Errno) in
            try directory.fd.statusIfPresent(of: place.name)
        }
        if let existing {
            // Already that file, perhaps by this very name: taking it away first could lose the last name of it.
            if existing.inode == targetStatus.inode { return }
            try replace(place, existing, in: directory)
        }
        do throws(Errno) {
            try targetDirectory.fd.link(targetPlace.name, to: directory.fd, place.name)
        } catch .noSuchFileOrDirectory {
            throw missing
        } catch {
            throw failure("make the hard link", entry.path, error)
        }
    }

    /// Makes something at `place`, after taking away what is there.
    private func make(
        _ place: EntryPath, in directory: OpenDirectory, _ body: () throws(Errno) -> Void
    ) throws {
        do throws(Errno) {
            return try body()
        } catch .fileExists {
            try replace(place, try status(of: place.name, in: directory, place.path), in: directory)
        } catch {
            throw failure("make", place.path, error)
        }
        do throws(Errno) { try body() } catch { throw failure("make", place.path, error) }
    }

    private func replace(_ place: EntryPath, _ existing: FileStatus, in directory: OpenDirectory)
        throws(LayerError)
    {
        if existing.isDirectory || existing.isSymbolicLink { cache.removeAll() }
        try TreeRemoval.remove(
            place.name, isDirectory: existing.isDirectory, in: directory.fd, path: place.path)
    }

    // MARK: Whiteouts

    private func delete(_ name: BytePath, in path: BytePath, entry: BytePath) throws {
        guard let directory = try findDirectoryToEmpty(path, entry: entry) else { return }
        let fullPath = path.appending(name)
        let existing = try attempt("look at", fullPath) { () throws(Errno) in
            try directory.fd.statusIfPresent(of: name)
        }
        guard let existing else { return }
        if existing.isDirectory {
            cache.removeAll()
            let opened = try attempt("open the directory", fullPath) { () throws(Errno) in
                try directory.fd.openDirectory(name)
            }
            let written = written
            let kept = try TreeRemoval.removeContents(of: opened.fd, path: fullPath) {
                written.contains($1, in: $0)
            }
            if kept || written.contains(name, in: directory.inode) { return }
            try attempt("remove the directory", fullPath) { () throws(Errno) in
                try directory.fd.removeDirectory(name)
            }
        } else if !written.contains(name, in: directory.inode) {
            if existing.isSymbolicLink { cache.removeAll() }
            try attempt("remove", fullPath) { () throws(Errno) in try directory.fd.unlink(name) }
        }
    }

    private func deleteContents(of path: BytePath, entry: BytePath) throws {
        guard let directory = try findDirectoryToEmpty(path, entry: entry) else { return }
        cache.removeAll()
        let written = written
        _ = try TreeRemoval.removeContents(of: directory.fd, path: path) { written.contains($1, in: $0) }
    }

    // MARK: Directories

    /// The directory at `path`, made if it is missing.
    private func openDirectory(_ path: BytePath, entry: BytePath) throws -> OpenDirectory {
        if let found = cache.find(path) { return found }
        return try register(try resolver.openCreating(path, entry: entry), path)
    }

    /// The directory at `path`; nil if there is none.
    private func findDirectory(_ path: BytePath, entry: BytePath) throws -> OpenDirectory? {
        if let found = cache.find(path) { return found }
        guard let found = try resolver.open(path, entry: entry) else { return nil }
        return try register(found, path)
    }

    /// The same for whiteouts; nil too where a file is in its place, from which there is nothing to delete: the layer
    /// may have put it there, or is yet to replace it.
    private func findDirectoryToEmpty(_ path: BytePath, entry: BytePath) throws -> OpenDirectory? {
        if let found = cache.find(path) { return found }
        guard let found = try resolver.open(path, entry: entry, orNoDirectory: true) else { return nil }
        return try register(found, path)
    }

    private func register(_ descriptor: consuming OwnedDescriptor, _ path: BytePath) throws -> OpenDirectory {
        let directory = try openDirectory(descriptor, path: path)
        cache.insert(directory, path)
        return directory
    }

    private func openDirectory(_ descriptor: consuming OwnedDescriptor, path: BytePath) throws
        -> OpenDirectory
    {
        let now = try status(of: descriptor.fd, path)
        let truePath = try resolver.truePath(of: descriptor.fd, at: path)
        pendingTimes.keep(now, path: truePath)
        let hasDefaultACL = try attempt("read the attributes of", path) { () throws(Errno) in
            do throws(Errno) {
                return try descriptor.fd.extendedAttribute(PosixACL.defaultName) != nil
            } catch .notSupported {
                return false
            }
        }
        return OpenDirectory(
            descriptor, inode: now.inode, truePath: truePath,
            handsDown: hasDefaultACL || now.mode & 0o2000 != 0)
    }

    // MARK: Metadata

    /// Owner, mode and attributes of a directory that was made just now in one that hands nothing down: it has no
    /// attributes, the process's ids and the mode asked for, so that nothing need be looked up or taken away.
    private func applyMetadata(_ entry: TarEntry, toNew fd: FileDescriptor, existing: FileStatus) throws {
        let path = entry.path
        if existing.uid != entry.uid || existing.gid != entry.gid {
            try attempt("set the owner of", path) { () throws(Errno) in
                try fd.changeOwner(uid: entry.uid, gid: entry.gid)
            }
        }
        let wanted = try attributes(of: entry)
        for attribute in wanted where comesFirst(attribute) { try set(attribute, on: fd, path) }
        if existing.permissions != entry.mode {
            try attempt("set the mode of", path) { () throws(Errno) in try fd.changeMode(to: entry.mode) }
        }
        for attribute in wanted where !comesFirst(attribute) { try set(attribute, on: fd, path) }
    }

    /// Owner, mode and attributes of an open file or directory that may have others than the entry's. Returns the names
    /// of the attributes that it had.
    @discardableResult
    private func applyMetadata(_ entry: TarEntry, to fd: FileDescriptor, existing: FileStatus) throws
        -> [BytePath]
    {
        let path = entry.path
        if existing.uid != entry.uid || existing.gid != entry.gid {
            try attempt("set the owner of", path) { () throws(Errno) in
                try fd.changeOwner(uid: entry.uid, gid: entry.gid)
            }
        }
        let wanted = try attributes(of: entry)
        let names = try attempt("read the attributes of", path) { () throws(Errno) in
            do throws(Errno) { return try fd.extendedAttributeNames() } catch .notSupported { return [] }
        }
        for name in names where belongsToImage(name) && !wanted.contains(where: { $0.name == name }) {
            try attempt("remove the attribute \(name) of", path) { () throws(Errno) in
                do throws(Errno) {
                    try fd.removeExtendedAttribute(name)
                } catch .notPermitted where options.owners.isRootless {
                    // One that the kernel gave it, and that only root may take away.
                }
            }
        }
        for attribute in wanted where comesFirst(attribute) { try set(attribute, on: fd, path) }
        // The owner's change may have taken set-ID bits, an ACL's removal may have changed the group's bits.
        try attempt("set the mode of", path) { () throws(Errno) in try fd.changeMode(to: entry.mode) }
        for attribute in wanted where !comesFirst(attribute) { try set(attribute, on: fd, path) }
        return names
    }

    /// Owner, mode, attributes and times of something that is never opened: link, device, FIFO.
    private func applyMetadata(_ entry: TarEntry, _ place: EntryPath, in directory: OpenDirectory) throws {
        let path = entry.path
        let fd = directory.fd
        let name = place.name
        if entry.uid != uid || entry.gid != gid || directory.handsDown {
            try attempt("set the owner of", path) { () throws(Errno) in
                try fd.changeOwner(of: name, uid: entry.uid, gid: entry.gid)
            }
        }
        let isLink = entry.kind == .symbolicLink
        if !isLink {
            if directory.handsDown {
                for inherited in [PosixACL.accessName] {
                    try attempt("remove the attribute \(inherited) of", path) { () throws(Errno) in
                        do throws(Errno) {
                            try fd.removeExtendedAttribute(inherited, of: name)
                        } catch .noData {
                        } catch .notSupported {
                        }
                    }
                }
            }
            try attempt("set the mode of", path) { () throws(Errno) in
                try fd.changeMode(of: name, to: entry.mode)
            }
        }
        for attribute in try attributes(of: entry) {
            do throws(Errno) {
                try fd.setExtendedAttribute(attribute, of: name)
            } catch  where isLeftOut(attribute, error) {
                continue
            } catch {
                throw failure(attribute, entry.path, error)
            }
        }
        try attempt("set the times of", path) { () throws(Errno) in
            try fd.setTimes(
                of: name, access: entry.accessTime ?? entry.modificationTime,
                modification: entry.modificationTime)
        }
    }

    /// The attributes that the entry is to have; ACLs that it holds as text are among them.
    private func attributes(of entry: TarEntry) throws(LayerError) -> [ExtendedAttribute] {
        if entry.extendedAttributes.isEmpty && entry.accessACL == nil && entry.defaultACL == nil { return [] }
        var result = entry.extendedAttributes.filter { belongsToImage($0.name) }
        for (text, name) in [
            (entry.accessACL, PosixACL.accessName), (entry.defaultACL, PosixACL.defaultName),
        ] {
            guard let text, !text.isEmpty, !result.contains(where: { $0.name == name }) else { continue }
            guard let value = PosixACL.value(of: text) else {
                throw .invalidEntry(
                    path: entry.path, reason: "its ACL cannot be understood, or names users without numbers")
            }
            result.append(ExtendedAttribute(name: name, value: value))
        }
        if options.owners.isIdentity { return result }
        var mapped: [ExtendedAttribute] = []
        for attribute in result {
            guard PosixACL.isACL(attribute.name) else {
                mapped.append(attribute)
                continue
            }
            guard let value = try options.owners.unpackedACL(attribute.value, path: entry.path) else {
                continue
            }
            mapped.append(ExtendedAttribute(name: attribute.name, value: value))
        }
        return mapped
    }

    private func set(_ attribute: ExtendedAttribute, on fd: FileDescriptor, _ path: BytePath)
        throws(LayerError)
    {
        do throws(Errno) {
            try fd.setExtendedAttribute(attribute)
        } catch  where isLeftOut(attribute, error) {
        } catch {
            throw failure(attribute, path, error)
        }
    }

    /// Without privileges, attributes of users are set while the file may still be written.
    private func comesFirst(_ attribute: ExtendedAttribute) -> Bool {
        options.owners.isRootless && attribute.name.hasPrefix(Array("user.".utf8))
    }

    /// A rootless tree does without what only root may set: capabilities, attributes for administrators, and the owner
    /// of what can have no attribute of users (a link, a FIFO). umoci does the same.
    private func isLeftOut(_ attribute: ExtendedAttribute, _ errno: Errno) -> Bool {
        guard options.owners.isRootless else { return false }
        // In a user name space, a capability would be bound to its root, which this one does not have (capabilities(7)).
        return errno == .notPermitted || errno == .invalidArgument && attribute.name == "security.capability"
    }

    // MARK: Small things

    private func status(of fd: FileDescriptor, _ path: BytePath) throws(LayerError) -> FileStatus {
        try attempt("look at", path) { () throws(Errno) in try fd.status() }
    }

    private func status(
        of name: BytePath, in directory: OpenDirectory, _ path: BytePath
    ) throws(LayerError) -> FileStatus {
        try attempt("look at", path) { () throws(Errno) in try directory.fd.status(of: name) }
    }

    /// Tells what the archive asked for from what the system could not do.
    private func failure(_ operation: String, _ path: BytePath, _ errno: Errno) -> LayerError {
        switch errno {
        case .fileNameTooLong: .invalidEntry(path: path, reason: "its name or its target is too long")
        case .tooManyLinks: .invalidEntry(path: path, reason: "the file has too many hard links")
        case .fileTooLarge: .invalidEntry(path: path, reason: "the file is larger than any can be here")
        case .invalidArgument: .invalidEntry(path: path, reason: "the file system cannot hold such an entry")
        default: .system(operation: operation, path: path, errno: errno)
        }
    }

    private func failure(_ attribute: ExtendedAttribute, _ path: BytePath, _ errno: Errno) -> LayerError {
        // A name may have megabytes; it does not decide how long a message is.
        let name =
            attribute.name.count <= 255
            ? "\(attribute.name)" : BytePath.escape(attribute.name.bytes.prefix(80)) + "..."
        return switch errno {
        case .notSupported, .invalidArgument, .outOfRange, .argListTooLong, .fileNameTooLong,
            // Only files and directories can have attributes of users, only directories a default ACL (xattr(7)).
            .notPermitted where uid == 0 && attribute.name.hasPrefix(Array("user.".utf8)),
            .permissionDenied where attribute.name == PosixACL.defaultName:
            .invalidEntry(
                path: path,
                reason:
                    "its extended attribute \"\(name)\" is not one that a file can have (\(errno))")
        case .noSpace where attribute.value.count > 3_800:
            // btrfs keeps an attribute in one leaf of 16 KiB and says ENOSPC to a larger one.
            .invalidEntry(
                path: path,
                reason:
                    "its extended attribute \"\(name)\" is larger than this file system can hold")
        default:
            .system(operation: "set the attribute \(name) of", path: path, errno: errno)
        }
    }
}

/// `btrfs.*` are properties of this file system (compression, …), not of an image.
func belongsToImage(_ attribute: BytePath) -> Bool { !attribute.hasPrefix(Array("btrfs.".utf8)) }

/// The umask of this thread, which may have one of its own (unshare(2), CLONE_FS), read without changing it
/// (proc_pid_status(5)); 0o077, which is always safe, where /proc does not say: a mode is then set explicitly once too
/// often.
private func currentUmask() -> UInt32 {
    guard
        let bytes = try? FileDescriptor.workingDirectory.readFile("/proc/thread-self/status", limit: 1 << 16)
    else {
        return 0o077
    }
    for line in bytes.split(separator: UInt8(ascii: "\n")) where line.starts(with: Array("Umask:".utf8)) {
        let digits = line.dropFirst(6).filter { $0 != UInt8(ascii: "\t") && $0 != UInt8(ascii: " ") }
        return UInt32(String(decoding: digits, as: UTF8.self), radix: 8) ?? 0o077
    }
    return 0o077
}
