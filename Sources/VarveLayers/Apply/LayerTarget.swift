import VarveArchive
import VarveSystem
import SystemPackage

/// What a layer is applied to, as far as applying it depends on where the layers below are: in the same tree (`CumulativeTarget`), or in
/// directories of their own (`StandaloneTarget`).
protocol LayerTarget: AnyObject {
    /// Other layers are applied at the same time, so this one has no thread of its own that writes its files.
    var isOneOfSeveral: Bool { get }

    /// Before the first entry.
    func begin(_ archive: TarReader)

    /// Makes the way for an entry that is about to be applied.
    func prepare(_ entry: TarEntry, _ place: EntryPath, keepDirlinks: Bool) throws

    /// What lower layers have under `name` does not show. What is in `written`, this layer has put there: that stays.
    func delete(_ name: BytePath, in path: BytePath, entry: BytePath, keeping written: WrittenNames) throws

    /// Nothing that lower layers have in the directory at `path` shows.
    func deleteContents(of path: BytePath, entry: BytePath, keeping written: WrittenNames) throws

    /// The content of a regular file of the image as it is by now, by way of symbolic links; nil if there is none, or it is longer
    /// than `limit` bytes.
    func readFile(_ path: BytePath, limit: Int) throws -> [UInt8]?

    /// When all entries are applied, and before directories get their times.
    func finishEntries() throws

    /// When the layers below are all there.
    func finishAboveLower() throws
}

/// The tree of all layers, of which this one is the uppermost: what lower layers have is there, and is deleted.
final class CumulativeTarget: LayerTarget {
    let isOneOfSeveral = false
    private let directories: TreeDirectories

    init(_ directories: TreeDirectories) { self.directories = directories }

    func begin(_ archive: TarReader) {}

    func prepare(_ entry: TarEntry, _ place: EntryPath, keepDirlinks: Bool) throws {}

    func delete(_ name: BytePath, in path: BytePath, entry: BytePath, keeping written: WrittenNames) throws {
        guard let directory = try directories.findToEmpty(path, entry: entry) else { return }
        let fullPath = path.appending(name)
        let existing = try attempt("look at", fullPath) { () throws(Errno) in
            try directory.fd.statusIfPresent(of: name)
        }
        guard let existing else { return }
        if existing.isDirectory {
            directories.forget()
            let opened = try attempt("open the directory", fullPath) { () throws(Errno) in
                try directory.fd.openDirectory(name)
            }
            let kept = try TreeRemoval.removeContents(
                of: opened.fd, path: fullPath, keeping: written, cancellation: directories.cancellation)
            if written.contains(name, in: directory.inode) { return }
            try TreeRemoval.removeIfEmpty(name, in: directory.fd, fullPath, mayHoldFiles: kept)
        } else if !written.contains(name, in: directory.inode) {
            if existing.isSymbolicLink { directories.forget() }
            try attempt("remove", fullPath) { () throws(Errno) in try directory.fd.unlink(name) }
        }
    }

    func deleteContents(of path: BytePath, entry: BytePath, keeping written: WrittenNames) throws {
        guard let directory = try directories.findToEmpty(path, entry: entry) else { return }
        if written.isSettled(directory.inode) { return }
        directories.forget()
        _ = try TreeRemoval.removeContents(
            of: directory.fd, path: path, keeping: written, cancellation: directories.cancellation)
    }

    func readFile(_ path: BytePath, limit: Int) throws -> [UInt8]? {
        directories.root.contentInTree(of: path, limit: limit)
    }

    func finishEntries() throws {}

    func finishAboveLower() throws {}
}
