import Synchronization

/// How long archives may go on: what is left of it for one reader, or for several together, in any threads. They are stopped
/// exactly if all that they read is more.
package final class TarAllowance: Sendable {
    private let size: Atomic<Int64>
    private let entries: Atomic<Int64>

    /// - Parameters:
    ///   - size: bytes of the archives, of the holes of their sparse files, and of what is made that they do not list
    ///     (`TarReader.countUnlisted`): no fewer than they unpack to.
    ///   - entries: entries of the archives, and files made that they do not list.
    package init(size: Int64 = .max, entries: Int64 = .max) {
        self.size = Atomic(size)
        self.entries = Atomic(entries)
    }

    func take(bytes count: Int64) throws(TarError.Reason) {
        if !Self.take(count, of: size) { throw .tooLarge }
    }

    func takeEntry() throws(TarError.Reason) {
        if !Self.take(1, of: entries) { throw .tooManyEntries }
    }

    /// False, and nothing is taken, if fewer are left.
    private static func take(_ count: Int64, of left: borrowing Atomic<Int64>) -> Bool {
        var now = left.load(ordering: .relaxed)
        while count <= now {
            let (isTaken, found) = left.weakCompareExchange(
                expected: now, desired: now - count, ordering: .relaxed)
            if isTaken { return true }
            now = found
        }
        return false
    }
}
