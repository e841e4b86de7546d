import VarveSystem

/// The names that the layer in hand has written, so that none of its whiteouts deletes them, and the directories that
/// whiteouts have gone through already.
///
/// A name is kept as its directory's inode number and 128 bits of keyed hash: about 40 bytes each however long it is,
/// and no archive can be made to collide, since the keys are drawn anew in each process.
final class WrittenNames {
    private struct Key: Hashable {
        var directory: UInt64
        var first: UInt64
        var second: UInt64
    }

    private var keys: Set<Key> = []
    /// Inode numbers of directories that hold nothing of lower layers any more, at any depth. A number that is used again is
    /// that of a directory which this layer made, so it stays true.
    private var settled: Set<UInt64> = []
    /// Nothing lies below the layer: no whiteout can delete anything, and nothing need be remembered.
    private let isBottom: Bool

    init(isBottom: Bool) { self.isBottom = isBottom }

    func insert(_ name: BytePath, in directory: UInt64) {
        if !isBottom { keys.insert(key(name, directory)) }
    }

    func contains(_ name: BytePath, in directory: UInt64) -> Bool {
        isBottom || keys.contains(key(name, directory))
    }

    /// Whether everything in the directory with this inode number, however deep, is this layer's: a whiteout need not go
    /// through it again. Without this, n whiteouts over n files would cost n × n.
    func isSettled(_ directory: UInt64) -> Bool { isBottom || settled.contains(directory) }

    /// Nothing of lower layers is left in the directory.
    func settle(_ directory: UInt64) { settled.insert(directory) }

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
