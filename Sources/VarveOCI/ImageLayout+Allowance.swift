import VarveSystem

extension ImageLayout {
    /// What one resolution may yet read: many entries may refer to large documents, and each costs its size.
    struct ReadingAllowance {
        private let layout: ImageLayout
        private var entries = ImageLayout.maximumEntries
        private var bytes = Int64(ImageLayout.indexLimit)

        init(_ layout: ImageLayout) { self.layout = layout }

        /// Before a document is read.
        mutating func take(_ document: Descriptor) throws(OCIError) {
            // Sizes are not negative.
            guard document.size <= bytes else {
                throw .invalid(
                    "what leads to the image in the image layout \(layout.path) has more than "
                        + "\(ImageLayout.indexLimit) bytes together")
            }
            bytes -= document.size
        }

        /// - Parameter depth: how many indexes lead to these entries.
        mutating func take(entries count: Int, depth: Int) throws(OCIError) {
            guard depth <= ImageLayout.maximumIndexDepth else {
                throw .invalid(
                    "the indexes in the image layout \(layout.path) are nested more than "
                        + "\(ImageLayout.maximumIndexDepth) levels deep"
                )
            }
            guard count <= entries else {
                throw .invalid(
                    "the indexes in the image layout \(layout.path) have more than \(ImageLayout.maximumEntries) entries"
                )
            }
            entries -= count
        }
    }
}
