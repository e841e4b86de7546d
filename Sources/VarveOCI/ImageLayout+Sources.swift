import VarveFormats
package import VarveSystem
private import SystemPackage

/// What a layout knows of images that came from elsewhere: `images/` of a store. See Docs/on-disk-format.md, "Pulled images".
extension ResolvedImage {
    /// Whether its layers need not be there: it came from elsewhere, and has no tag.
    package var isOutline: Bool {
        path.first.map { $0.referenceName == nil && $0.annotation(ImageLayout.SourcedEntry.sourceKey) != nil }
            ?? false
    }
}

extension Descriptor {
    /// Where the image came from, as containers-transports(5) names it; nil for one that is from here.
    package var source: String? { annotation(ImageLayout.SourcedEntry.sourceKey) }

    package func annotated(source: String?) -> Descriptor {
        annotated(ImageLayout.SourcedEntry.sourceKey, source)
    }
}

extension ImageLayout {
    /// An entry of `index.json` that says where its image came from.
    package struct SourcedEntry: Sendable {
        package var descriptor: Descriptor
        /// As containers-transports(5) names it.
        package var source: String
        /// When it was last asked for; nil where that cannot be read.
        package var used: Timestamp?
        /// Nil: its layers need not be there.
        package var tag: String?

        init?(_ entry: JSONValue) {
            guard let descriptor = try? Descriptor(entry, of: ""),
                let source = descriptor.annotation(Self.sourceKey)
            else { return nil }
            self.descriptor = descriptor
            self.source = source
            used = descriptor.annotation(Self.usedKey).flatMap(RFC3339.parse)
            tag = descriptor.referenceName
        }

        static let sourceKey = "varve.source"
        static let usedKey = "varve.used"
    }

    /// The images that came from elsewhere.
    package func sourcedEntries() throws(OCIError) -> [SourcedEntry] {
        try index().entries.compactMap { SourcedEntry($0) }
    }

    /// Writes down that images came from `source`. Those without a tag that came from there before make room.
    ///
    /// - Parameters:
    ///   - images: of which manifest and configuration are there.
    ///   - tagged: an image whose blobs are all there, and its tag; nil for none.
    ///   - used: when it was asked for.
    package func note(
        _ images: [Descriptor], tagged: (image: Descriptor, tag: String)? = nil, from source: String,
        used: Timestamp
    ) throws(OCIError) {
        func noted(_ image: Descriptor) -> Descriptor {
            image.annotated(Descriptor.referenceNameKey, nil).annotated(SourcedEntry.sourceKey, source)
                .annotated(SourcedEntry.usedKey, RFC3339.format(used))
        }
        if let tagged { try ImageReference.checkTag(tagged.tag) }
        try updateIndex { (index) throws(OCIError) in
            index.entries.removeAll { entry in
                SourcedEntry(entry).map { $0.source == source && $0.tag == nil } ?? false
            }
            index.entries += images.map { .object(noted($0).json) }
            if let tagged { index.tag(tagged.tag, noted(tagged.image)) }
        }
    }

    /// What of the image, or of the images, that a descriptor leads to the layout does not hold. What may not be distributed does not count.
    package func missingBlobs(below descriptor: Descriptor) throws(OCIError) -> [Descriptor] {
        try blobs(below: descriptor).filter(isMissing)
    }

    /// The blobs of the image, or of the images of an index, that a descriptor leads to: those that a document names, and then the document.
    /// Each document is read once, if it is here.
    private func blobs(below descriptor: Descriptor) throws(OCIError) -> [Descriptor] {
        var allowance = ReadingAllowance(self)
        var seen: Set<Digest> = []
        var blobs: [Descriptor] = []
        try addBlobs(below: descriptor, to: &blobs, &seen, &allowance)
        return blobs
    }

