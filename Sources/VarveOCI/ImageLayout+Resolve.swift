import VarveFormats
package import VarveSystem

extension ImageLayout {
    /// Indexes in indexes deeper than this are refused; image-spec names no limit, and real images have one
    /// level.
    static let maximumIndexDepth = 8
    /// Entries of indexes that one resolution looks at.
    static let maximumEntries = 100_000

    /// A way from `index.json` down to something that is no index.
    private struct Leaf {
        var path: [Descriptor]
        var descriptor: Descriptor
        /// Which entry of `index.json` it lies below.
        var root: Int

        /// What on the way has the tag, else the beginning of the way.
        func entry(tagged tag: String) -> Descriptor {
            path.first { $0.referenceName.map { sameBytes($0, tag) } ?? false } ?? path.first ?? descriptor
        }
    }

    /// Finds the image that a reference names.
    ///
    /// A tag is looked up in `index.json`, then in the indexes nested in it. Among several manifests the
    /// platform decides: `platform`, else that of the host; of equally good ones in one index the first
    /// (image-index.md). A tag with a single manifest is taken as it is, unless `platform` asks for another
    /// than it has. A reference without a tag names the image of a layout that has no tags, as other tools write such layouts.
    /// A reference with a digest names the manifest or index of that digest that an index of the layout refers to.
    ///
    /// Throws `notFound` without such a tag, digest or platform; `invalidInput` when a tag means several images, or
    /// for documents that are invalid.
    package static func resolve(
        _ reference: ImageReference, platform: Platform? = nil, cancellation: Cancellation = Cancellation()
    ) throws(OCIError) -> ResolvedImage {
        let layout = try of(reference, cancellation: cancellation)
        let (leaf, tag) = try layout.leaf(of: reference, platform: platform)
        return try layout.image(leaf, tag: tag)
    }

    /// Opens the layout of an image that is to be read.
    static func of(_ reference: ImageReference, cancellation: Cancellation = Cancellation())
        throws(OCIError) -> ImageLayout
    {
        do throws(OCIError) {
            return try ImageLayout(opening: reference.path, cancellation: cancellation)
        } catch {
            throw error.kind == .notFound ? reference.isMissing(error) : error
        }
    }

    /// Finds the manifest that a reference names as `resolve` does; it may be that of an artifact, which is no image.
    package func manifest(of reference: ImageReference, platform: Platform? = nil) throws(OCIError)
        -> Descriptor
    {
        try leaf(of: reference, platform: platform).leaf.descriptor
    }

    private func leaf(of reference: ImageReference, platform: Platform?) throws(OCIError) -> (
        leaf: Leaf, tag: String?
    ) {
        try leaf(of: reference, below: try index(), platform: platform)
    }

    private func leaf(
        of reference: ImageReference, below top: ImageIndex, platform: Platform?
    ) throws(OCIError) -> (leaf: Leaf, tag: String?) {
        let (ways, name, tag) = try ways(of: reference, below: top)
        return (try choose(from: leaves(below: ways), name: name, tag: tag, platform: platform), tag)
    }

    /// What a tag stands for, as it is: an index of images for several platforms stays one.
    ///
    /// - Throws: `notFound` if there is no such tag.
    package func descriptor(of reference: ImageReference) throws(OCIError) -> Descriptor {
        let top = try index()
        var found: [Descriptor] = []
        // By the tag first: an index may have very many entries.
        for entry in top.entries where ImageIndex.isTagged(entry, reference.tag) {
            if let descriptor = try? Descriptor(entry, of: "an index") { found.append(descriptor) }
        }
        if found.count == 1, let only = found.first { return only }
        let leaf = try leaf(of: reference, below: top, platform: nil)
        // It must be an image.
        _ = try image(leaf.leaf, tag: leaf.tag)
        return leaf.leaf.entry(tagged: reference.tag)
    }

    private func image(_ leaf: Leaf, tag: String?) throws(OCIError) -> ResolvedImage {
        try ResolvedImage(layout: self, tag: tag, path: leaf.path, manifestDescriptor: leaf.descriptor)
    }

