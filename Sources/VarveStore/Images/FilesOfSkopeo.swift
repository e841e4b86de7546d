import VarveOCI
import VarveSystem
import SystemPackage

/// An image as skopeo is told to find it. An archive, or a directory, that others could exchange while skopeo goes to it by its path is copied
/// first, from what was looked at: no symbolic link of theirs, device or FIFO is followed or opened.
final class ReadableSource {
    let reference: TransportReference
    private let copy: PrivateDirectory?

    init(_ source: TransportReference, _ cancellation: Cancellation) throws {
        guard let path = source.path else {
            (reference, copy) = (source, nil)
            return
        }
        let found: SharedDescriptor?
        do {
            found = try source.transport == .dir ? Self.directory(path) : Self.file(path)
        } catch var error as VarveError {
            // As the caller named it.
            error.subject = BytePath(source.description)
            throw error
        }
        guard let found else {
            (reference, copy) = (source, nil)
            return
        }
        let place = try PrivateDirectory(in: nil, for: path, cancellation)
        copy = place
        if source.transport == .dir {
            reference = source.at(place.path)
            try place.opened.fd.copyFiles(of: found.fd, path, mode: 0o600, cancellation)
        } else {
            reference = source.at(place.path.appending("archive"))
            try place.opened.fd.makeFile("archive", contentOf: found.fd, path, mode: 0o600, cancellation)
        }
    }

    /// An archive, open; nil where its path can be used again.
    private static func file(_ path: BytePath) throws -> SharedDescriptor? {
        do throws(PlaceError) {
            let own = try Place.ownFile(path, [.path])
            if (try? Place.isInContainer(own.fd)) == false { return nil }
        } catch {
            guard error.errno == nil, error.reason != .noRegularFile else {
                throw VarveError(error, "read", path)
            }
        }
        do throws(PlaceError) {
            let handle = try Place.handle(path, .safeLinks)
            let isRegular = try? handle.fd.status().isRegular
            guard isRegular == true else { throw PlaceError(path: path, reason: .noRegularFile) }
            do throws(Errno) {
                return SharedDescriptor(try handle.fd.reopened([.readOnly, .nonBlocking]))
            } catch {
                throw PlaceError(path: path, reason: .system(operation: "open", error))
            }
        } catch {
            throw VarveError(error, "read", path)
        }
    }

    /// A directory, open; nil where its path can be used again.
    private static func directory(_ path: BytePath) throws -> SharedDescriptor? {
        do throws(PlaceError) {
            let own = try Place.ownDirectory(path)
            if (try? Place.isInContainer(own.fd)) == false { return nil }
        } catch {
            if error.errno != nil { throw VarveError(error, "read", path) }
        }
        do throws(PlaceError) { return SharedDescriptor(try Place.directory(path, .safeLinks)) } catch {
            throw VarveError(error, "read", path)
        }
    }
}

extension FileDescriptor {
    /// Makes a file in this directory with the content of another one. An error leaves a part of it.
    ///
    /// - Parameters:
    ///   - shown: what errors name.
    ///   - mode: nil for that of the other one.
    fileprivate func makeFile(
        _ name: BytePath, contentOf source: FileDescriptor, _ shown: BytePath, mode: UInt32? = nil,
        _ cancellation: Cancellation
    ) throws {
        try attempt("write", shown) { () throws(Errno) in
            let file = try open(name, [.writeOnly, .create, .exclusive], mode: 0o600)
            try file.fd.copy(contentsOf: source) { () throws(Errno) in
                if cancellation.isCancelled { throw .canceled }
            }
            let permissions = if let mode { mode } else { try source.status().permissions }
            try file.fd.changeMode(to: permissions)
            try file.fd.synchronize()
        }
    }

    /// The same of each regular file of another directory; the names of one are names of one here. What else lies there is not opened.
    fileprivate func copyFiles(
        of directory: FileDescriptor, _ path: BytePath, mode: UInt32? = nil, _ cancellation: Cancellation
    ) throws {
        var copied: [UInt64: BytePath] = [:]
        for entry in try attempt("list the directory", path, { () throws(Errno) in try directory.entries() })
        {
            let shown = path.appending(entry.name)
            let file: SharedDescriptor
            do throws(Errno) { file = SharedDescriptor(try directory.openRegularFile(entry.name)) } catch {
                switch error {
                case .isDirectory, .tooManySymbolicLinkLevels, .notRegularFile: continue
                default: throw VarveError.system("read", shown, error)
                }
            }
            let inode = try attempt("look at", shown) { () throws(Errno) in try file.fd.status().inode }
            // Whoever it belongs to pays for one file, however many names that has.
            if let other = copied[inode] {
                try attempt("write", shown) { () throws(Errno) in try link(other, to: self, entry.name) }
                continue
            }
            copied[inode] = entry.name
            try makeFile(entry.name, contentOf: file.fd, shown, mode: mode, cancellation)
        }
    }
}

/// A file or directory that skopeo makes. It appears when it is whole, and under a name that was free.
///
/// skopeo writes it into a directory of this user's own, and it is put in place relative to the directory that was found: whatever others put
/// there meanwhile, nothing is followed or overwritten.
struct WrittenFile {
    private static let name: BytePath = "image"
    private let place: NewPlace
    private let directory: PrivateDirectory
    private let cancellation: Cancellation
    /// Where skopeo is to write it.
    let reference: TransportReference

    /// - Throws: `VarveError` if there is something already.
    init(_ destination: TransportReference, at path: BytePath, _ cancellation: Cancellation) throws {
        self.cancellation = cancellation
        let isDirectory = destination.transport == .dir
        place = try NewPlace(path, for: isDirectory ? "directory for an image" : "archive", .renaming)
        guard isDirectory || !place.isEmptyDirectory else {
            throw VarveError(
                .failed, "\"\(path)\" cannot be an archive: it is a directory", subject: path,
                remedy: .name("a file in it"))
        }
        directory = try PrivateDirectory(in: path.directory, for: path, cancellation)
        reference = destination.at(directory.path.appending(Self.name))
    }

    /// Puts what skopeo wrote where it was asked for.
    func putInPlace() throws {
        do throws(Errno) { try move(from: directory.opened.fd, replacing: place.isEmptyDirectory) } catch {
            guard error == .improperLink else { throw VarveError.system("make", place.path, error) }
            try copyInPlace()
        }
    }

    private func move(from folder: FileDescriptor, replacing: Bool) throws(Errno) {
        try folder.rename(Self.name, to: place.parent.fd, place.name, replacing: replacing)
        try place.parent.fd.synchronize()
    }

    /// It was made on another file system.
    private func copyInPlace() throws {
        let beside = try WorkDirectory(in: place.parent, path: place.path, cancellation: cancellation)
        let made = try attempt("read", "the image") { [directory] () throws(Errno) in
            SharedDescriptor(try directory.opened.fd.open(Self.name, [.readOnly]))
        }
        let status = try attempt("look at", "the image") { () throws(Errno) in try made.fd.status() }
        if status.isDirectory {
            let copy = try attempt("make", place.path) { () throws(Errno) in
                try beside.makeDirectory(Self.name, mode: status.permissions)
            }
            try copy.fd.copyFiles(of: made.fd, place.path, cancellation)
        } else {
            try beside.opened.fd.makeFile(Self.name, contentOf: made.fd, place.path, cancellation)
        }
        try attempt("make", place.path) { () throws(Errno) in
            try move(from: beside.opened.fd, replacing: place.isEmptyDirectory)
        }
    }
}
