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
            try directory.fd.statusIfPresent(of: StoreLayout.images) != nil
        }
        return isThere ? try ImageLayout(opening: imagesPath, cancellation: locks.cancellation) : nil
    }

    /// The layout, made if there is none.
    package func images() throws -> ImageLayout {
        if let present = try imagesIfPresent() { return present }
        do throws(OCIError) {
            _ = try ImageLayout.create(at: imagesPath)
        } catch {
            // Somebody else makes it just now.
            if error.kind != .alreadyExists { throw error }
        }
        return try ImageLayout(opening: imagesPath, cancellation: locks.cancellation)
    }
}

extension ImageTransfer {
    /// Brings the whole image into the store's layout.
    package func pull(into store: SnapshotStore) throws -> (image: ResolvedImage, name: ImageReference) {
        let images = try store.images()
        let name = try ImageReference(path: store.imagesPath, tag: source.layoutTag)
        return (try pull(into: images, tag: name.tag), name)
    }

    /// Brings the whole image into a layout, which is made if it is not there.
    package func pull(as name: ImageReference) throws -> (image: ResolvedImage, name: ImageReference) {
        let tag = try name.tagToChange()
        if let layout = try Self.layoutIfPresent(name.path, cancellation) {
            return (try pull(into: layout, tag: tag), name)
        }
        let new = NewFileOrDirectory(at: name.path)
        let layout = try ImageLayout.create(at: name.path)
        do { return (try pull(into: layout, tag: tag), name) } catch {
            new?.remove()
            throw error
        }
    }

    private static func layoutIfPresent(_ path: BytePath, _ cancellation: Cancellation) throws(OCIError)
        -> ImageLayout?
    {
        do throws(OCIError) {
            return try ImageLayout(opening: path, cancellation: cancellation)
        } catch {
            if error.kind == .notFound { return nil }
            throw error
        }
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
