package import VarveFormats
internal import Synchronization
package import VarveSystem
internal import SystemPackage

/// An OCI image layout in a directory (image-spec image-layout.md).
///
/// Everything below the directory is reached from its descriptor; what is written lies in it, and what is read is in it or where root,
/// the caller or the owner of what is read made a link to. The value may be used from several threads.
package final class ImageLayout: Sendable {
    package static let version = "1.0.0"
    /// Bytes of a manifest, a nested index or a configuration that are read at most: as many as registries take, and as
    /// containers/image reads.
    package static let documentLimit = 4 << 20
    /// Bytes of `index.json` that are read at most: it may hold very many tags.
    package static let indexLimit = 64 << 20

    package static let versionName = BytePath("oci-layout")
    static let indexName = BytePath("index.json")
    static let blobsName = BytePath("blobs")

    /// As the caller gave it, for messages.
    package let path: BytePath
    let directory: SharedDescriptor
    /// Ends waits for locks.
    let cancellation: Cancellation
    /// The shared lock that keeps garbage collection away while this value writes; taken with the first
    /// write.
    let writing = Mutex<HeldLock?>(nil)
    /// Milliseconds for which this value has waited for locks of blobs.
    let waited = Mutex<Int>(0)
    /// What this value wrote, or found where it wanted to write it.
    let blobs = Mutex<[HeldBlob]>([])

    init(path: BytePath, directory: SharedDescriptor, cancellation: Cancellation) {
        self.path = path
        self.directory = directory
        self.cancellation = cancellation
    }

    /// Opens an existing layout and checks its version.
    ///
    /// - Parameter cancellation: ends the waits for locks of others, with an error of kind `cancelled`.
    package init(opening path: BytePath, cancellation: Cancellation = Cancellation()) throws(OCIError) {
        self.cancellation = cancellation
        do throws(PlaceError) {
            directory = SharedDescriptor(try Place.directory(path, .safeLinks))
        } catch {
            if error.errno == .noSuchFileOrDirectory || error.errno == .notDirectory,
                let foreign = ForeignReference(path)
            {
                throw .usage(foreign.description, subject: path, remedy: foreign.remedy)
            }
            switch error.errno {
            case .noSuchFileOrDirectory:
                throw .notFound(
                    "there is no image layout at \(path)", subject: path, remedy: .createLayout(path))
            case .notDirectory:
                throw .invalid("\(path) is no image layout: it is not a directory", subject: path)
            case let errno?: throw .io("open the image layout", path, errno)
            case nil: throw OCIError(error, "open the image layout \(path)")
            }
        }
        self.path = path
        let bytes = try read(Self.versionName, limit: 65_536)
        let what = "\(path.appending(Self.versionName))"
        let json = try Self.parse(bytes, what)
        guard let version = try json.object?.string("imageLayoutVersion", of: what) else {
            throw .invalid("\(what) is invalid: it has no \"imageLayoutVersion\"")
        }
        guard version == Self.version else {
            throw .invalid("\(what) has the version \"\(shown(version))\", but Varve reads \(Self.version)")
        }
    }

    /// Makes an empty layout, parent directories included. Throws `alreadyExists` unless `path` is free or an
    /// empty directory. An error leaves nothing behind.
    package static func create(at path: BytePath) throws(OCIError) -> ImageLayout {
        var made = MadeDirectories()
        return try create(at: path, noting: &made)
    }

    /// - Parameter made: gets the directories that were made, the layout's own among them.
    static func create(at path: BytePath, noting made: inout MadeDirectories) throws(OCIError) -> ImageLayout
    {
        // Nobody who writes this means a directory "docker:".
        if let foreign = ForeignReference.ofTransport(path.description) {
            throw .usage(foreign.description, subject: path, remedy: foreign.remedy)
        }
        let doing = "make the image layout"
        do throws(OCIError) {
            let directory: SharedDescriptor
            do throws(PlaceError) {
                directory = SharedDescriptor(try Place.makeDirectory(path, .closedToOthers, noting: &made))
            } catch {
                throw OCIError(error, doing)
            }
            // Whoever makes it just now, or makes it whole that a process left which was killed, is alone at that.
            let opened = try attempt(doing, path) { () throws(Errno) in
                SharedDescriptor(try directory.fd.open(.current, [.directory]))
            }
            let lock = try Self.lockToMake(opened, path)
            defer { extendLifetime(lock) }
            guard try attempt(doing, path, { () throws(Errno) in try isEmptyOrUnfinished(directory.fd) })
            else {
                throw OCIError(
                    .alreadyExists,
                    "cannot make an image layout at \(path): there is something in it already",
                    subject: path)
            }
            try attempt(doing, path) { () throws(Errno) in try fill(directory.fd) }
            return ImageLayout(path: path, directory: directory, cancellation: Cancellation())
        } catch {
            made.remove()
            throw error
        }
    }

    /// Nil on file systems without such locks: there nobody can be told.
    private static func lockToMake(_ opened: SharedDescriptor, _ path: BytePath) throws(OCIError) -> HeldLock?
    {
        let lock: HeldLock?
        do throws(Errno) {
            lock = try DirectoryLock.attempt(.exclusive, on: opened, file: writersLock)
        } catch {
            return nil
        }
        guard let lock else {
            throw OCIError(
                .inUse, "cannot make an image layout at \(path): another process works in it", subject: path,
                remedy: .tryAgainLater)
        }
        return lock
    }

    private static let emptyIndex = JSONValue.object(ImageIndex().json).serialized()

    /// Whether a directory is what `fill` leaves when its process is killed: there is something in it, and nothing else than that.
    static func isUnfinished(_ directory: FileDescriptor) throws(Errno) -> Bool {
        if try directory.entries().isEmpty { return false }
        return try isEmptyOrUnfinished(directory)
    }

    /// Whether nothing is in a directory but what `fill` leaves there when its process is killed.
    private static func isEmptyOrUnfinished(_ directory: FileDescriptor) throws(Errno) -> Bool {
        for entry in try directory.entries() {
            let status = try directory.status(of: entry.name)
            if entry.name == blobsName, status.isDirectory {
                let blobs = try directory.open(blobsName, [.directory], resolve: [.beneath, .noSymlinks])
                for folder in try blobs.fd.entries() {
                    let opened = try blobs.fd.open(
                        folder.name, [.directory], resolve: [.beneath, .noSymlinks])
                    guard try opened.fd.entries().isEmpty else { return false }
                }
            } else if entry.name == indexName, status.isRegular {
                guard status.size == emptyIndex.count,
                    try directory.readFile(indexName, limit: emptyIndex.count) == emptyIndex
                else { return false }
            } else if !isTemporary(entry.name) && entry.name != writersLock || !status.isRegular {
                return false
            }
        }
        return true
    }

    /// As `writeFileDurably` names what it is about to rename.
    private static func isTemporary(_ name: BytePath) -> Bool {
        [indexName, versionName].contains { name.hasPrefix(Array(".\($0).".utf8)) }
    }

    private static func fill(_ directory: FileDescriptor) throws(Errno) {
        do throws(Errno) {
            for entry in try directory.entries() where isTemporary(entry.name) {
                try directory.unlink(entry.name)
            }
            _ = try makeBlobFolder(.sha256, in: directory)
            try directory.writeFileDurably(indexName, emptyIndex)
            // It comes last: a layout that was not finished is not taken for one.
            try directory.writeFileDurably(
                versionName, JSONValue.object(["imageLayoutVersion": .string(version)]).serialized())
        } catch {
            for name in [versionName, indexName] { try? directory.unlink(name) }
            if let blobs = try? directory.openDirectory(blobsName) {
                try? blobs.fd.removeDirectory(BytePath(DigestAlgorithm.sha256.rawValue))
            }
            try? directory.removeDirectory(blobsName)
            throw error
        }
    }

    /// Opens a blob for reading from its start. It is a regular file of exactly the size that the descriptor
    /// says; its digest is the reader's to check, with a `BlobVerifier`.
    ///
    /// The blob and the folders that it lies in may be symbolic links, as build systems make layouts of their outputs. A link of
    /// another user counts only if what it leads to is that user's own (`Place.Trust.safeLinks`). What is found is not opened before it
    /// is known to be a regular file.
    package func openBlob(_ descriptor: Descriptor) throws(OCIError) -> OwnedDescriptor {
        let name = blobPath(descriptor.digest)
        let place = try openBlobPlace(descriptor)
        let status = try attempt("look at", name) { () throws(Errno) in try place.fd.status() }
        guard status.isRegular else {
            throw .invalid("\(name) is not a regular file, but a blob must be one")
        }
        guard status.size == descriptor.size else {
            throw .invalid(
                "the blob \(descriptor.digest) in \(path) has not the \(descriptor.size) bytes that its descriptor "
                    + "says", subject: BytePath("\(descriptor.digest)"), remedy: .copyImageAgain)
        }
        return try attempt("open", name) { () throws(Errno) in
            try place.fd.reopened([.readOnly, .nonBlocking])
        }
    }

    /// A handle to whatever has the name of a blob, which is not opened by that.
    private func openBlobPlace(_ descriptor: Descriptor) throws(OCIError) -> OwnedDescriptor {
        let name = blobPath(descriptor.digest)
        do throws(PlaceError) {
            return try blobPlace(descriptor.digest)
        } catch {
            switch error.errno {
            case .noSuchFileOrDirectory:
                throw .invalid(
                    "the image layout \(path) lacks the blob \(descriptor.digest)",
                    subject: BytePath("\(descriptor.digest)"), remedy: .copyImageAgain)
            case .tooManySymbolicLinkLevels: throw .invalid("the symbolic links at \(name) lead to no file")
            case .isDirectory:
                throw .invalid("\(name) is not a regular file, but a blob must be one")
            case let errno?: throw .io("open", name, errno)
            case nil: throw leadsAstray("the blob \(descriptor.digest)", at: name, error)
            }
        }
    }

    /// What a layout holds is behind a link of another user, to what is not theirs.
    private func leadsAstray(_ what: String, at place: BytePath, _ error: PlaceError) -> OCIError {
        .invalid(
            "\(what) is not read: \"\(path.appending(error.path))\" is a symbolic link of another user, to a file that is not theirs",
            subject: place, remedy: .copyLayout)
    }

    /// A whole blob with its size and digest checked. Throws `invalidInput` above `limit` bytes.
    package func readBlob(_ descriptor: Descriptor, limit: Int = documentLimit) throws(OCIError) -> [UInt8] {
        guard descriptor.size <= Int64(limit) else {
            throw .invalid(
                "the blob \(descriptor.digest) in \(path) has \(descriptor.size) bytes, but a document of "
                    + "its kind may have \(limit) at most", subject: BytePath("\(descriptor.digest)"))
        }
        let file = try openBlob(descriptor)
        let bytes: [UInt8]
        do throws(Errno) {
            bytes = try file.fd.readAll(limit: limit)
        } catch {
            throw .io("read", blobPath(descriptor.digest), error)
        }
        var verifier = BlobVerifier(descriptor)
        let outcome: Result<Void, OCIError> = unsafe bytes.withUnsafeBytes { buffer in
            Result { () throws(OCIError) in try unsafe verifier.update(buffer) }
        }
        try outcome.get()
        try verifier.finish()
        return bytes
    }

    /// A JSON blob with its size and digest checked.
    package func readDocument(_ descriptor: Descriptor) throws(OCIError) -> JSONValue {
        try Self.parse(try readBlob(descriptor), "the blob \(descriptor.digest) in \(path)")
    }

    /// The current `index.json`.
    package func index() throws(OCIError) -> ImageIndex {
        let name = path.appending(Self.indexName)
        let bytes = try read(Self.indexName, limit: Self.indexLimit)
        return try ImageIndex(try Self.parse(bytes, "\(name)"), of: "\(name)")
    }

    /// Reads `oci-layout` or `index.json`. A symbolic link is followed as that of a blob is: build systems make layouts of links.
    private func read(_ name: BytePath, limit: Int) throws(OCIError) -> [UInt8] {
        let place = path.appending(name)
        let found: SharedDescriptor
        do throws(PlaceError) {
            found = SharedDescriptor(try Place.handle(name, in: directory, .safeLinks))
        } catch {
            switch error.errno {
            case .noSuchFileOrDirectory:
                if let foreign = ForeignReference.ofDirectory(path) {
                    throw .usage(foreign.description, subject: path, remedy: foreign.remedy)
                }
                throw .invalid("\(path) is no image layout: it has no file named \(name)", subject: path)
            case let errno?: throw .io("read", place, errno)
            case nil: throw leadsAstray("\(place)", at: place, error)
            }
        }
        do throws(Errno) {
            guard try found.fd.status().isRegular else { throw .notRegularFile }
            let file = try found.fd.reopened([.readOnly, .nonBlocking])
            return try file.fd.readAll(limit: limit)
        } catch .fileTooLarge {
            throw .invalid("\(place) has more than the \(limit) bytes that Varve reads of it")
        } catch {
            throw .io("read", place, error)
        }
    }

    /// Throws if the caller asked to stop.
    func checkCancellation() throws(OCIError) {
        if cancellation.isCancelled { throw .io("read", path, .canceled) }
    }

    func describe(_ descriptor: Descriptor) -> String { "the blob \(descriptor.digest) in \(path)" }

    static func parse(_ bytes: [UInt8], _ what: String) throws(OCIError) -> JSONValue {
        do throws(JSONSyntaxError) {
            return try JSONValue(parsing: bytes)
        } catch {
            throw .invalid("\(what) is not valid JSON: \(error)")
        }
    }
}
