import Logging
import SystemPackage
import VarveBtrfs
package import VarveOCI
package import VarveSystem

extension Unpacking {
    /// Unpacks an image that is not in a layout here. Its layers are fetched only if the driver does not have them all.
    ///
    /// - Parameters:
    ///   - transfer: how the image is reached.
    ///   - store: where what was fetched stays; nil for nowhere.
    /// - Returns: how much was there, and the image.
    package func unpack(
        _ transfer: ImageTransfer, keepingIn store: SnapshotStore?, into bundle: BytePath
    ) throws -> (result: Result, image: ResolvedImage) {
        let images = try store?.images()
        let outline = try transfer.outline(known: images)
        guard let images else {
            // It goes at the end, with all that was fetched into it.
            let place = try TransferPlace(near: nil, cancellation: transfer.cancellation)
            defer { extendLifetime(place) }
            return try unpack(outline, of: transfer, knownIn: place.layout, into: bundle) {
                try transfer.copy(into: place, outline)
            }
        }
        let unpacked = try unpack(outline, of: transfer, knownIn: images, into: bundle) {
            try transfer.copy(into: images, tag: nil, outline)
        }
        if let store, !store.seesBundle(bundle) { try transfer.keepForBundle(unpacked.image, in: images) }
        return unpacked
    }

    private func unpack(
        _ outline: ImageTransfer.Outline?, of transfer: ImageTransfer, knownIn layout: ImageLayout,
        into bundle: BytePath, fetch: () throws -> ResolvedImage
    ) throws -> (result: Result, image: ResolvedImage) {
        guard let outline else {
            let image = try fetch()
            return (try unpack(image, into: bundle), image)
        }
        let known = try transfer.keep(outline, in: layout)
        var image = known
        let result = try withoutActuallyEscaping(fetch) { fetch in
            try unpack(known, into: bundle) {
                image = try fetch()
                return image
            }
        }
        return (result, image)
    }
}

extension SnapshotStore {
    /// Whether a collection sees that a bundle is there: it is a subvolume of the file system that holds the store.
    fileprivate func seesBundle(_ bundle: BytePath) -> Bool {
        guard let opened = try? FileDescriptor.workingDirectory.openDirectory(bundle),
            (try? opened.fd.isSubvolume()) == true
        else { return false }
        let uuids = try? (opened.fd.fileSystemUUID(), directory.fd.fileSystemUUID())
        return uuids.map { $0 == $1 } ?? false
    }
}

extension ImageTransfer {
    /// Gives an image a tag in the layout that nothing else takes away: a bundle that a collection does not see is repacked into the image.
    fileprivate func keepForBundle(_ image: ResolvedImage, in images: ImageLayout) throws {
        let manifest = image.manifestDescriptor
        guard try images.missingBlobs(below: manifest).isEmpty else { return }
        let hex = manifest.digest.hex.prefix(12)
        let whole = "\(origin.layoutTag)-\(hex)"
        let tag = ImageReference.isValidTag(whole) ? whole : "bundle-\(hex)"
        try images.note([], tagged: (manifest, tag), from: origin.description, used: .now())
        logger.info("the image is kept as \(images.path):\(tag), as a collection does not see the bundle")
    }
}