    private func addBlobs(
        below descriptor: Descriptor, to blobs: inout [Descriptor], _ seen: inout Set<Digest>,
        _ allowance: inout ReadingAllowance
    ) throws(OCIError) {
        guard seen.insert(descriptor.digest).inserted else { return }
        let isIndex = MediaType.isIndex(descriptor.mediaType)
        if holdsBlob(descriptor.digest), isIndex || MediaType.isManifest(descriptor.mediaType) {
            try checkCancellation()
            try allowance.take(descriptor)
            let document = try readDocument(descriptor)
            if isIndex {
                for entry in try ImageIndex(document, of: describe(descriptor)).entries.prefix(
                    Self.imageLimit)
                {
                    let entry = try Descriptor(entry, of: describe(descriptor))
                    // One level is what there is; deeper ones are copied or not by whoever copies.
                    if MediaType.isIndex(entry.mediaType) {
                        if seen.insert(entry.digest).inserted { blobs.append(entry) }
                    } else {
                        try addBlobs(below: entry, to: &blobs, &seen, &allowance)
                    }
                }
            } else {
                let manifest = try ImageManifest(document, of: describe(descriptor))
                blobs += manifest.layers + [manifest.config]
            }
        }
        blobs.append(descriptor)
    }

    /// Images of one index that are looked at.
    private static let imageLimit = 1000

    /// The layers of a manifest whose blobs the layout does not hold. What may not be distributed does not count.
    package func missingLayers(of manifest: ImageManifest) -> [Descriptor] {
        manifest.layers.filter(isMissing)
    }

    private func isMissing(_ blob: Descriptor) -> Bool {
        (try? LayerMediaType(blob.mediaType))?.isNondistributable != true && !holdsBlob(blob.digest)
    }

    /// An image that a bundle came from, with its layers; where those were never fetched, the form that it was converted to when it was
    /// fetched later, with the same layers.
    ///
    /// - Throws: `OCIError`: `notFound` if they are nowhere here.
    package func whole(_ image: ResolvedImage) throws(OCIError) -> ResolvedImage {
        let missing = missingLayers(of: image.manifest)
        guard let first = missing.first else { return image }
        let source = image.path.lazy.compactMap(\.source).first
        var allowance = ReadingAllowance(self)
        if let source {
            for entry in try sourcedEntries() where entry.source == source {
                try checkCancellation()
                guard (try? allowance.take(entry.descriptor)) != nil,
                    let other = try? self.image(at: [entry.descriptor]), other.diffIDs == image.diffIDs,
                    missingLayers(of: other.manifest).isEmpty
                else { continue }
                return other
            }
        }
        // What the name means may be another image by now.
        let pinned = source.flatMap { try? TransportReference(naming: $0) }.map { reference in
            reference.pinned(to: image.manifestDescriptor.digest) ?? reference
        }
        throw OCIError(
            .notFound,
            "the image layout \(path) lacks \(missing.count) of the \(image.layers.count) layers of the image \(image.manifestDescriptor.digest), which were never fetched",
            subject: BytePath("\(first.digest)"),
            remedy: pinned.map { .pullImage($0.description) } ?? .copyImageAgain)
    }

    /// Throws unless the layers of an image that is to get a tag are there, in a layout of images that came from elsewhere: nothing leads by
    /// name to an image that is not whole.
    func requireWhole(_ descriptor: Descriptor, for index: ImageIndex) throws(OCIError) {
        let sourced = index.entries.compactMap { SourcedEntry($0) }
        guard !sourced.isEmpty, MediaType.isManifest(descriptor.mediaType),
            let document = try? readDocument(descriptor),
            let manifest = try? ImageManifest(document, of: describe(descriptor))
        else { return }
        let missing = missingLayers(of: manifest)
        guard let first = missing.first else { return }
        // What cannot be read, or is more than one resolution reads, says nothing.
        var allowance = ReadingAllowance(self)
        var source: String?
        for entry in sourced where source == nil && entry.tag == nil {
            try checkCancellation()
            guard (try? allowance.take(entry.descriptor)) != nil,
                let document = try? readDocument(entry.descriptor),
                let below = try? ImageManifest(document, of: "")
            else { continue }
            if below.layers.contains(where: { $0.digest == first.digest }) { source = entry.source }
        }
        throw OCIError(
            .notFound,
            "the image layout \(path) lacks \(missing.count) of the \(manifest.layers.count) layers of the image, which were never fetched",
            subject: BytePath("\(first.digest)"), remedy: source.map { .pullImage($0) } ?? .copyImageAgain)
    }

