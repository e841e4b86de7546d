import SystemCalls

/// The names that the layer in hand has written, so that none of its whiteouts deletes them.
///
/// A name is kept as its directory's inode number and 128 bits of keyed hash: about 40 bytes each however long it is,
/// and no archive can be made to collide, since the keys are drawn anew in each process.
struct WrittenNames {
    private struct Key: Hashable {
        var directory: UInt64
        var first: UInt64
        var second: UInt64
    }

    private var keys: Set<Key> = []
    /// Nothing lies below the layer: no whiteout can delete anything, and nothing need be remembered.
    private let isBottom: Bool

    init(isBottom: Bool) { self.isBottom = isBottom }

    mutating func insert(_ name: BytePath, in directory: UInt64) {
        if !isBottom { keys.insert(key(name, directory)) }
    }

    func contains(_ name: BytePath, in directory: UInt64) -> Bool {
        isBottom || keys.contains(key(name, directory))
    }

    private func key(_ name: BytePath, _ directory: UInt64) -> Key {
        var first = Hasher()
        first.combine(0 as UInt8)
        first.combine(name)
        var second = Hasher()
        second.combine(1 as UInt8)
        second.combine(name)
        return Key(
            directory: directory, first: UInt64(bitPattern: Int64(first.finalize())),
            second: UInt64(bitPattern: Int64(second.finalize())))
    }
}
