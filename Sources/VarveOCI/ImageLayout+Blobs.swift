import Glibc
internal import VarveSystem
internal import SystemPackage

/// Where the blobs of a layout lie: `blobs/ALGORITHM/HEX`.
///
/// The owner of a layout may be another user than the caller, and may change it at any moment. So the folder is opened once,
/// and a blob is reached by its own name relative to that descriptor: nothing that is put in the folder's place meanwhile
/// leads anywhere else.
extension ImageLayout {
    /// What a folder of blobs is opened for.
    enum BlobAccess {
        case reading
        /// Blobs are made or replaced, or those that this process made are removed: the folder must lie in the layout.
        case writing
        /// Blobs are removed by their names: in addition, the folder must belong to whom the layout belongs. Its owner can give the name to any
        /// directory of root's that lies in theirs.
        case removal
    }

    /// Opens `blobs/ALGORITHM` for listing. Nothing else in this module opens it.
    ///
    /// - Throws: `noSuchFileOrDirectory` where a layout has none, `improperLink` (EXDEV) where a symbolic link leads out of
    ///   the layout, or for writing to what another user than the layout's owns, EPERM for the removal in a folder of another's.
    func openBlobFolder(_ algorithm: DigestAlgorithm, for access: BlobAccess) throws(Errno) -> OwnedDescriptor
    {
        let folder = Self.blobFolder(algorithm)
        if access == .reading { return try directory.fd.open(folder, [.directory], resolve: .beneath) }
        let opened = try openToWrite(folder)
        if access == .removal {
            let (owner, own) = (try directory.fd.status().uid, try opened.fd.status().uid)
            if own != owner, owner != 0, owner != geteuid() { throw .notPermitted }
        }
        return opened
    }

    private func openToWrite(_ folder: BytePath) throws(Errno) -> OwnedDescriptor {
        do throws(Errno) {
            return try directory.fd.open(folder, [.directory], resolve: [.beneath, .noSymlinks])
        } catch .tooManySymbolicLinkLevels {}
        // The owner of a layout may have linked it to a folder of another user's that lies in it too.
        let opened = try directory.fd.open(folder, [.directory], resolve: .beneath)
        guard try opened.fd.status().uid == directory.fd.status().uid else { throw .improperLink }
        return opened
    }

    /// Opens `blobs/ALGORITHM` for writing, made where the layout lacks it.
    func makeBlobFolder(_ algorithm: DigestAlgorithm) throws(Errno) -> OwnedDescriptor {
        do throws(Errno) {
            return try openBlobFolder(algorithm, for: .writing)
        } catch .noSuchFileOrDirectory {
            return try Self.makeBlobFolder(algorithm, in: directory.fd, complete: giveToOwner)
        }
    }

    /// Makes `blobs/ALGORITHM` in a directory, durably.
    ///
    /// - Parameter complete: gets each of both that this call has made, and no other: it may be given to another user.
    static func makeBlobFolder(
        _ algorithm: DigestAlgorithm, in directory: FileDescriptor,
        complete: (FileDescriptor) -> Void = { _ in }
    ) throws(Errno) -> OwnedDescriptor {
        func make(_ name: BytePath, in parent: FileDescriptor) throws(Errno) -> OwnedDescriptor {
            var isMade = true
            do throws(Errno) {
                // The sticky bit marks it: the owner of the layout may put another directory in its place before it is open.
                try parent.makeDirectory(name, mode: 0o1755)
            } catch .fileExists {
                isMade = false
            }
            racePoint("make-blobs")
            let opened = try parent.open(name, [.directory], resolve: .beneath)
            guard isMade else { return opened }
            let status = try opened.fd.status()
            guard status.uid == geteuid(), status.mode & 0o1000 != 0, try opened.fd.entries().isEmpty else {
                throw .wasReplaced
            }
            try opened.fd.changeMode(to: status.permissions & 0o755)
            complete(opened.fd)
            try parent.synchronize()
            return opened
        }
        let blobs = try make(blobsName, in: directory)
        return try make(BytePath(algorithm.rawValue), in: blobs.fd)
    }

    /// Throws if the folder of the blobs is reached through a symbolic link that leads out of the layout: nothing is written through it.
    /// A layout without such a folder gets one when the first blob is written.
    package func checkFolderIsInside() throws(OCIError) {
        try attempt("write blobs into", path.appending(Self.blobFolder(.sha256))) { () throws(Errno) in
            do throws(Errno) {
                _ = try openBlobFolder(.sha256, for: .writing)
            } catch .noSuchFileOrDirectory {}
        }
    }

    /// A handle to whatever has the name of a blob, symbolic links followed; it is not opened by that.
    func blobPlace(_ digest: Digest) throws(PlaceError) -> OwnedDescriptor {
        try Place.handle(
            Self.blobFolder(digest.algorithm).appending(digest.hex), in: directory, .safeLinks)
    }

    /// What has the name of a blob, a symbolic link not followed; nil if nothing has.
    func blobStatus(_ digest: Digest) throws(Errno) -> FileStatus? {
        do throws(Errno) {
            let folder = try openBlobFolder(digest.algorithm, for: .reading)
            return try folder.fd.statusIfPresent(of: BytePath(digest.hex))
        } catch .noSuchFileOrDirectory {
            return nil
        }
    }

    /// The path of a blob, for messages.
    func blobPath(_ digest: Digest) -> BytePath {
        path.appending(Self.blobFolder(digest.algorithm)).appending(digest.hex)
    }

    /// `blobs/ALGORITHM`.
    static func blobFolder(_ algorithm: DigestAlgorithm) -> BytePath {
        blobsName.appending(algorithm.rawValue)
    }
}
