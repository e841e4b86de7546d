import VarveArchive
import VarveBtrfs
import VarveSystem
import SystemPackage

/// Gives files the owner, mode, attributes and times of their entries; any thread may use it.
struct EntryMetadata: Sendable {
    let options: ApplyOptions
    /// Of this process: what it makes has them from the start.
    let uid: UInt32
    let gid: UInt32
    let umask: UInt32
    /// What is not set because it cannot be.
    let leftOut: LeftOut

    /// Owner, mode and attributes of a directory that was made just now in one that hands nothing down: it has no
    /// attributes, the process's ids and the mode asked for, so that nothing need be looked up or taken away.
    func apply(_ entry: TarEntry, toNew fd: FileDescriptor, existing: FileStatus) throws {
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
    func apply(_ entry: TarEntry, to fd: FileDescriptor, existing: FileStatus) throws
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
        let wantedNames = Set(wanted.map(\.name))
        for name in names where belongsToImage(name) && !wantedNames.contains(name) {
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
    func apply(_ entry: TarEntry, to name: BytePath, in fd: FileDescriptor, inherits: Bool) throws {
        let path = entry.path
        if entry.uid != uid || entry.gid != gid || inherits {
            try attempt("set the owner of", path) { () throws(Errno) in
                try fd.changeOwner(of: name, uid: entry.uid, gid: entry.gid)
            }
        }
        let isLink = entry.kind == .symbolicLink
        if !isLink {
            if inherits {
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
            try set(attribute, of: name, in: fd, path)
        }
        try attempt("set the times of", path) { () throws(Errno) in
            try fd.setTimes(
                of: name, access: entry.accessTime ?? entry.modificationTime,
                modification: entry.modificationTime)
        }
    }

    /// The attributes that the entry is to have; ACLs that it holds as text are among them.
    func attributes(of entry: TarEntry) throws(LayerError) -> [ExtendedAttribute] {
        if entry.extendedAttributes.isEmpty && entry.accessACL == nil && entry.defaultACL == nil { return [] }
        var result = entry.extendedAttributes.filter { belongsToImage($0.name) }
        for (text, name) in [
            (entry.accessACL, PosixACL.accessName), (entry.defaultACL, PosixACL.defaultName),
        ] {
            guard let text, !text.isEmpty, !result.contains(where: { $0.name == name }) else { continue }
            guard let acl = PosixACL.parse(text) else {
                throw .invalidEntry(path: entry.path, reason: "its ACL cannot be understood")
            }
            // Those are set when the layer is done, and the image's users are known.
            if acl.needsNames { continue }
            result.append(ExtendedAttribute(name: name, value: acl.value().bytes))
        }
        return try mapped(result, entry.path)
    }

    /// The ACLs of an entry that name users or groups without their numbers.
    func namedACLs(of entry: TarEntry) -> [(name: BytePath, text: [UInt8])] {
        if entry.accessACL == nil && entry.defaultACL == nil || options.owners.isRootless { return [] }
        return [(entry.accessACL, PosixACL.accessName), (entry.defaultACL, PosixACL.defaultName)].compactMap {
            (text, name) in
            guard let text, !entry.extendedAttributes.contains(where: { $0.name == name }),
                PosixACL.parse(text)?.needsNames == true
            else { return nil }
            return (name, text)
        }
    }

    /// Attributes of an image with the ids of this tree.
    func mapped(_ result: [ExtendedAttribute], _ path: BytePath) throws(LayerError) -> [ExtendedAttribute] {
        if options.owners.isIdentity { return result }
        var mapped: [ExtendedAttribute] = []
        for attribute in result {
            guard PosixACL.isACL(attribute.name) else {
                mapped.append(attribute)
                continue
            }
            guard let value = try options.owners.unpackedACL(attribute.value, path: path) else {
                continue
            }
            mapped.append(ExtendedAttribute(name: attribute.name, value: value))
        }
        return mapped
    }

    func set(_ attribute: ExtendedAttribute, on fd: FileDescriptor, _ path: BytePath) throws(LayerError) {
        do throws(Errno) {
            try fd.setExtendedAttribute(attribute)
        } catch  where isLeftOut(attribute, error) {
        } catch {
            try refused(attribute, path, error, on: fd)
        }
    }

    /// The same for what is not open.
    func set(
        _ attribute: ExtendedAttribute, of name: BytePath, in directory: FileDescriptor, _ path: BytePath
    ) throws(LayerError) {
        do throws(Errno) {
            try directory.setExtendedAttribute(attribute, of: name)
        } catch  where isLeftOut(attribute, error) {
        } catch {
            try refused(attribute, path, error, on: directory)
        }
    }

    private func refused(
        _ attribute: ExtendedAttribute, _ path: BytePath, _ errno: Errno, on fd: FileDescriptor
    ) throws(LayerError) {
        let cannotBe: Bool
        switch errno {
        case .notSupported, .outOfRange, .argListTooLong, .fileNameTooLong: cannotBe = true
        // Without an ACL that is none, more may be allowed than its maker meant.
        case .invalidArgument where PosixACL.isACL(attribute.name):
            throw .invalidEntry(path: path, reason: "its ACL cannot be one")
        case .invalidArgument: cannotBe = true
        // Only files and directories can have attributes of users, only directories a default ACL (xattr(7)).
        case .notPermitted: cannotBe = uid == 0 && attribute.name.hasPrefix(Array("user.".utf8))
        case .permissionDenied: cannotBe = attribute.name == PosixACL.defaultName
        // Said of a full file system too.
        case .noSpace:
            cannotBe =
                attribute.name.count + attribute.value.count > fd.largestAttribute
                || fd.hasFewRoomForAttributes
        default: cannotBe = false
        }
        guard cannotBe else {
            throw .system(
                operation: "set the attribute \(shownName(attribute.name)) of", path: path, errno: errno)
        }
        // Without its ACL, a file's group would get what the mask allows.
        if PosixACL.isACL(attribute.name), errno != .notSupported, errno != .permissionDenied {
            throw .invalidEntry(
                path: path,
                reason: errno == .noSpace
                    ? "its ACL does not fit on this file system, and without it more would be allowed"
                    : "its ACL cannot be set here (\(errno)), and without it more would be allowed")
        }
        try leaveOut(
            attribute.name, of: path,
            errno == .noSpace ? "the attributes of the file do not fit on this file system" : "\(errno)")
    }

    private func leaveOut(_ name: BytePath, of path: BytePath, _ why: String) throws(LayerError) {
        guard options.refusesOddAttributes else { return leftOut.add(attribute: name) }
        throw .invalidEntry(
            path: path,
            reason:
                "its extended attribute \"\(shownName(name))\" is not one that a file can have here (\(why)), and such layers are refused"
        )
    }

    /// Without privileges, attributes of users are set while the file may still be written.
    func comesFirst(_ attribute: ExtendedAttribute) -> Bool {
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

    func status(of fd: FileDescriptor, _ path: BytePath) throws(LayerError) -> FileStatus {
        try attempt("look at", path) { () throws(Errno) in try fd.status() }
    }

    /// Tells what the archive asked for from what the system could not do.
    func failure(_ operation: String, _ path: BytePath, _ errno: Errno) -> LayerError {
        switch errno {
        case .fileNameTooLong: .invalidEntry(path: path, reason: "its name or its target is too long")
        case .tooManyLinks: .invalidEntry(path: path, reason: "the file has too many hard links")
        case .fileTooLarge: .invalidEntry(path: path, reason: "the file is larger than any can be here")
        case .invalidArgument: .invalidEntry(path: path, reason: "the file system cannot hold such an entry")
        default: .system(operation: operation, path: path, errno: errno)
        }
    }
}

/// `btrfs.*` are properties of this file system (compression, …), not of an image. Nor are those by which a store knows its trees, as the root
/// directory of a bundle has them: in an image they could only be forged.
func belongsToImage(_ attribute: BytePath) -> Bool {
    !["btrfs.", "user.varve.", "trusted.varve."].contains { attribute.hasPrefix(Array($0.utf8)) }
}

extension FileDescriptor {
    /// Bytes of name and value that an attribute here may have at most; more is refused with ENOSPC, by btrfs (a leaf of the tree,
    /// BTRFS_MAX_XATTR_SIZE in fs/btrfs/fs.h) and by ext4 (a block).
    fileprivate var largestAttribute: Int {
        guard let size = try? nodeSize() else { return 65_536 }
        // The header of the leaf, an item and a directory item.
        return size - 101 - 25 - 30
    }

    /// Whether this is a file system that says ENOSPC when the attributes of one file have no room together, as ext4 does (the rest of
    /// the inode, and one block; `ext4_xattr_set_handle`, fs/ext4/xattr.c), though it has room for files.
    fileprivate var hasFewRoomForAttributes: Bool {
        guard (try? fileSystem().isBtrfs) == false, let free = try? freeBytes() else { return false }
        return free >= 1 << 20
    }
}
