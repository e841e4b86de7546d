public import VarveLayers
public import Logging
public import VarveOCI
public import VarveStore
public import VarveSystem
import SystemPackage

/// The images of OCI image layouts: what can be done with them without a store.
///
///     let images = Images()
///     for tag in try await images.tags(of: "images") { print(try await images.stat("images:\(tag)").manifest.descriptor) }
///     try await images.tag("images:12", as: "bookworm")
///
/// An image is named `PATH[:TAG]`, a layout and a tag in it; `latest` by default. Calls wait, are cancelled and tell their
/// progress as those of `LayerStore`. Errors are `VarveError`: `notFound` if there is no such layout or
/// tag, `invalidInput` for one that is not valid, `usage` for a tag that can be none. The tag is set last, so that an error
/// leaves the images of a layout as they were.
public struct Images: Sendable {
    /// The threads and the memory of the calls.
    let workshop: Workshop
    let logger: Logger

    /// The images of any number of layouts.
    ///
    /// - Parameters:
    ///   - workshop: the threads and the memory of the calls.
    ///   - logger: takes warnings.
    public init(workshop: Workshop = .shared, logger: Logger = Logger(label: "varve")) {
        self.workshop = workshop
        self.logger = logger
    }

    // MARK: Layouts and tags

    /// Makes an empty image layout.
    ///
    /// - Parameter path: a directory that is empty, or yet to be made.
    /// - Throws: `VarveError`: `failed` if there is something in it.
    public func createLayout(_ path: BytePath) async throws {
        try await workshop.run { _ in
            try StoreGround.checkLayout(path)
            _ = try ImageLayout.create(at: path)
        }
    }

    /// Makes an image with no layers, and tags it.
    ///
    /// - Parameters:
    ///   - image: the layout and the tag of the new image.
    ///   - platform: what the image is for; by default this host.
    ///   - created: the time that the image bears; nil for now.
    /// - Returns: the descriptor of its manifest.
    @discardableResult
    public func create(
        _ image: BytePath, platform: Platform = .host, created: Timestamp? = nil
    ) async throws -> Descriptor {
        try await workshop.run { place in
            let reference = try ImageReference.locating(image)
            return try place.openLayout(reference.path).newImage(
                tag: reference.tag, platform: platform, created: created ?? .now())
        }
    }

    /// Gives an image one more tag in its layout. An image that bears the tag already loses it.
    public func tag(_ image: BytePath, as newTag: String) async throws {
        try await workshop.run { place in
            let reference = try ImageReference.locating(image)
            let layout = try place.openLayout(reference.path)
            try layout.tag(newTag, try layout.descriptor(of: reference))
        }
    }

    /// Takes a tag away. The blobs stay until they are collected.
    ///
    /// - Throws: `VarveError`: `notFound` if there is no such tag; `failed` for a tag that is part of an index.
    public func removeTag(_ image: BytePath) async throws {
        try await workshop.run { place in
            let reference = try ImageReference.locating(image)
            let layout = try place.openLayout(reference.path)
            guard try !layout.removeTag(reference.tag) else { return }
            throw try Self.isNotThere(reference, in: layout)
        }
    }

    /// Why a tag cannot be removed.
    package static func isNotThere(
        _ reference: ImageReference, in layout: ImageLayout
    ) throws -> any Error {
        if try layout.listTags().contains(reference.tag) {
            return VarveError(
                .failed,
                "the tag \"\(reference.tag)\" of the image layout \(layout.path) is part of an index, whose content does not change",
                subject: BytePath(reference.tag), remedy: .follow("remove the tag of the index")
            )
        }
        return OCIError(
            .notFound, "there is no tag \"\(reference.tag)\" in the image layout \(layout.path)",
            subject: BytePath(reference.tag), remedy: .listTags(layout.path))
    }

    /// The tags of a layout, in the order of its index.
    public func tags(of layout: BytePath) async throws -> [String] {
        try await workshop.run { place in try place.openLayout(layout).listTags() }
    }

    /// The manifest, the configuration and the history of an image.
    ///
    /// - Parameters:
    ///   - image: `PATH[:TAG]`: an image layout, and a tag in it.
    ///   - platform: which image of a multi-platform index; by default this host's.
    public func stat(_ image: BytePath, platform: Platform? = nil) async throws -> ImageStat {
        try await workshop.run { _ in
            try ImageStat(try ImageReference.locating(image), platform: platform)
        }
    }