    /// The ways to what a reference names, what to call it in a message, and the tag that it was found by.
    private func ways(of reference: ImageReference, below top: ImageIndex) throws(OCIError) -> (
        ways: [[Descriptor]], name: String, tag: String?
    ) {
        if let digest = reference.digest {
            return (try ways(to: digest, below: top), "the digest \(digest)", nil)
        }
        do throws(OCIError) {
            return (try roots(of: reference.tag, below: top), "the tag \"\(reference.tag)\"", reference.tag)
        } catch {
            guard error.kind == .notFound, !reference.isTagGiven, try listTags(below: top).isEmpty else {
                throw error
            }
            var ways = [[Descriptor]]()
            for entry in top.entries {
                ways.append([try Descriptor(entry, of: "\(path.appending(Self.indexName))")])
            }
            guard !ways.isEmpty else { throw error }
            return (ways, ways.count == 1 ? "the only entry" : "the index", nil)
        }
    }

    /// The way to what has the digest, by `index.json` or an index nested in it.
    private func ways(to digest: Digest, below top: ImageIndex) throws(OCIError) -> [[Descriptor]] {
        var way: [Descriptor]?
        func look(at entries: [JSONValue], below path: [Descriptor], _ what: String) throws(OCIError) {
            for entry in entries where way == nil && entry.object?["digest"]?.string == digest.description {
                way = path + [try Descriptor(entry, of: what)]
            }
        }
        try look(at: top.entries, below: [], "\(path.appending(Self.indexName))")
        if way == nil {
            try visitNestedIndexes(below: top) { (path, index, what) throws(OCIError) in
                try look(at: index.entries, below: path, what)
            }
        }
        guard let way else {
            throw .notFound(
                "no index of the image layout \(path) refers to the digest \(digest)",
                subject: BytePath("\(digest)"))
        }
        return [way]
    }

    /// Finds the image tagged `tag`; see `resolve(_:platform:)` of a reference.
    package func resolve(_ tag: String, platform: Platform? = nil) throws(OCIError) -> ResolvedImage {
        let roots = try roots(of: tag, below: try index())
        return try image(
            choose(from: leaves(below: roots), name: "the tag \"\(tag)\"", tag: tag, platform: platform),
            tag: tag)
    }

    /// Every image that the reference leads to, whatever its platform; without one, every image of the layout. What a layout
    /// does not hold is left out, as tools copy single platforms. Indexes are read now, manifests and configurations by
    /// `ImageSelection.forEach`.
    package func selection(of reference: ImageReference?) throws(OCIError) -> ImageSelection {
        var ways = [[Descriptor]]()
        var tag: String?
        if let reference {
            (ways, _, tag) = try self.ways(of: reference, below: try index())
        } else {
            for entry in try index().entries {
                ways.append([try Descriptor(entry, of: "\(path.appending(Self.indexName))")])
            }
        }
        return try selection(by: ways, tag: tag)
    }

    /// Every image that these ways lead to.
    func selection(by ways: [[Descriptor]], tag: String?) throws(OCIError) -> ImageSelection {
        var paths = [[Descriptor]]()
        var seen = Set<Digest>()
        for leaf in try leaves(below: ways)
        where MediaType.isManifest(leaf.descriptor.mediaType) && !Self.isAttestation(leaf.descriptor)
            && holdsBlob(leaf.descriptor.digest) && seen.insert(leaf.descriptor.digest).inserted
        {
            paths.append(leaf.path)
        }
        return ImageSelection(self, tag: tag, paths)
    }

    /// The ways to what bears the tag: in `index.json`, else in the indexes nested in it.
    private func roots(of tag: String, below top: ImageIndex) throws(OCIError) -> [[Descriptor]] {
        try ImageReference.checkTag(tag)
        var roots = [[Descriptor]]()
        for entry in try top.entries(named: tag, of: "\(path.appending(Self.indexName))") {
            roots.append([entry.descriptor])
        }
        if roots.isEmpty {
            try visitNestedIndexes(below: top) { (path, index, what) throws(OCIError) in
                for entry in try index.entries(named: tag, of: what) {
                    roots.append(path + [entry.descriptor])
                }
            }
        }
        guard !roots.isEmpty else {
            let tags = try listTags(below: top)
            let hint =
                tags.isEmpty
                ? "it has no tags at all"
                : "it has " + tags.prefix(10).map(shown).joined(separator: ", ")
                    + (tags.count > 10 ? " and \(tags.count - 10) more" : "")
            throw .notFound(
                "there is no tag \"\(tag)\" in the image layout \(path): \(hint)", subject: BytePath(tag))
        }
        return roots
    }

