import Glibc
package import SystemPackage

/// Reading files that somebody else may have made: those of an image, a bundle or a layout.
extension FileDescriptor {
    /// Opens a regular file for reading. Whatever else lies there is not opened.
    ///
    /// O_NONBLOCK and O_NOFOLLOW would not do: the open of a device alone arms a watchdog, rewinds a tape or makes a loop device, and
    /// what fstatat(2) said of a name need not hold any more. So the name is looked up once, with O_PATH, which opens nothing
    /// (open(2)); what was found is looked at, and that very file is opened through /proc/self/fd.
    ///
    /// - Parameters:
    ///   - expected: what was said of the file before; another one with its name is an error.
    ///   - resolve: how the path is walked; with `.noCrossing` a mount on it is an error, one on the file itself too.
    ///   - followsLinks: takes what a symbolic link leads to.
    ///   - keepsAccessTime: reads without a trace in the access time, where that is allowed (O_NOATIME).
    /// - Throws: `notRegularFile` for a device, FIFO or socket, EISDIR for a directory, ELOOP for a symbolic link, `wasReplaced` if it
    ///   is not the file expected.
    package func openRegularFile(
        _ path: BytePath, expecting expected: FileStatus? = nil, resolve: Resolution = [],
        followsLinks: Bool = false, keepsAccessTime: Bool = false
    ) throws(Errno) -> OwnedDescriptor {
        if expected != nil { racePoint("open-file") }
        let found = try open(path, followsLinks ? [.path] : [.path, .noFollow], resolve: resolve)
        let status = try found.fd.status()
        switch status.type {
        case .regular: break
        case .directory: throw .isDirectory
        case .symbolicLink: throw .tooManySymbolicLinkLevels
        default: throw .notRegularFile
        }
        if let expected, !status.isSameFile(as: expected) { throw .wasReplaced }
        guard keepsAccessTime else { return try found.fd.reopened([.readOnly, .nonBlocking]) }
        do throws(Errno) {
            return try found.fd.reopened([.readOnly, .nonBlocking, .noAccessTime])
        } catch .notPermitted {
            // O_NOATIME is the owner's alone.
            return try found.fd.reopened([.readOnly, .nonBlocking])
        }
    }

    /// The content of a regular file of the tree that this is the root directory of, by way of symbolic links, which lead nowhere
    /// out of it. Nil for what cannot be read as one, lies on another mount, or is longer than `limit` bytes.
    package func contentInTree(of path: BytePath, limit: Int) -> [UInt8]? {
        guard let file = try? openRegularFile(path, resolve: [.inRoot, .noCrossing], followsLinks: true)
        else {
            return nil
        }
        return try? file.fd.readAll(limit: limit)
    }
}

extension FileDescriptor {
    /// A handle (O_PATH) of the very file that was looked at, a symbolic link itself: what is asked of it is said of no other that has
    /// its name by now.
    ///
    /// - Throws: `wasReplaced` if another file has the name.
    package func openHandle(of name: BytePath, expecting expected: FileStatus) throws(Errno)
        -> OwnedDescriptor
    {
        let handle = try open(name, [.path, .noFollow])
        guard try handle.fd.status().isSameFile(as: expected) else { throw .wasReplaced }
        return handle
    }

    /// All attributes of the very file that was looked at, in byte order of their names.
    ///
    /// - Throws: `wasReplaced` if another file has the name.
    package func extendedAttributes(
        of name: BytePath, expecting expected: FileStatus
    ) throws(Errno) -> [ExtendedAttribute] {
        let handle = try openHandle(of: name, expecting: expected)
        return try handle.fd.extendedAttributesOfHandle()
    }

    /// The target of the very symbolic link that was looked at.
    ///
    /// - Throws: `wasReplaced` if another file has the name.
    package func readSymbolicLink(_ name: BytePath, expecting expected: FileStatus) throws(Errno) -> BytePath
    {
        // readlinkat(2): the empty path is the link that the descriptor stands for.
        let handle = try openHandle(of: name, expecting: expected)
        return try handle.fd.readSymbolicLink(.empty)
    }
}

extension Errno {
    /// EMEDIUMTYPE, which no call made here gives: what should be a regular file is something else.
    package static let notRegularFile = Errno(rawValue: Glibc.EMEDIUMTYPE)
    /// EMLINK, which no call made here that opens a file gives: it has more names than one.
    package static let hasOtherNames = Errno(rawValue: Glibc.EMLINK)
    /// ESTALE: what has the name is another file than before.
    package static let wasReplaced = Errno(rawValue: Glibc.ESTALE)

    /// What went wrong, for a message.
    package var explanation: String {
        switch self {
        case .notRegularFile: "it is not a regular file"
        case .hasOtherNames: "the file has another name too"
        case .wasReplaced: "another file was put in its place meanwhile"
        default: "\(self)"
        }
    }
}
