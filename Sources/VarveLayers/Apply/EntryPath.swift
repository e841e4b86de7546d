import VarveSystem

/// Where an entry of a layer goes: the directory, as the archive names it, and the name in it.
///
/// A leading `/` or `./` means nothing in a layer and is dropped. A `..` is refused: no tool that makes layers writes
/// one, and what it would mean depends on symbolic links that the maker did not see.
struct EntryPath {
    /// The directory's components joined by single slashes; empty for the root of the tree.
    let directory: BytePath
    /// Empty for the root itself.
    let name: BytePath
    /// The uppermost whiteout among the components of the directory: what lies below one is no file of an image.
    let whiteoutAbove: BytePath?

    /// One component, NAME_MAX of limits.h, in bytes.
    static let nameLimit = 255

    init(_ path: BytePath) throws(LayerError) {
        let slash = UInt8(ascii: "/")
        let dot = UInt8(ascii: ".")
        let bytes = path.bytes
        var clean = [UInt8]()
        clean.reserveCapacity(path.count)
        var nameStart = 0
        // The last component so far, if it is a whiteout.
        var whiteout: Range<Int>?
        var whiteoutAbove: Range<Int>?
        var end = bytes.startIndex
        while end < bytes.endIndex {
            let start = end
            while end < bytes.endIndex, bytes[end] != slash { end += 1 }
            let count = end - start
            let part = start..<end
            // Past the slash.
            end += 1
            if count == 0 || count == 1 && bytes[start] == dot { continue }
            if count == 2 && bytes[start] == dot && bytes[start + 1] == dot {
                throw .invalidEntry(path: path, reason: "its path holds \"..\"")
            }
            let isWhiteout = bytes[start] == dot && bytes[part].starts(with: Whiteout.prefix)
            // A whiteout is never made as a file: with its prefix it may be longer than any file's name.
            guard count <= Self.nameLimit + (isWhiteout ? Whiteout.prefix.count : 0) else {
                throw .invalidEntry(path: path, reason: "a name in it is longer than \(Self.nameLimit) bytes")
            }
            whiteoutAbove = whiteoutAbove ?? whiteout
            whiteout = isWhiteout ? part : nil
            if !clean.isEmpty { clean.append(slash) }
            nameStart = clean.count
            clean.append(contentsOf: bytes[part])
        }
        self.whiteoutAbove = whiteoutAbove.flatMap { BytePath(bytes[$0]) }
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