    /// Stores bytes as they are, and returns their descriptor.
    package func put(_ bytes: [UInt8], mediaType: String, platform: Platform? = nil) throws(OCIError)
        -> Descriptor
    {
        let writer = try BlobWriter(self)
        try writer.write(bytes)
        try writer.finish()
        guard let blob = writer.blob else { preconditionFailure("a finished writer has a blob") }
        return Descriptor(
            mediaType: mediaType, digest: blob.digest, size: blob.size, platform: platform)
    }

    /// Copies a blob of another layout. Nothing is read that is here already and right.
    ///
    /// - Parameter onRead: gets the number of bytes that were read, and throws to give up.
    /// - Throws: `invalidInput` if its content is not what the descriptor says.
    package func adopt(
        _ descriptor: Descriptor, from other: ImageLayout, onRead: (Int) throws -> Void
    ) throws {
        let presence: Presence
        do throws(Errno) { presence = try hold(descriptor) } catch {
            throw OCIError.io("store the blob", blobPath(descriptor.digest), error)
        }
        if presence == .held { return }
        let file = try other.openBlob(descriptor)
        let writer = try BlobWriter(self, algorithm: descriptor.digest.algorithm)
        try unsafe withUnsafeTemporaryAllocation(byteCount: 1 << 18, alignment: 4096) { buffer in
            while true {
                let filled: Int
                do throws(Errno) { filled = try unsafe file.fd.readFull(into: buffer) } catch {
                    throw OCIError.io("read", other.blobPath(descriptor.digest), error)
                }
                if filled == 0 { break }
                try unsafe writer.write(UnsafeRawBufferPointer(rebasing: buffer[..<filled]))
                try onRead(filled)
            }
        }
        try writer.finish()
        guard writer.blob?.digest == descriptor.digest else {
            throw OCIError.invalid(
                "the blob \(descriptor.digest) is damaged: its content has another digest",
                subject: BytePath("\(descriptor.digest)"), remedy: .copyImageAgain)
        }
    }

    /// Copies all that a descriptor leads to, and at last the document itself. What may not be distributed is copied as far as `other` holds it.
    ///
    /// - Parameter onRead: gets the number of bytes that were read, and throws to give up.
    package func adoptAll(
        below descriptor: Descriptor, from other: ImageLayout, onRead: (Int) throws -> Void
    ) throws {
        let reading = other.beginReading()
        defer { extendLifetime(reading) }
        for blob in try other.blobs(below: descriptor) {
            racePoint("adopt-blob")
            guard other.holdsBlob(blob.digest) else {
                // It may have been collected since the caller looked: without it, this here would not be the image.
                if other.isMissing(blob) { try other.requireHeld(blob) }
                continue
            }
            try adopt(blob, from: other, onRead: onRead)
        }
    }

    /// Makes this layout, which is nobody else's yet, share blobs of another one, so that whoever copies into it finds them there. Those that
    /// cannot be shared are left out.
    package func share(_ blobs: [Descriptor], of other: ImageLayout) throws(OCIError) {
        for blob in blobs {
            guard (try? other.hold(blob)) == .held,
                let from = try? other.openBlobFolder(blob.digest.algorithm, for: .reading),
                let to = try? makeBlobFolder(blob.digest.algorithm)
            else { continue }
            let name = BytePath(blob.digest.hex)
            try? from.fd.link(name, to: to.fd, name)
        }
    }
}
