package import VarveOCI
package import VarveSystem
import SystemPackage

/// `images/`: the layout of what was brought from registries and archives. See Docs/on-disk-format.md, "Pulled images".
extension SnapshotStore {
    /// Where pulled images are.
    package var imagesPath: BytePath { path.appending(StoreLayout.images) }

    /// The layout, if there is one.
    package func imagesIfPresent() throws -> ImageLayout? {
        let isThere = try attempt("look at", imagesPath) { () throws(Errno) in
            // Without this file it is what a process left that was killed while it made the layout.
            let file = StoreLayout.images.appending(ImageLayout.versionName)
            return try directory.fd.statusIfPresent(of: file) != nil
        }
        return isThere ? try ImageLayout(opening: imagesPath, cancellation: locks.cancellation) : nil
    }

    /// The layout, made if there is none.
    package func images() throws -> ImageLayout {
        try ImageLayout.openOrCreate(at: imagesPath, locks.cancellation).layout
    }
}

extension ImageTransfer {
    /// Brings the whole image into the store's layout.
    package func pull(into store: SnapshotStore) throws -> (image: ResolvedImage, name: ImageReference) {
        let images = try store.images()
        let name = try ImageReference(path: store.imagesPath, tag: origin.layoutTag)
        return (try pull(into: images, tag: name.tag), name)
    }

    /// Brings the whole image into a layout, which is made if it is not there.
    package func pull(as name: ImageReference) throws -> (image: ResolvedImage, name: ImageReference) {
        let tag = try name.tagToChange()
        if let layout = try ImageLayout.openIfPresent(name.path, cancellation) {
            return (try pull(into: layout, tag: tag), name)
        }
        try StoreGround.checkLayout(name.path)
        // The layout is made when the image is there: nothing is left of it if that cannot be had, and nothing of others is in it.
        let outline = try outline(known: nil)
        let place = try TransferPlace(near: name.path.directory, cancellation: cancellation)
        let fetched = try copy(into: place, outline)
        let image = try ImageLayout.changeOrCreate(at: name.path, cancellation) { layout in
            try keep(fetched, in: layout, tag: tag, outline)
        }
        return (image, name)
    }

    private func pull(into layout: ImageLayout, tag: String) throws -> ResolvedImage {
        let outline = try outline(known: layout)
        if let outline, let there = try? layout.resolve(tag),
            there.manifestDescriptor.digest == outline.descriptor.digest,
            try layout.missingBlobs(below: there.manifestDescriptor).isEmpty
        {
            return there
        }
        return try copy(into: layout, tag: tag, outline)
    }
}