    /// Removes the blobs of a layout that no tag leads to.
    ///
    /// - Parameters:
    ///   - layout: an image layout.
    ///   - store: the blobs of images that its bundles and snapshots came from stay, so that they can still be repacked.
    ///   - isDryRun: nothing is removed; the report says what would be.
    /// - Throws: `VarveError`: `failed` while somebody writes into the layout; `invalidInput` if a document cannot be read, and
    ///   nothing is removed then.
    public func collectGarbage(
        in layout: BytePath, keeping store: LayerStore? = nil, isDryRun: Bool = false
    ) async throws -> CollectionReport {
        try await workshop.run { place in
            try place.openLayout(layout).collectGarbage(
                dryRun: isDryRun,
                keeping: try store?.store.map { try place.bound($0).neededManifests() } ?? [])
        }
    }

    // MARK: Other places

    /// Brings an image from a registry, an archive or another tool into a layout. skopeo, which must be there, reaches it.
    ///
    /// - Parameters:
    ///   - source: the image, as containers-transports(5) names it, such as `docker://debian:12`.
    ///   - image: `PATH[:TAG]`: an image layout, which is made if it is not there, and the tag that the image gets.
    ///   - platform: which image of a multi-platform index; by default this host's.
    ///   - progress: told how many bytes of the layers have arrived.
    /// - Returns: the descriptor of its manifest.
    /// - Throws: `VarveError`: `notFound` if there is no such image; `unsupported` without skopeo; `invalidInput` if something has
    ///   another digest than it should.
    @discardableResult
    public func pull(
        _ source: String, as image: BytePath, platform: Platform? = nil,
        progress: @escaping ProgressHandler = { _ in }
    ) async throws -> Descriptor {
        try await workshop.run { [logger] place in
            let transfer = try ImageTransfer(
                of: try TransportReference(naming: source), platform: platform,
                cancellation: place.cancellation, logger: logger, progress: paced(progress))
            return try transfer.pull(as: try ImageReference.locating(image)).image.manifestDescriptor
        }
    }

    /// Copies an image of a layout to a registry, an archive or another tool. skopeo, which must be there, reaches it.
    ///
    /// - Parameters:
    ///   - image: `PATH[:TAG]`: an image layout, and a tag in it. Every blob of the image must be there.
    ///   - destination: where it goes, as containers-transports(5) names it.
    ///   - platform: the only image of a multi-platform index that is copied; nil for all of them.
    ///   - progress: told how many bytes of the layers are sent.
    /// - Returns: the descriptor of what was copied: a manifest, or an index.
    @discardableResult
    public func push(
        _ image: BytePath, to destination: String, platform: Platform? = nil,
        progress: @escaping ProgressHandler = { _ in }
    ) async throws -> Descriptor {
        try await workshop.run { [logger] place in
            try ImagePush(
                to: try TransportReference(naming: destination), platform: platform,
                cancellation: place.cancellation, logger: logger, progress: paced(progress)
            ).push(try ImageReference.locating(image))
        }
    }

    // MARK: Changing images

    /// Changes the configuration of an image, and the annotations of its manifest.
    ///
    /// - Parameters:
    ///   - image: `PATH[:TAG]`: an image layout, and a tag in it.
    ///   - edit: what is not set in it stays as it is.
    ///   - options: the tag and the history of the new image.
    @discardableResult
    public func configure(
        _ image: BytePath, _ edit: ImageConfigEdit, options: ImageEditing.Options = ImageEditing.Options()
    ) async throws -> ImageEditing.Result {
        try await change(image, options, createdBy: "varve config") { _, mutation, _ in
            var edit = edit
            if edit.created == nil { edit.created = options.sourceDate }
            edit.apply(to: &mutation)
            return nil
        }
    }

    /// Puts a file or a directory of this host into an image, as one layer.
    ///
    /// - Parameters:
    ///   - source: the file or directory.
    ///   - image: `PATH[:TAG]`: an image layout, and a tag in it.
    ///   - target: its path in the image.
    ///   - isOpaque: what the layers below have in `target`, a directory, is not seen any more.
    ///   - owners: how the owners of the files become those in the layer.
    ///   - compression: of the layer; nil for that of the topmost layer that is compressed.
    ///   - options: the tag and the history of the new image.
    @discardableResult
    public func insert(
        _ source: BytePath, into image: BytePath, at target: BytePath, isOpaque: Bool = false,
        owners: OwnerMapping = OwnerMapping(), compression: LayerCompression? = nil,
        options: ImageEditing.Options = ImageEditing.Options()
    ) async throws -> ImageEditing.Result {
        try await addLayer(to: image, owners, compression, options, createdBy: "varve insert") {
            try $0.insert(source, at: target, isOpaque: isOpaque)
        }
    }

