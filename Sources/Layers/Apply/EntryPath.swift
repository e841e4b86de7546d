import SystemCalls

/// Where an entry of a layer goes: the directory, as the archive names it, and the name in it.
///
/// A leading `/` or `./` means nothing in a layer and is dropped. A `..` is refused: no tool that makes layers writes
/// one, and what it would mean depends on symbolic links that the maker did not see.
struct EntryPath {
    /// The directory's components joined by single slashes; empty for the root of the tree.
    let directory: BytePath
    /// Empty for the root itself.
    let name: BytePath

    /// One component, NAME_MAX of limits.h, in bytes.
    static let nameLimit = 255

    init(_ path: BytePath) throws(LayerError) {
        let slash = UInt8(ascii: "/")
        let dot = UInt8(ascii: ".")
        // By far the most entries are clean already: nothing to drop, and only the last slash to find.
        var clean = [UInt8]()
        clean.reserveCapacity(path.count)
        var nameStart = 0
        for part in path.bytes.split(separator: slash) {
            if part.count == 1 && part.first == dot { continue }
            if part.count == 2 && part.allSatisfy({ $0 == dot }) {
                throw .invalidEntry(path: path, reason: "its path holds \"..\"")
            }
            // A whiteout is never made as a file: with its prefix it may be longer than any file's name.
            let limit =
                part.starts(with: Whiteout.prefix) ? Self.nameLimit + Whiteout.prefix.count : Self.nameLimit
            guard part.count <= limit else {
                throw .invalidEntry(path: path, reason: "a name in it is longer than \(Self.nameLimit) bytes")
            }
            if !clean.isEmpty { clean.append(slash) }
            nameStart = clean.count
            clean.append(contentsOf: part)
        }
        let directoryEnd = max(0, nameStart - 1)
        guard let directory = BytePath(clean[..<directoryEnd]), let name = BytePath(clean[nameStart...])
        else {
            throw .invalidEntry(path: path, reason: "its path holds a zero byte")
        }
        self.directory = directory
        self.name = name
    }

    /// The whole path below the root, cleaned.
    var path: BytePath { directory.appending(name) }
}
