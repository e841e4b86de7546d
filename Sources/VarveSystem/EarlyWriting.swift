package import SystemPackage

/// Puts the disk to work on a file while it is still being written, so that little is left to wait for at its end.
package struct EarlyWriting {
    /// Bytes after which the disk is asked to begin.
    private static let startSize = 8 << 20
    /// Bytes that it was not asked for yet.
    private var unwritten = 0

    package init() {}

    /// To be called when `count` bytes were written to `file`.
    package mutating func wrote(_ count: Int, to file: FileDescriptor) {
        unwritten += count
        start(file, from: Self.startSize)
    }

    /// Asks for what is left if it is at least `size` bytes.
    package mutating func start(_ file: FileDescriptor, from size: Int) {
        guard unwritten >= size else { return }
        file.startWriting()
        unwritten = 0
    }
}