    /// Deletes a path of an image, as one layer. The layers below keep what they hold.
    @discardableResult
    public func delete(
        _ target: BytePath, in image: BytePath, compression: LayerCompression? = nil,
        options: ImageEditing.Options = ImageEditing.Options()
    ) async throws -> ImageEditing.Result {
        try await addLayer(to: image, OwnerMapping(), compression, options, createdBy: "varve insert") {
            try $0.delete(target)
        }
    }

    /// Adds a tar archive to an image as its topmost layer, byte for byte.
    ///
    /// - Parameters:
    ///   - archive: an uncompressed archive. It is read as a whole: what could not be unpacked again does not become
    ///     a layer.
    ///   - image: `PATH[:TAG]`: an image layout, and a tag in it.
    ///   - compression: of the layer; nil for that of the topmost layer that is compressed.
    ///   - options: the tag and the history of the new image.
    /// - Throws: `VarveError`: `invalidInput` for such an archive.
    @discardableResult
    public func addLayer(
        _ archive: BytePath, to image: BytePath, compression: LayerCompression? = nil,
        options: ImageEditing.Options = ImageEditing.Options()
    ) async throws -> ImageEditing.Result {
        try await addLayer(to: image, OwnerMapping(), compression, options, createdBy: "varve raw add-layer")
        {
            try $0.add(archive: archive)
        }
    }

    private func addLayer(
        to image: BytePath, _ owners: OwnerMapping, _ compression: LayerCompression?,
        _ options: ImageEditing.Options, createdBy: String,
        _ write: @escaping @Sendable (Inserting) throws -> (Descriptor, DiffID)
    ) async throws -> ImageEditing.Result {
        try await change(image, options, createdBy: createdBy) { image, _, cancellation in
            var inserting = Inserting.Options(compression: compression ?? image.usualCompression)
            inserting.pack.latestTime = options.sourceDate
            inserting.pack.owners = owners
            return try write(
                Inserting(into: image.layout, options: inserting, cancellation: cancellation))
        }
    }

    private func change(
        _ image: BytePath, _ options: ImageEditing.Options, createdBy: String,
        _ change:
            @escaping @Sendable (ResolvedImage, inout ImageMutation, Cancellation) throws -> (
                Descriptor, DiffID
            )?
    ) async throws -> ImageEditing.Result {
        try await workshop.run { place in
            let cancellation = place.cancellation
            let reference = try ImageReference.locating(image)
            return try ImageEditing(options, cancellation: cancellation).edit(
                try place.resolve(image), tag: reference.tag, createdBy: createdBy
            ) { image, mutation in try change(image, &mutation, cancellation) }
        }
    }

    // MARK: Steps of an unpack

    /// Extracts the root file system of an image, and nothing else, on any file system. It cannot be repacked.
    ///
    /// - Parameters:
    ///   - image: `PATH[:TAG]`: an image layout, and a tag in it.
    ///   - platform: which image of a multi-platform index; by default this host's.
    ///   - rootfs: a directory that is empty, or yet to be made.
    ///   - options: its memory and its helper threads are cut down to what the workshop has free.
    ///   - progress: told how far the call is.
    @discardableResult
    public func unpackRootfs(
        of image: BytePath, platform: Platform? = nil, into rootfs: BytePath,
        options: Unpacking.Options = Unpacking.Options(), progress: @escaping ProgressHandler = { _ in }
    ) async throws -> Unpacking.Result {
        try await workshop.run { place in
            try Unpacking(
                driver: RootfsDriver(), options: place.fitted(options), cancellation: place.cancellation,
                logger: logger, progress: paced(progress)
            ).unpackRootfs(place.resolve(image, platform: platform), into: rootfs)
        }
    }

    /// The `config.json` of an image, as runtimes take it.
    ///
    /// - Parameters:
    ///   - image: `PATH[:TAG]`: an image layout, and a tag in it.
    ///   - platform: which image of a multi-platform index; by default this host's.
    ///   - rootfs: the root file system that the container is to have; users and groups by name are looked up in it. Without
    ///     one, such a user becomes root, and a warning says so.
    ///   - owners: the ranges of ids that the runtime is to map.
    /// - Returns: the bytes of the document.
    public func runtimeConfiguration(
        of image: BytePath, platform: Platform? = nil, rootfs: BytePath? = nil,
        owners: OwnerMapping = OwnerMapping()
    ) async throws -> [UInt8] {
        try await workshop.run { [logger] place in
            try Unpacking.runtimeConfiguration(
                of: place.resolve(image, platform: platform).config, rootfs: rootfs, owners: owners
            ) {
                logger.warning("\($0); root is taken instead")
            } onWarning: {
                logger.warning("\($0)")
            }
        }
    }
}
