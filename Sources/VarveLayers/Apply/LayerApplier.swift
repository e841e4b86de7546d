package import VarveArchive
import Glibc
import VarveOCI
package import VarveSystem
package import SystemPackage

/// Choices that change what a layer's entries become.
public struct ApplyOptions: Sendable, Hashable {
    /// A directory entry over a symbolic link to a directory goes into that directory and keeps the link
    /// (umoci's `--keep-dirlinks`); otherwise the link is replaced.
    public var keepDirlinks: Bool
    /// The user and group that new files get.
    public var owners: OwnerMapping
    /// An extended attribute that Linux has no name space for, or that the file system does not take, is an error; otherwise it
    /// is left out.
    public var refusesOddAttributes: Bool

    /// How a layer is applied; each option is described at its property.
    public init(
        keepDirlinks: Bool = false, owners: OwnerMapping = OwnerMapping(), refusesOddAttributes: Bool = false
    ) {
        self.keepDirlinks = keepDirlinks
        self.owners = owners
        self.refusesOddAttributes = refusesOddAttributes
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
package final class LayerApplier {
    private let options: ApplyOptions
    private let directories: TreeDirectories
    private let target: any LayerTarget
    private let written: WrittenNames
    private let metadata: EntryMetadata
    private var namedACLs: NamedACLs
    /// Whether the layer has links of AUFS, which are made at the end of it no more.
    private var hasPlinks = false
    /// Takes the digest of each file that is written.
    private let digests: ContentDigests?
    private var startedFiller: FileFiller?

    private var root: FileDescriptor { directories.root }

    /// - Parameters:
    ///   - root: the root directory of the tree, open for reading.
    ///   - isBottom: nothing lies below this layer, so that its whiteouts have nothing to delete.
    ///   - digests: where the SHA-256 of each file's content is to go; nil to hash nothing.
    ///   - cancellation: ends what may take long between two entries: each deletion of a whiteout, and what is done behind the last entry.
    ///   - standalone: the layer goes into a directory of its own, and what it found out is noted there.
    ///   - lower: the tree that the layers below give then; called when it is needed, and may wait for it.
    package init(
        root: FileDescriptor, isBottom: Bool, options: ApplyOptions = ApplyOptions(),
        digests: ContentDigests? = nil, cancellation: Cancellation = Cancellation(),
        standalone: StandaloneLayer? = nil,
        lower: @escaping () throws -> LowerTree = { LowerTree([]) }
    ) {
        let metadata = EntryMetadata(
            options: options, uid: geteuid(), gid: getegid(), umask: currentUmask(), leftOut: LeftOut())
        let caller = (metadata.uid, metadata.gid)
        // A map without root is refused before the first entry.
        let owner = options.owners.isRootless ? caller : (try? options.owners.root()) ?? caller
        let directories = TreeDirectories(root: root, owner: owner, metadata, cancellation)
        self.digests = digests
        self.options = options
        written = WrittenNames(isBottom: isBottom)
        self.metadata = metadata
        self.directories = directories
        namedACLs = NamedACLs(directories.paths)
        target =
            if let standalone {
                StandaloneTarget(directories, layer: standalone, isBottom: isBottom, lower: lower)
            } else {
                CumulativeTarget(directories)
            }
        directories.didMake = { [unowned self] inode in namedACLs.forget(inode) }
    }

    /// Reads `archive` to its end and applies every entry. After an error the tree is half done and of no use.
    ///
    /// - Parameter onEntry: called before each entry; throws to stop.
    package func apply(_ archive: TarReader, onEntry: () throws -> Void = {}) throws {
        // Missing directories are made root's.
        _ = try options.owners.root()
        target.begin(archive)
        do {
            while let entry = try archive.nextEntry() {
                try onEntry()
                try apply(entry, from: archive)
            }
            try startedFiller?.finish()
            if hasPlinks {
                directories.forget()
                try TreeRemoval.remove(
                    Whiteout.plinkName, isDirectory: true, in: root, path: Whiteout.plinkName,
                    cancellation: directories.cancellation)
            }
            if !namedACLs.isEmpty {
                try namedACLs.apply(in: root, metadata, try accounts(), directories.cancellation)
            }
        } catch {
            startedFiller?.cancel()
            throw error
        }
        try target.finishEntries()
        try directories.restoreTimes()
    }

    /// What was left out of the tree, a sentence for each kind; complete once the layer is applied.
    package var omissions: [String] { metadata.leftOut.sentences }

    /// Who is in the image by now.
    private func accounts() throws -> AccountNames {
        func read(_ path: BytePath) throws -> [UInt8]? {
            try target.readFile(path, limit: RuntimeConfig.accountFileLimit)
        }
        return AccountNames(passwd: try read("etc/passwd"), group: try read("etc/group"))
    }

    /// The layers below a standalone one are all there: what could only be told from them is put right.
    package func finishAboveLower() throws { try target.finishAboveLower() }

    private func apply(_ stored: TarEntry, from archive: TarReader) throws {
        let place = try EntryPath(stored.path)
        let entry = try options.owners.unpacked(stored, caller: (metadata.uid, metadata.gid))
        if let whiteout = place.whiteoutAbove, !isPlink(place, entry) {
            // What is in AUFS's own directories is as much bookkeeping as they are.
            if Whiteout.isBookkeeping(whiteout) { return }
            throw LayerError.invalidEntry(path: entry.path, reason: "it lies below a whiteout")
        }
        switch try Whiteout.meaning(of: place.name, entry: entry.path) {
        case .ignored:
            return
        case .opaque:
            return try target.deleteContents(of: place.directory, entry: entry.path, keeping: written)
        case .deletes(let name):
            return try target.delete(name, in: place.directory, entry: entry.path, keeping: written)
        case .none:
            break
        }
        if place.directory == Whiteout.plinkName { try makePlinkDirectory(entry, from: archive) }
        try target.prepare(entry, place, keepDirlinks: options.keepDirlinks)
        if place.name.isEmpty {
            guard entry.kind == .directory else {
                throw LayerError.invalidEntry(path: entry.path, reason: "the root of an image is a directory")
            }
            let existing = try metadata.status(of: root, entry.path)
            try metadata.apply(entry, to: root, existing: existing)
            try namedACLs.set(
                metadata.namedACLs(of: entry), of: entry, inode: existing.inode, at: PathTable.root)
            directories.keepTimesOfRoot(entry, inode: existing.inode)
            // What it hands down may be another now.
            directories.forget()
            return
        }

        let directory = try directories.open(place.directory, entry: entry.path, from: archive)
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
            try metadata.apply(entry, to: place.name, in: directory.fd, inherits: directory.newFilesInherit)
        case .hardLink:
            try makeHardLink(entry, place, in: directory)
        case .characterDevice, .blockDevice, .fifo:
            let type: VarveSystem.FileType =
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
            try metadata.apply(entry, to: place.name, in: directory.fd, inherits: directory.newFilesInherit)
        }
        written.insert(place.name, in: directory.inode)
        switch entry.kind {
        // A directory may have been there, and have been given an ACL before.
        case .directory, .hardLink: break
        case .symbolicLink, .regular, .characterDevice, .blockDevice, .fifo:
            let acls = entry.kind == .symbolicLink ? [] : metadata.namedACLs(of: entry)
            if acls.isEmpty, namedACLs.isEmpty { break }
            let inode = try status(of: place.name, in: directory, place.path).inode
            try namedACLs.set(
                acls, of: entry, inode: inode, at: directories.paths.insert(place.name, in: directory.place))
        }
    }

    // MARK: AUFS

    /// A file that AUFS keeps under another name, because it has several: hard links of the layer lead to it.
    private func isPlink(_ place: EntryPath, _ entry: TarEntry) -> Bool {
        place.directory == Whiteout.plinkName && entry.kind != .directory
            && !place.name.hasPrefix(Whiteout.prefix)
    }

    /// Makes the directory of such files, which goes again when the layer is done. No image can have one of its name.
    private func makePlinkDirectory(_ entry: TarEntry, from archive: TarReader) throws {
        if hasPlinks { return }
        // So that its times come back.
        _ = try directories.open(.empty, entry: entry.path, from: archive)
        try archive.countUnlisted()
        do throws(Errno) {
            try root.makeDirectory(Whiteout.plinkName, mode: 0o700)
        } catch {
            throw metadata.failure("make the directory", Whiteout.plinkName, error)
        }
        hasPlinks = true
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
        guard let descriptor = made.take() else { return }
        let file = NewFile(
            entry, place.path, descriptor, mode: mode, inherits: directory.newFilesInherit,
            isHashed: digests != nil
        )
        if let filler = filler() {
            while let (offset, bytes) = unsafe try archive.nextContent() {
                unsafe try filler.write(bytes, at: offset, to: file)
            }
            return try filler.end(file)
        }
        while let (offset, bytes) = unsafe try archive.nextContent() {
            unsafe try file.write(bytes, at: offset)
        }
        try file.finish(metadata, digests: digests)
    }

    private func filler() -> FileFiller? {
        if target.isOneOfSeveral { return nil }
        if startedFiller == nil, sysconf(Int32(_SC_NPROCESSORS_ONLN)) > 1 {
            // Where no thread can be had, it goes without.
            startedFiller = try? FileFiller(metadata, digests: digests)
        }
        return startedFiller
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
            if existing.isSymbolicLink, options.keepDirlinks, let found = try directories.openBehindLink(path)
            {
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
            throw metadata.failure("make the directory", entry.path, error)
        }
        let made = try take(&target, orOpen: place, in: directory)
        let existing = try metadata.status(of: made.fd, path)
        var didInherit = false
        if isNew, !directory.newFilesInherit {
            try metadata.apply(entry, toNew: made.fd, existing: existing)
        } else {
            let attributes = try metadata.apply(entry, to: made.fd, existing: existing)
            didInherit =
                existing.permissions & 0o2000 != 0 || attributes.contains { $0 == PosixACL.defaultName }
        }
        let inode = existing.inode
        let hasDefaultACL = try metadata.attributes(of: entry).contains { $0.name == PosixACL.defaultName }
        let newFilesInherit = entry.mode & 0o2000 != 0 || hasDefaultACL
        // It may be known by another path too.
        if newFilesInherit || didInherit { directories.forget() }
        // What is no link lies where its name says.
        let way = try directories.keep(
            made, of: entry, path, inode: inode,
            place: isByLink ? nil : directories.paths.insert(place.name, in: directory.place),
            newFilesInherit: newFilesInherit)
        try namedACLs.set(metadata.namedACLs(of: entry), of: entry, inode: inode, at: way)
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
            let targetDirectory = try directories.find(targetPlace.directory, entry: entry.path),
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
        try namedACLs.add(place.name, in: directory.place, ofInode: targetStatus.inode, entry: entry)
        do throws(Errno) {
            try targetDirectory.fd.link(targetPlace.name, to: directory.fd, place.name)
        } catch .noSuchFileOrDirectory {
            throw missing
        } catch {
            throw metadata.failure("make the hard link", entry.path, error)
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
            throw metadata.failure("make", place.path, error)
        }
        do throws(Errno) { try body() } catch { throw metadata.failure("make", place.path, error) }
    }

    private func replace(_ place: EntryPath, _ existing: FileStatus, in directory: OpenDirectory)
        throws(LayerError)
    {
        if existing.isDirectory || existing.isSymbolicLink { directories.forget() }
        try TreeRemoval.remove(
            place.name, isDirectory: existing.isDirectory, in: directory.fd, path: place.path,
            cancellation: directories.cancellation)
    }

    // MARK: Small things

    private func status(
        of name: BytePath, in directory: OpenDirectory, _ path: BytePath
    ) throws(LayerError) -> FileStatus {
        try attempt("look at", path) { () throws(Errno) in try directory.fd.status(of: name) }
    }
}

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
