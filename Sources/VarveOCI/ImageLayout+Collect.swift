import VarveFormats
internal import VarveSystem
internal import SystemPackage

/// What a garbage collection of a layout did.
public struct CollectionReport: Sendable {
    /// The blobs that were deleted, or would be.
    public var removed: [(digest: Digest, size: Int64)] = []
    /// How many blobs stay.
    public var kept = 0
    /// Bytes of the removed blobs.
    public var freed: Int64 { removed.reduce(0) { $0 &+ $1.size } }
    package init() {}
}

extension ImageLayout {
    /// Removes the blobs that no way from `index.json` or from a manifest in `kept` leads to, and what interrupted writers left.
    ///
    /// A blob is followed by every `digest` in it, whatever its media type, so what is not known here
    /// (artifacts, signatures, `subject`) keeps what it refers to. If a document that should be followed
    /// cannot be read, nothing is removed and the error is thrown. Throws `inUse` while somebody writes into
    /// the layout.
    ///
    /// - Parameter kept: digests of manifests that are needed though no tag leads to them; those that the layout does not hold, and those of
    ///   blobs that are no manifests, do not matter.
    package func collectGarbage(dryRun: Bool = false, keeping kept: Set<Digest> = []) throws(OCIError)
        -> CollectionReport
    {
        try collectGarbage(dryRun: dryRun, keeping: { kept }, dropping: { _ in false })
    }

    /// - Parameters:
    ///   - kept: is asked while nobody writes into the layout; nil gives up, and nothing is removed.
    ///   - drop: says of an image that came from elsewhere and has no tag whether its entry is removed.
    package func collectGarbage(
        dryRun: Bool, keeping kept: () -> Set<Digest>?, dropping drop: (SourcedEntry) -> Bool
    ) throws(OCIError) -> CollectionReport {
        func isDropped(_ entry: JSONValue) -> Bool {
            SourcedEntry(entry).map { $0.tag == nil && drop($0) } ?? false
        }
        // There may be very many entries: they are copied only to be changed, and gone when the index is read again.
        func reachableBlobs(_ kept: Set<Digest>) throws(OCIError) -> Set<Digest> {
            var index = try index()
            if index.entries.contains(where: isDropped) {
                index.entries.removeAll(where: isDropped)
                if !dryRun {
                    try updateIndex { (index) throws(OCIError) in index.entries.removeAll(where: isDropped) }
                }
            }
            return try self.reachableBlobs(from: consume index, keeping: kept, cancellation)
        }
        return try exclusively { () throws(OCIError) in
            guard let kept = kept() else { return CollectionReport() }
            let reachable = try reachableBlobs(kept)
            var report = CollectionReport()
            for algorithm in DigestAlgorithm.allCases {
                try sweep(algorithm, keeping: reachable, dryRun: dryRun, into: &report)
            }
            if !dryRun {
                removeDeadTemporaries()
                // Where there is no room for the lock, they stay, and the space of the blobs is what counts.
                try? updateIndex { _ in removeDeadIndexes() }
            }
            return report
        }
    }

    /// How far a blob is read for what it refers to.
    private enum Following: Hashable {
        /// A layer or a configuration: it refers to nothing.
        case leaf
        /// An index or a manifest: it must be readable.
        case known
        /// Of another media type: followed if it reads as a document.
        case unknown
        /// What nothing leads to but a name that anybody may have written: followed, with all that it leads to, as far as it reads as a document.
        case claimed

        init(_ type: String) {
            if MediaType.isIndex(type) || MediaType.isManifest(type) {
                self = .known
            } else {
                self = LayerMediaType.isLayer(type) || MediaType.isConfig(type) ? .leaf : .unknown
            }
        }
    }

    /// A blob that is to be followed as one of its media types.
    private struct Visit: Hashable {
        var digest: Digest
        var size: Int64
        var following: Following
    }

    /// The digests of all blobs that `index.json` and the manifests in `kept` lead to, held by the layout or not.
    ///
    /// - Parameters:
    ///   - cancellation: asked before each document is read; nil for what cleans up, which is asked for no more than `limit`.
    ///   - limit: bytes of documents at most.
    /// - Throws: `cancelled`; an error with EFBIG above the limit.
    func reachableBlobs(_ cancellation: Cancellation?, limit: Int64 = .max) throws(OCIError) -> Set<Digest> {
        try reachableBlobs(from: try index(), keeping: [], cancellation, limit: limit)
    }

