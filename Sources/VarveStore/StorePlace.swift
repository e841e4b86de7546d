import Glibc
package import VarveSystem
import SystemPackage

extension VarveError {
    /// - Parameter what: what cannot be because of that; a colon and the reason follow.
    init(_ error: PlaceError, _ what: String) {
        if case .system(let operation, let errno) = error.reason {
            self = .system(operation, error.path, errno)
        } else {
            self.init(
                .failed, "\(what): \(error.problem)", subject: error.path, remedy: error.remedy)
        }
    }
}

extension VarveError {
    /// Why something was not done to a path because of what stands on the way to it.
    ///
    /// - Parameter operation: as it reads on from "cannot".
    package init(_ error: PlaceError, _ operation: String, _ path: BytePath) {
        if let errno = error.errno {
            self = .system(operation, path, errno)
        } else {
            self.init(error, "cannot \(operation) \"\(path)\"")
        }
    }
}

/// Where a directory is to be that is yet to be made: its parent, which others cannot change, and its name there. Nothing is
/// there, or an empty directory.
struct NewPlace {
    let path: BytePath
    let parent: SharedDescriptor
    let name: BytePath
    let isEmptyDirectory: Bool

    /// How what is made gets there.
    enum Arrival {
        /// It is made there, in the empty directory if there is one.
        case inPlace
        /// It is made elsewhere and takes the name at the end; an empty directory or subvolume is removed first.
        case replacing
        /// It is made elsewhere, a directory, and renamed there: an empty directory makes room, a subvolume does not (`btrfs_rename`,
        /// fs/btrfs/inode.c).
        case renaming
    }

    /// Makes what is missing above it. What would keep the arrival from happening at the end is found now.
    ///
    /// - Parameters:
    ///   - noun: what it is to be, "bundle".
    ///   - trust: what is asked of the way to it.
    init(
        _ path: BytePath, for noun: String, _ arrival: Arrival, _ trust: Place.Trust = .closedToOthers
    ) throws(VarveError) {
        self.path = path
        name = try Self.name(path, for: noun)
        var made = MadeDirectories()
        do throws(PlaceError) {
            parent = SharedDescriptor(
                try Place.makeDirectory(
                    path.directory, trust, noting: &made))
        } catch {
            made.remove()
            throw VarveError(error, "\"\(path)\" cannot be \(Self.some(noun))")
        }
        if let own = StoreGround.name(of: [name], in: parent.fd) {
            made.remove()
            throw StoreGround.refusal(path, as: Self.some(noun), own)
        }
        // What is made is moved to its name at the end, and what it was made in is taken away there.
        if let file = ProtectedFile(.current, in: parent.fd, path: path.directory)
            ?? ProtectedFile(name, in: parent.fd, path: path)
        {
            made.remove()
            throw VarveError.protected("\"\(path)\" cannot be \(Self.some(noun))", path, by: file)
        }
        do throws(VarveError) {
            try attempt("write to", path.directory) { [parent] () throws(Errno) in
                try parent.fd.checkWritable(.current)
            }
        } catch {
            made.remove()
            throw error
        }
        let existing = try attempt("look at", path) { [parent, name] () throws(Errno) in
            try parent.fd.statusIfPresent(of: name)
        }
        isEmptyDirectory = existing != nil
        guard let existing else { return }
        let isEmpty = try attempt("list the directory", path) { [parent, name] () throws(Errno) in
            guard existing.isDirectory else { return false }
            let opened = try parent.fd.openDirectory(name)
            return try opened.fd.entries().isEmpty
        }
        guard isEmpty else {
            throw VarveError(
                .failed,
                "\"\(path)\" exists already", subject: path,
                remedy: noun == "bundle"
                    ? .removeBundle(path, or: "another bundle")
                    : .remove(or: noun == "archive" ? "another archive" : "another directory")
            )
        }
        try checkReplacement(noun, existing, arrival)
    }

