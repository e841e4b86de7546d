package import VarveOCI
import Synchronization
import VarveSystem
import SystemPackage

/// What a chain's attribute `user.varve.layer` says, in two lines: digest and size of the blob that the chain's uppermost layer was
/// read from; DiffID and size of the archive that came out of it.
///
/// It is written with the `PublicationRecord`, by whoever read the blob to its end and checked it. So who has a blob of
/// that digest need not read it to know what it makes of the chain below.
package struct ChainLayer: Sendable, Hashable {
    /// Of the blob.
    package var digest: Digest
    /// Bytes of the blob.
    package var size: Int64
    package var diffID: DiffID
    /// Bytes of the archive.
    package var archiveSize: Int64

    package init(_ blob: Descriptor, diffID: DiffID, archiveSize: Int64) {
        digest = blob.digest
        size = blob.size
        self.diffID = diffID
        self.archiveSize = archiveSize
    }

    /// Nil for what cannot be understood.
    init?(_ attribute: [UInt8]) {
        let lines = attribute.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        guard lines.count == 3, lines[2].isEmpty, let blob = Self.parse(lines[0]),
            let archive = Self.parse(lines[1])
        else { return nil }
        (digest, size) = blob
        (diffID, archiveSize) = (DiffID(archive.digest), archive.size)
    }

    private static func parse(_ line: ArraySlice<UInt8>) -> (digest: Digest, size: Int64)? {
        let words = String(decoding: line, as: UTF8.self).split(
            separator: " ", omittingEmptySubsequences: false)
        guard words.count == 2, let digest = Digest(words[0]), let size = Int64(words[1]), size >= 0,
            String(size) == words[1]
        else { return nil }
        return (digest, size)
    }

    var encoded: [UInt8] { Array("\(digest) \(size)\n\(diffID) \(archiveSize)\n".utf8) }

    /// What a chain bears; nil if that is nothing that can be understood.
    static func read(from chain: FileDescriptor, _ name: @autoclosure () -> BytePath) throws(VarveError)
        -> Self?
    {
        try attempt("read the attributes of", name()) { () throws(Errno) in
            try chain.extendedAttribute(StoreLayout.layerAttribute).flatMap { Self($0) }
        }
    }

    /// The chain that the layer makes of the one below it.
    func chainID(on below: ChainID?) -> ChainID {
        below.map { $0.appending(diffID) } ?? ChainID(diffID.digest)
    }
}

/// How many bytes came out of the blobs of an image's layers, for those that were extracted so far.
package final class ArchiveSizes: Sendable {
    private let sizes = Mutex<[Int: Int64]>([:])
    init() {}
    package subscript(layer: Int) -> Int64? {
        get { sizes.withLock { $0[layer] } }
        set { sizes.withLock { $0[layer] = newValue } }
    }
}