    private func reachableBlobs(
        from index: consuming ImageIndex, keeping kept: Set<Digest>, _ cancellation: Cancellation?,
        limit: Int64 = .max
    ) throws(OCIError) -> Set<Digest> {
        var room = limit
        var reachable = Set<Digest>()
        // One blob may be referred to under several media types, and is followed as each of them. Only what is to be followed is
        // kept, and only what following needs: there may be very many.
        var visited = Set<Visit>()
        var pending = [Visit]()
        func follow(_ digest: Digest, _ size: Int64, _ following: Following) {
            if following == .leaf { return }
            let visit = Visit(digest: digest, size: size, following: following)
            if visited.insert(visit).inserted { pending.append(visit) }
        }
        func collect(_ document: JSONValue, _ following: Following, _ what: String) throws(OCIError) {
            // A descriptor in a known place that is not understood could lead anywhere: it ends the
            // collection.
            if following == .known, let object = document.object {
                for key in ["manifests", "layers", "blobs"] {
                    for entry in object[key]?.array ?? [] { _ = try Descriptor(entry, of: what) }
                }
                for key in ["config", "subject"] {
                    if let entry = object[key], !entry.isNull { _ = try Descriptor(entry, of: what) }
                }
            }
            Self.forEachDigest(in: document) { object, digest in
                // The one that is there already, whose digits are in memory once.
                let digest = reachable.insert(digest).memberAfterInsert
                if let descriptor = try? Descriptor(.object(object), of: what) {
                    let next = Following(descriptor.mediaType)
                    follow(digest, descriptor.size, following == .claimed && next != .leaf ? .claimed : next)
                }
            }
        }
        try collect(.object(index.json), .known, "\(path.appending(Self.indexName))")
        for digest in kept.sorted(by: { $0.description < $1.description }) {
            guard let size = try sizeOfBlob(digest) else { continue }
            reachable.insert(digest)
            follow(digest, size, .claimed)
        }
        while let next = pending.popLast() {
            if cancellation?.isCancelled == true { throw .io("read", blobPath(next.digest), .canceled) }
            room -= max(0, next.size)
            guard room >= 0 else { throw .io("read", blobPath(next.digest), .fileTooLarge) }
            let descriptor = Descriptor(mediaType: "", digest: next.digest, size: next.size)
            guard let document = try followed(descriptor, next.following) else { continue }
            try collect(document, next.following, describe(descriptor))
        }
        return reachable
    }

    /// The size of a blob, in bytes: of the file to which a symbolic link leads. Nil if there is none.
    private func sizeOfBlob(_ digest: Digest) throws(OCIError) -> Int64? {
        let place: SharedDescriptor
        do throws(PlaceError) { place = SharedDescriptor(try blobPlace(digest)) } catch {
            if error.errno == .noSuchFileOrDirectory { return nil }
            throw OCIError(error, "look at")
        }
        return try attempt("look at", blobPath(digest)) { () throws(Errno) in try place.fd.status().size }
    }

    /// The document that a reachable blob is; nil for a blob that refers to nothing or is not in the layout.
    private func followed(_ descriptor: Descriptor, _ following: Following) throws(OCIError) -> JSONValue? {
        let status = try attempt("look at", blobPath(descriptor.digest)) { () throws(Errno) in
            try blobStatus(descriptor.digest)
        }
        guard status != nil else { return nil }
        if following == .known { return try readDocument(descriptor) }
        guard descriptor.size <= Int64(Self.documentLimit) else { return nil }
        let bytes: [UInt8]
        do throws(OCIError) { bytes = try readBlob(descriptor) } catch {
            // What is damaged is no document; what cannot be read may be one.
            if error.kind == .invalidInput || error.kind == .notFound { return nil }
            throw error
        }
        return try? JSONValue(parsing: bytes)
    }

    /// Every object in `document`, at any depth, that has a member `digest` which is one.
    private static func forEachDigest(in document: JSONValue, _ body: (JSONObject, Digest) -> Void) {
        var pending = [document]
        while let value = pending.popLast() {
            switch value {
            case .array(let elements): pending.append(contentsOf: elements)
            case .object(let object):
                if let text = object["digest"]?.string, let digest = Digest(text) { body(object, digest) }
                pending.append(contentsOf: object.members.map(\.value))
            default: continue
            }
        }
    }

    private func sweep(
        _ algorithm: DigestAlgorithm, keeping reachable: Set<Digest>, dryRun: Bool,
        into report: inout CollectionReport
    ) throws(OCIError) {
        let name = path.appending(Self.blobFolder(algorithm))
        let folder: SharedDescriptor
        do throws(Errno) {
            folder = SharedDescriptor(try openBlobFolder(algorithm, for: .removal))
        } catch .noSuchFileOrDirectory {
            return
        } catch .notPermitted {
            throw OCIError(
                .unsafePlace,
                "nothing is collected in \(path): \"\(name)\" does not belong to the owner of the layout, who can have given it that name",
                subject: name,
                remedy: .follow(
                    "if its files are blobs of the layout: chown -R --reference=\(path.shellWord) \(name.shellWord)"
                ))
        } catch {
            throw .io("list", name, error)
        }
        let entries = try attempt("list", name) { () throws(Errno) in try folder.fd.entries() }
        for entry in entries.sorted(by: { $0.name < $1.name }) {
            // A name that is no digest is no blob, and not ours to remove.
            guard let hex = entry.name.string, let digest = Digest(algorithm: algorithm, hex: hex) else {
                continue
            }
            if reachable.contains(digest) {
                report.kept += 1
                continue
            }
            let size = try attempt("remove", name.appending(entry.name)) { () throws(Errno) in
                let size = try folder.fd.status(of: entry.name).size
                if !dryRun { try folder.fd.unlink(entry.name) }
                return size
            }
            report.removed.append((digest, size))
        }
    }
}
