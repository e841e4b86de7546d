internal import Glibc
internal import SystemPackage
package import VarveSystem

extension ImageLayout {
    /// Runs `body` with the layout at a path, which is made if there is none, by way of `change`. If it throws, a layout that this call made
    /// is taken away again, unless somebody else has put something into it meanwhile.
    package static func changeOrCreate<T>(
        at path: BytePath, _ cancellation: Cancellation, _ body: (ImageLayout) throws -> T
    ) throws -> T {
        let (layout, made) = try openOrCreate(at: path, cancellation)
        do { return try layout.change(body) } catch {
            if let made { layout.removeAsMade(made) }
            throw error
        }
    }

    /// The layout at a path, which is made if there is none.
    ///
    /// - Returns: also the directories that were made; nil if it was there.
    package static func openOrCreate(
        at path: BytePath, _ cancellation: Cancellation
    ) throws(OCIError) -> (layout: ImageLayout, made: MadeDirectories?) {
        var waited = 0
        while true {
            if let layout = try openIfPresent(path, cancellation) { return (layout, nil) }
            var made = MadeDirectories()
            do throws(OCIError) {
                _ = try create(at: path, noting: &made)
                return (try ImageLayout(opening: path, cancellation: cancellation), made)
            } catch {
                // Somebody else makes it just now, or has made it.
                guard error.kind == .inUse || error.kind == .alreadyExists, waited < Self.patience else {
                    throw error
                }
                if cancellation.isCancelled { throw .io("wait for", path, .canceled) }
                waited += 1
                usleep(10_000)
            }
        }
    }

    /// Hundredths of a second that another command may take to make a layout. The owner of its directory can keep it locked for ever.
    private static let patience = 3000

    /// The layout at a path; nil if there is none, or one that was never finished.
    package static func openIfPresent(_ path: BytePath, _ cancellation: Cancellation) throws(OCIError)
        -> ImageLayout?
    {
        do throws(OCIError) { return try ImageLayout(opening: path, cancellation: cancellation) } catch {
            if error.kind == .notFound { return nil }
            let opened = try? Place.directory(path, .safeLinks)
            if let opened, (try? isUnfinished(opened.fd)) == true { return nil }
            throw error
        }
    }

    /// Takes the layout away if nothing is in it, and nobody writes into it. Whoever has it open and begins later gets an error.
    private func removeAsMade(_ made: MadeDirectories) {
        try? exclusively { () throws(OCIError) in
            try whileIndexIsLocked { () throws(OCIError) in
                guard try index().entries.isEmpty else { return }
                try attempt("remove", path) { () throws(Errno) in
                    // What is in a folder keeps it, and with it the layout.
                    let blobs = try directory.fd.openDirectory(Self.blobsName)
                    for entry in try blobs.fd.entries() { try blobs.fd.removeDirectory(entry.name) }
                    try directory.fd.removeDirectory(Self.blobsName)
                    // Last in, first out: what is not finished is not taken for a layout.
                    try directory.fd.unlink(Self.versionName)
                    for entry in try directory.fd.entries() { try directory.fd.unlink(entry.name) }
                }
                made.remove()
            }
        }
    }
}