    /// The tags as `listTags` gives them, each with the ways to what bears it (`roots(of:below:)`). All indexes are read once. What is no
    /// valid descriptor is passed over.
    func taggedWays() throws(OCIError) -> [(tag: String, ways: [[Descriptor]])] {
        let top = try index()
        var result: [(tag: String, ways: [[Descriptor]])] = []
        var places: [ByteText: Int] = [:]
        func add(_ entries: [JSONValue], below path: [Descriptor], from first: Int) {
            for entry in entries {
                guard let tag = ImageIndex.referenceName(of: entry),
                    let descriptor = try? Descriptor(entry, of: "")
                else { continue }
                if let place = places[ByteText(tag)] {
                    // What `index.json` names, no nested index names.
                    if place >= first { result[place].ways.append(path + [descriptor]) }
                } else {
                    places[ByteText(tag)] = result.count
                    result.append((tag, [path + [descriptor]]))
                }
            }
        }
        add(top.entries, below: [], from: 0)
        let nested = result.count
        try visitNestedIndexes(below: top) { (path, index, _) in add(index.entries, below: path, from: nested)
        }
        return result
    }

    /// What a tag stands for, as it is.
    func descriptor(tagged tag: String, by ways: [[Descriptor]]) throws(OCIError) -> Descriptor {
        if ways.count == 1, ways[0].count == 1 { return ways[0][0] }
        let leaf = try choose(from: leaves(below: ways), name: "the tag \"\(tag)\"", tag: tag, platform: nil)
        return leaf.entry(tagged: tag)
    }

    /// The tags of `index.json` in its order, then those of nested indexes; each once.
    package func listTags() throws(OCIError) -> [String] { try listTags(below: try index()) }

    private func listTags(below top: ImageIndex) throws(OCIError) -> [String] {
        var tags = [String]()
        var seen = Set<ByteText>()
        func add(_ entries: [JSONValue]) {
            for entry in entries {
                if let name = ImageIndex.referenceName(of: entry), seen.insert(ByteText(name)).inserted {
                    tags.append(name)
                }
            }
        }
        add(top.entries)
        try visitNestedIndexes(below: top) { (_, index, _) in add(index.entries) }
        return tags
    }

    /// The indexes below `top`, which is `index.json`, in document order, each once. One whose blob the layout does not hold,
    /// or an entry that is no valid descriptor, is passed over: it is not what the caller looks for.
    func visitNestedIndexes(
        below top: ImageIndex, _ visit: ([Descriptor], ImageIndex, String) throws(OCIError) -> Void
    ) throws(OCIError) {
        var seen = Set<Digest>()
        var pending = [[Descriptor]]()
        var allowance = ReadingAllowance(self)
        func push(_ entries: [JSONValue], below path: [Descriptor]) throws(OCIError) {
            try allowance.take(entries: entries.count, depth: path.count)
            for entry in entries.reversed() {
                guard let type = entry.object?["mediaType"]?.string, MediaType.isIndex(type),
                    let descriptor = try? Descriptor(entry, of: ""), holdsBlob(descriptor.digest)
                else { continue }
                pending.append(path + [descriptor])
            }
        }
        try push(top.entries, below: [])
        while let path = pending.popLast(), let last = path.last {
            guard seen.insert(last.digest).inserted else { continue }
            try checkCancellation()
            let what = "the image index \(last.digest) in \(self.path)"
            try allowance.take(last)
            let index = try ImageIndex(try readDocument(last), of: what)
            try visit(path, index, what)
            try push(index.entries, below: path)
        }
    }

    /// Everything that is no index at or below the ends of `roots`, in document order.
    private func leaves(below roots: [[Descriptor]]) throws(OCIError) -> [Leaf] {
        var result = [Leaf]()
        var allowance = ReadingAllowance(self)
        for (number, root) in roots.enumerated() {
            var pending = [root]
            var seen = Set<Digest>()
            while let path = pending.popLast(), let last = path.last {
                guard MediaType.isIndex(last.mediaType) else {
                    result.append(Leaf(path: path, descriptor: last, root: number))
                    continue
                }
                guard !path.dropLast().contains(where: { $0.digest == last.digest }) else {
                    throw .invalid(
                        "the image index \(last.digest) in \(self.path) contains itself",
                        subject: BytePath("\(last.digest)"))
                }
                guard seen.insert(last.digest).inserted else { continue }
                try checkCancellation()
                let what = "the image index \(last.digest) in \(self.path)"
                try allowance.take(last)
                let entries = try ImageIndex(try readDocument(last), of: what).entries
                try allowance.take(entries: entries.count, depth: path.count)
                for entry in entries.reversed() { pending.append(path + [try Descriptor(entry, of: what)]) }
            }
        }
        return result
    }

