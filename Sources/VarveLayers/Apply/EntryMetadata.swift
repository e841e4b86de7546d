import VarveArchive
import VarveSystem
import SystemPackage

/// Gives files the owner, mode, attributes and times of their entries; any thread may use it.
struct EntryMetadata: Sendable {
    let options: ApplyOptions
    /// Of this process: what it makes has them from the start.
    let uid: UInt32
    let gid: UInt32
    let umask: UInt32

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
    func attributes(of entry: TarEntry) throws(LayerError) -> [ExtendedAttribute] {
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

    func set(_ attribute: ExtendedAttribute, on fd: FileDescriptor, _ path: BytePath)
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
