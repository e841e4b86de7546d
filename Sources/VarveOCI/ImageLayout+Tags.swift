extension ImageLayout {
    /// What a tag stands for, as it is: an index of images for several platforms stays one.
    ///
    /// - Throws: `notFound` if there is no such tag.
    package func descriptor(of reference: ImageReference) throws(OCIError) -> Descriptor {
        var found: [Descriptor] = []
        for entry in try index().entries {
            guard let descriptor = try? Descriptor(entry, of: "an index"),
                descriptor.referenceName == reference.tag
            else { continue }
            found.append(descriptor)
        }
        if found.count == 1, let only = found.first { return only }
        let image = try Self.resolve(reference)
        return image.path.first { $0.referenceName == reference.tag } ?? image.path.first
            ?? image.manifestDescriptor
    }
}