    /// Throws if the empty directory that is there cannot be replaced.
    private func checkReplacement(_ noun: String, _ existing: FileStatus, _ arrival: Arrival)
        throws(VarveError)
    {
        if arrival == .inPlace { return }
        func refusal(_ reason: String, _ remedy: VarveError.Remedy) -> VarveError {
            VarveError(
                .unsupported, "\"\(path)\" cannot be \(Self.some(noun)): \(reason)", subject: path,
                remedy: remedy)
        }
        let (isMounted, above) = try attempt("look at", path) { () throws(Errno) in
            let mount = try parent.fd.mountID()
            let found = try parent.fd.mountedStatusIfPresent(of: name)?.mount ?? mount
            return (found != mount, try parent.fd.status())
        }
        if isMounted {
            throw refusal(
                "it is a mount point, which cannot be replaced",
                .follow("name a directory in it, or unmount it first"))
        }
        // Inode 256 is the root of a subvolume (BTRFS_FIRST_FREE_OBJECTID), on btrfs.
        if arrival == .renaming, existing.inode == 256,
            try attempt("look at", path, { () throws(Errno) in try parent.fd.fileSystem().isBtrfs })
        {
            throw refusal(
                "it is a subvolume, which a directory cannot replace",
                .follow("name a directory in it, or delete it first"))
        }
        let user = geteuid()
        if user != 0, above.mode & 0o1000 != 0, existing.uid != user, above.uid != user {
            throw refusal(
                "it belongs to \(AnotherUser(existing.uid)), and only they may replace it (sticky bit)",
                .name("another \(noun)"))
        }
    }

    /// A noun with its article.
    private static func some(_ noun: String) -> String {
        noun.first.map { "aeiou".contains($0) } == true ? "an \(noun)" : "a \(noun)"
    }

    static func name(_ path: BytePath, for noun: String) throws(VarveError) -> BytePath {
        let name = path.lastComponent
        guard !name.isEmpty, name != .current, name != ".." else {
            throw VarveError(
                .usage, "\"\(path)\" cannot be \(Self.some(noun))", subject: path,
                remedy: .name("a directory that is yet to be made"))
        }
        return name
    }
}

/// Whether a place is the caller's own, so that nobody else can put something into a store or another in its place. Only root is
/// trusted beside the caller.
extension SnapshotStore {
    /// Makes the directory of a store and what is missing above it, and opens it. It is the caller's, and nobody else may write
    /// to it or put another in its place.
    ///
    /// - Parameter noting: gets the directories that were made, also where this fails.
    static func makeOwnDirectory(
        _ path: BytePath, noting made: inout MadeDirectories
    ) throws(VarveError) -> SharedDescriptor {
        let directory: SharedDescriptor
        do throws(PlaceError) {
            directory = SharedDescriptor(try Place.makeDirectory(path, .own, noting: &made))
        } catch {
            throw VarveError(error, "\"\(path)\" cannot be a store")
        }
        if let own = StoreGround.name(of: [], in: directory.fd) {
            throw StoreGround.refusal(path, as: "a store", own)
        }
        return directory
    }

    /// Throws unless the directory is the caller's, and nobody else may write to it.
    static func requireOwn(_ directory: FileDescriptor, _ path: BytePath) throws(VarveError) {
        let status = try attempt("look at", path) { () throws(Errno) in try directory.status() }
        guard status.uid == geteuid() else {
            throw VarveError(
                .failed,
                "\"\(path)\" cannot be a store: it belongs to \(AnotherUser(status.uid))",
                subject: path,
                remedy: .name("a directory of your own")
            )
        }
        if status.mode & 0o022 != 0 {
            throw VarveError(
                .failed,
                "\"\(path)\" cannot be a store: others may write to it (mode \(String(status.permissions, radix: 8)))",
                subject: path, remedy: .closeToOthers(path, orSticky: false)
            )
        }
    }
}
