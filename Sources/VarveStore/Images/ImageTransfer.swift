package import Logging
import Synchronization
import VarveFormats
import VarveLayers
package import VarveOCI
package import VarveSystem
import SystemPackage

/// An image on its way from where another tool keeps it, by skopeo.
///
/// Manifest and configuration come first. They say which layers the image has, and so whether they are needed at all. Each of them, and each
/// blob that is copied, is kept only if it has the digest that it should.
package final class ImageTransfer {
    let source: TransportReference
    /// Where it comes from, as the layout of a store says it.
    let origin: TransportReference
    private let platform: Platform?
    let logger: Logger
    private let sizeLimit: Int64
    /// skopeo, and what it is told; made when they are needed.
    private var tools: (skopeo: Skopeo, reached: ReadableSource)?
    let cancellation: Cancellation
    private let progress: ProgressHandler

    /// - Parameters:
    ///   - platform: which image of several; nil for that of this host.
    ///   - sizeLimit: bytes that the image may have on its way, if it does not say how many it has.
    package init(
        of source: TransportReference, platform: Platform? = nil, sizeLimit: Int64 = UnpackLimits.defaultSize,
        cancellation: Cancellation = Cancellation(),
        logger: Logger, progress: @escaping ProgressHandler = { _ in }
    ) throws {
        self.source = source
        origin = source.located
        self.platform = platform
        self.cancellation = cancellation
        self.progress = progress
        self.logger = logger
        self.sizeLimit = sizeLimit
    }

    /// skopeo, and the image as it is told to find it.
    private func reach() throws -> (skopeo: Skopeo, image: TransportReference) {
        let made =
            try tools
            ?? (
                Skopeo(
                    for: source.transport, platform: platform, cancellation: cancellation, logger: logger),
                ReadableSource(source, cancellation)
            )
        tools = made
        return (made.skopeo, made.reached.reference)
    }

    /// Throws if more has come than may.
    private func check(_ bytes: Int64, limit: Int64) throws {
        guard bytes > limit else { return }
        throw VarveError(
            .invalidInput, "\"\(source)\" gives more than the \(limit) bytes that it may have",
            subject: BytePath(source.description),
            remedy: limit == sizeLimit ? .raiseLimit(.imageSize) : nil)
    }

    /// - Parameter image: by its digest; nil for the source as it is named.
    private func read(_ document: Skopeo.Document, of image: TransportReference?) throws -> [UInt8] {
        let (skopeo, reached) = try reach()
        return try skopeo.read(document, of: image ?? reached) {
            try check(skopeo.temporaryBytes(), limit: sizeLimit)
        }
    }

    /// What may arrive of an image whose layers have so many bytes: skopeo compresses what is not, and writes documents of its own. What
    /// a store of containers has may be larger uncompressed than its manifest says.
    private func allowance(_ planned: Int64?) -> Int64 {
        guard let planned, source.transport != .containersStorage else { return sizeLimit }
        return min(sizeLimit, planned.addingSaturating(planned / 64).addingSaturating(16 << 20))
    }

    /// What is known of an image before any layer of it is read.
    package struct Outline {
        package var descriptor: Descriptor
        package var manifest: ImageManifest
        package var config: ImageConfig
        fileprivate var manifestBytes: [UInt8]
        fileprivate var configBytes: [UInt8]
        /// The image by its digest, where its place finds it so: what the name means may change meanwhile.
        fileprivate var pinned: TransportReference?
    }

    // MARK: Manifest and configuration

    /// Reads manifest and configuration.
    ///
    /// - Parameter known: documents that it holds are not asked for.
    /// - Returns: nil where that would cost as much as the image, or names one only together with the image.
    package func outline(known: ImageLayout?) throws -> Outline? {
        // A daemon writes out the whole image for each question; a layout here is read without skopeo.
        if source.transport == .dockerDaemon || source.transport == .oci { return nil }
        var bytes = try read(.manifest, of: nil)
        var document = try Self.parse(bytes, source)
        var type = try Self.mediaType(of: document, source)
        try check(bytes, source.digest)
        var descriptor = Descriptor(mediaType: type, digest: Digest(of: bytes), size: Int64(bytes.count))
        var pinned = source.pinned(to: descriptor.digest)
        if MediaType.isIndex(type) {
            guard pinned != nil else { return nil }
            descriptor = try choose(ImageIndex(document, of: "\"\(source)\""))
            let chosen = source.pinned(to: descriptor.digest)
            pinned = chosen
            if let held = try? known?.readBlob(descriptor) {
                bytes = held
            } else {
                bytes = try read(.manifest, of: chosen)
                try check(bytes, descriptor.digest)
            }
            document = try Self.parse(bytes, source)
            type = try Self.mediaType(of: document, source)
        }
        let manifest = try ImageManifest(document, of: "the manifest of \"\(source)\"")
        guard MediaType.isConfig(manifest.config.mediaType) else {
            throw VarveError(
                .invalidInput, "\"\(source)\" is an artifact, not a container image",
                subject: BytePath(source.description))
        }
        let configBytes: [UInt8]
        if let held = try? known?.readBlob(manifest.config) {
            configBytes = held
        } else {
            configBytes = try read(.configuration, of: pinned)
            try check(configBytes, manifest.config.digest)
        }
        let config = try ImageConfig(
            try Self.parse(configBytes, source), of: "the configuration of \"\(source)\"")
        guard config.diffIDs.count == manifest.layers.count else {
            throw VarveError(
                .invalidInput,
                "the manifest of \"\(source)\" has \(manifest.layers.count) layers, but its configuration has \(config.diffIDs.count) \"diff_ids\"; the two must be equal",
                subject: BytePath(source.description))
        }
        return Outline(
            descriptor: descriptor, manifest: manifest, config: config, manifestBytes: bytes,
            configBytes: configBytes, pinned: pinned)
    }

    private func check(_ bytes: [UInt8], _ digest: Digest?) throws {
        guard let digest, Digest(of: bytes, algorithm: digest.algorithm) != digest else { return }
        throw VarveError(
            .invalidInput, "what \"\(source)\" gives for the digest \(digest) has another one",
            subject: BytePath("\(digest)"), remedy: .tryAgain)
    }

    private static func parse(_ bytes: [UInt8], _ source: TransportReference) throws -> JSONValue {
        do throws(JSONSyntaxError) { return try JSONValue(parsing: bytes) } catch {
            throw VarveError(
                .invalidInput,
                "the manifest or the configuration of \"\(source)\" is not valid JSON: \(error)",
                subject: BytePath(source.description))
        }
    }

    /// OCI documents need not say what they are.
    private static func mediaType(of document: JSONValue, _ source: TransportReference) throws -> String {
        if let type = document.object?["mediaType"]?.string, !type.isEmpty { return type }
        return document.object?["manifests"] == nil ? MediaType.ociManifest : MediaType.ociIndex
    }

    private func choose(_ index: ImageIndex) throws -> Descriptor {
        let wanted = platform ?? .host
        let images = index.entries.compactMap { try? Descriptor($0, of: "\"\(source)\"") }.filter {
            MediaType.isManifest($0.mediaType) && $0.platform != nil
        }
        var best: (distance: Int, image: Descriptor)?
        for image in images {
            guard let distance = image.platform?.distance(from: wanted),
                best.map({ distance < $0.distance }) ?? true
            else { continue }
            best = (distance, image)
        }
        if let best { return best.image }
        let found = Set(images.compactMap { $0.platform?.description }).subtracting(["unknown/unknown"])
        throw VarveError(
            .notFound,
            "\"\(source)\" has no image for \(wanted): it has "
                + (found.isEmpty
                    ? "none"
                    : found.sorted().prefix(20).map { BytePath.excerpt($0.utf8) }.joined(separator: ", ")),
            subject: BytePath("\(wanted)"), remedy: .choosePlatform)
    }

    // MARK: Layers

    /// Brings the whole image into a layout.
    ///
    /// - Parameters:
    ///   - tag: the tag that it gets there; nil for none: it then stands in the layout as one that came from here.
    ///   - outline: what is known of it; the image must be that one.
    package func copy(into layout: ImageLayout, tag: String?, _ outline: Outline?) throws -> ResolvedImage {
        let place = try TransferPlace(near: layout.path, cancellation: cancellation)
        let fetched = try fetch(into: place, sharing: layout, outline)
        return try layout.change { layout in try keep(fetched, in: layout, tag: tag, outline) }
    }

    /// Copies an image that was fetched into a layout.
    func keep(_ fetched: ResolvedImage, in layout: ImageLayout, tag: String?, _ outline: Outline?) throws
        -> ResolvedImage
    {
        for blob in fetched.layers + [fetched.manifest.config, fetched.manifestDescriptor] {
            try layout.adopt(blob, from: fetched.layout) { _ in try cancellation.check() }
        }
        let image = fetched.manifestDescriptor.annotated(Descriptor.referenceNameKey, nil)
        var untagged = tag == nil ? [image] : []
        if let outline, outline.descriptor.digest != image.digest,
            tag == nil || outline.manifest.layers.allSatisfy({ layout.holdsBlob($0.digest) })
        {
            // In another form than there: what is there is kept too, so that it is known when it is seen again. In a layout of the
            // caller's only with all that it names: containers-storage shows a manifest whose layers it has in another form.
            untagged.append(try put(outline, into: layout))
        }
        try layout.note(untagged, tagged: tag.map { (image, $0) }, from: origin.description, used: .now())
        return try layout.image(at: [image.annotated(source: origin.description)])
    }

    /// Brings the whole image to a place of its own.
    package func copy(into place: TransferPlace, _ outline: Outline?) throws -> ResolvedImage {
        try fetch(into: place, sharing: nil, outline)
    }

    /// Puts what is known of an image into a layout, where it can be found again.
    package func keep(_ outline: Outline, in layout: ImageLayout) throws -> ResolvedImage {
        let image = try put(outline, into: layout)
        let known = try layout.sourcedEntries().filter { $0.source == origin.description && $0.tag == nil }
        // What it was converted to when its layers were fetched stays beside it.
        let others = known.contains { $0.descriptor.digest == image.digest } ? known.map(\.descriptor) : []
        try layout.note(
            others.filter { $0.digest != image.digest } + [image], from: origin.description, used: .now())
        // The bundle that it becomes says where its layers are to be had.
        return try layout.image(at: [image.annotated(source: origin.description)])
    }

    private func put(_ outline: Outline, into layout: ImageLayout) throws -> Descriptor {
        _ = try layout.put(outline.configBytes, mediaType: outline.manifest.config.mediaType)
        _ = try layout.put(outline.manifestBytes, mediaType: outline.descriptor.mediaType)
        return outline.descriptor
    }

    private func fetch(
        into place: TransferPlace, sharing layout: ImageLayout?, _ outline: Outline?
    ) throws -> ResolvedImage {
        if source.transport == .oci {
            return try ImageLayout.resolve(
                ImageReference.locating(BytePath(source.name)), platform: platform, cancellation: cancellation
            )
        }
        var planned = Int64.max
        if let outline {
            let layers = outline.manifest.layers
            if let layout { try place.layout.share(layers, of: layout) }
            let left = layers.filter { !place.layout.holdsBlob($0.digest) }
            planned = left.lazy.map(\.size).saturatingSum()
            progress(
                .planned(layersInPlace: layers.count - left.count, layers: layers.count, bytes: planned))
        }
        let before = place.bytes()
        let limit = allowance(outline.map { _ in planned })
        let (skopeo, reached) = try reach()
        try skopeo.copy(
            [BytePath((outline?.pinned ?? reached).description), place.reference], "fetch", source
        ) { _ in
            let arrived = place.bytes() - before
            progress(.read(bytes: max(0, min(arrived, planned))))
            try check(arrived, limit: limit)
            try check(skopeo.temporaryBytes(), limit: sizeLimit)
        }
        let image = try ImageLayout.resolve(
            ImageReference(path: place.layout.path, tag: TransferPlace.tag), platform: platform,
            cancellation: cancellation)
        guard outline.map({ $0.config.diffIDs == image.diffIDs }) ?? true else {
            throw VarveError(
                .invalidInput, "\"\(source)\" has other layers than its configuration says",
                subject: BytePath(source.description), remedy: .tryAgain)
        }
        return image
    }
}
