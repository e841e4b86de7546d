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
        return try unpack(outline, of: transfer, knownIn: images, into: bundle) {
            try transfer.copy(into: images, tag: nil, outline)
        }
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