    /// The one of `leaves` to take; `name` is what they were found by, for messages.
    private func choose(
        from leaves: [Leaf], name: String, tag: String?, platform: Platform?
    ) throws(OCIError) -> Leaf {
        let manifests = leaves.filter {
            MediaType.isManifest($0.descriptor.mediaType) && !Self.isAttestation($0.descriptor)
        }
        guard !manifests.isEmpty else {
            throw .invalid("\(name) of the image layout \(path) leads to no image: \(Self.describe(leaves))")
        }
        func same(_ leaves: [Leaf]) -> Bool {
            leaves.allSatisfy { $0.descriptor.digest == leaves[0].descriptor.digest }
        }

        /// An entry that does not say what it is for is asked itself.
        func platformOf(_ leaf: Leaf) throws(OCIError) -> Platform? {
            if let platform = leaf.descriptor.platform { return platform }
            return try image(leaf, tag: tag).platform
        }

        if same(manifests) {
            if let platform, let actual = try platformOf(manifests[0]),
                actual.distance(from: platform) == nil
            {
                throw .notFound(
                    "\(name) of the image layout \(path) is an image for \(actual), not for \(platform)",
                    subject: BytePath("\(platform)"))
            }
            return manifests[0]
        }

        let wanted = platform ?? .host
        var found = Set<String>()
        var unknown = [Leaf]()
        var best: [Int: (distance: Int, leaf: Leaf)] = [:]
        // Of entries that do not say what they are for: those are asked themselves, each once.
        var asked: [Digest: Platform?] = [:]
        // By the configuration: many may have the same one, which is read once.
        var configured: [BlobIdentity: (platform: Platform?, diffIDs: Int)] = [:]
        var allowance = ReadingAllowance(self)
        func ask(_ leaf: Leaf) throws(OCIError) -> Platform? {
            if let platform = leaf.descriptor.platform { return platform }
            if let known = asked[leaf.descriptor.digest] { return known }
            try checkCancellation()
            try allowance.take(leaf.descriptor)
            let manifest = try imageManifest(leaf.descriptor)
            let found: (platform: Platform?, diffIDs: Int)
            if let known = configured[BlobIdentity(manifest.config)] {
                found = known
            } else {
                try allowance.take(manifest.config)
                let config = try imageConfig(of: manifest)
                found = (config.platform, config.diffIDs.count)
                configured[BlobIdentity(manifest.config)] = found
            }
            try checkLayers(of: manifest, leaf.descriptor, diffIDs: found.diffIDs)
            asked[leaf.descriptor.digest] = .some(found.platform)
            return found.platform
        }
        for leaf in manifests {
            guard let actual = try ask(leaf) else {
                unknown.append(leaf)
                continue
            }
            found.insert("\(actual)")
            guard let distance = actual.distance(from: wanted) else { continue }
            if let other = best[leaf.root], other.distance <= distance { continue }
            best[leaf.root] = (distance, leaf)
        }
        let closest = best.values.map(\.distance).min()
        var chosen = best.sorted { $0.key < $1.key }.filter { $0.value.distance == closest }.map(\.value.leaf)
        if chosen.isEmpty, platform == nil, found.isEmpty { chosen = unknown }
        guard let first = chosen.first else {
            throw .notFound(
                "\(name) of the image layout \(path) has no image for \(wanted): it has "
                    + found.sorted().joined(separator: ", "), subject: BytePath("\(wanted)"),
                remedy: .choosePlatform)
        }
        guard same(chosen) else {
            let list = Set(chosen.map { "\($0.descriptor.digest)" }).sorted().joined(separator: ", ")
            throw .invalid(
                "\(name) of the image layout \(path) means several images (\(list))",
                remedy: .changeImage("give them different tags")
            )
        }
        return first
    }

    /// What BuildKit stores beside an image: a manifest for the platform unknown/unknown that holds no image.
    private static func isAttestation(_ descriptor: Descriptor) -> Bool {
        descriptor.platform.map { $0.os == "unknown" && $0.architecture == "unknown" } ?? false
    }

    /// What there is in place of an image.
    private static func describe(_ leaves: [Leaf]) -> String {
        if leaves.isEmpty { return "its index is empty" }
        let others = leaves.filter { !isAttestation($0.descriptor) }
        if others.isEmpty {
            return
                "its index holds nothing but attestations, which say how an image was built; copy the image itself as well"
        }
        let types = Set(others.map { "\"\(shown($0.descriptor.mediaType))\"" }).sorted()
        return "only to " + types.prefix(10).joined(separator: ", ") + (types.count > 10 ? " and others" : "")
    }
}
