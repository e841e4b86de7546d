import VarveFormats
public import VarveOCI
public import VarveSystem

/// Makes a new image of another one in the same layout, without a bundle: another configuration, or one more layer.
public struct ImageEditing: Sendable {
    /// How an image is changed.
    public struct Options: Sendable {
        /// The tag that the new image gets; nil for the tag of the image that it is made of, which then names the new one.
        public var tag: String?
        /// What the history of the new image says of the change; nil adds no entry.
        public var history: Repacking.History? = Repacking.History()
        /// `SOURCE_DATE_EPOCH`: the time of creation where the history gives none.
        public var sourceDate: Timestamp?
        /// The time of creation where nothing else says it; nil for the time at which the image is made.
        package var now: Timestamp?

        /// A new layer leaves when the image was made, as with umoci.
        package var keepsCreated = false
        /// The history names the author of the image where it names none.
        package var namesAuthor = true

        /// Options with which the history says what was done and when.
        public init(tag: String? = nil) { self.tag = tag }

        package init(
            tag: String? = nil, history: Repacking.History?, sourceDate: Timestamp? = nil,
            now: Timestamp? = nil
        ) {
            self.tag = tag
            self.history = history
            self.sourceDate = sourceDate
            self.now = now
        }
    }

    /// The image that was made.
    public struct Result: Sendable, CustomStringConvertible {
        /// Nil if no layer was added.
        public var layer: Descriptor?
        /// The descriptor of the new manifest.
        public var manifest: Descriptor
        /// The tag of the new image.
        public var tag: String

        package init(layer: Descriptor? = nil, manifest: Descriptor, tag: String) {
            self.layer = layer
            self.manifest = manifest
            self.tag = tag
        }

        /// The tag and the digest of the manifest, and of a new layer its digest and its size in bytes.
        public var description: String {
            "\(tag): \(manifest.digest)" + (layer.map { ", layer \($0.digest) of \($0.size) bytes" } ?? "")
        }
    }

    /// A change: it may change the image, and returns the layer that it has written, nil for none.
    package typealias Change = (ResolvedImage, inout ImageMutation) throws -> (Descriptor, DiffID)?

    private let options: Options
    private let cancellation: Cancellation

    package init(_ options: Options = Options(), cancellation: Cancellation = Cancellation()) {
        self.options = options
        self.cancellation = cancellation
    }

    /// Changes an image, says so in its history, and tags what comes out. The tag comes last: an error leaves the layout as
    /// it was.
    ///
    /// - Parameters:
    ///   - tag: that of the image, which the new one gets unless the options name another.
    ///   - createdBy: what the history calls the change, where the options do not.
    /// - Throws: `OCIError`: `usage` for a tag that is not valid; and what `change` throws.
    package func edit(
        _ image: ResolvedImage, tag: String, createdBy: String, change: Change
    ) throws -> Result {
        let newTag = options.tag ?? tag
        try ImageReference.checkTag(newTag)
        return try image.layout.change { layout in
            try layout.beginWriting()
            try layout.requireHeld(image.manifestDescriptor)
            var mutation = try ImageMutation(image)
            let added = try change(image.within(layout), &mutation)
            let created = options.history?.created ?? options.sourceDate ?? options.now ?? .now()
            var entry = options.history.map { history in
                HistoryEntry(
                    created: RFC3339.format(created), createdBy: history.createdBy ?? createdBy,
                    author: history.author ?? (options.namesAuthor ? mutation.config["author"]?.string : nil),
                    comment: history.comment)
            }
            if let (layer, diffID) = added {
                try mutation.append(layer: layer, diffID: diffID, history: entry)
                if !options.keepsCreated { mutation.setCreated(created) }
            } else if entry != nil {
                entry?.isEmptyLayer = true
                if let entry { mutation.append(history: entry) }
            }
            let manifest = try mutation.commit(to: layout)
            try cancellation.check()
            // What others made of the same image meanwhile would be lost.
            try layout.tag(
                newTag, manifest,
                replacing: image.path.first.flatMap { $0.referenceName == newTag ? $0 : nil })
            return Result(layer: added?.0, manifest: manifest, tag: newTag)
        }
    }
}
