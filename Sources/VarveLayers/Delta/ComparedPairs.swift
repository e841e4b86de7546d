import Synchronization
import VarveSystem

/// What was found of pairs of files that both have several names, for all threads of a walk: the names of a file are as many as whoever
/// made the trees likes, and its content is compared once, not by each of them.
final class ComparedPairs: Sendable {
    private struct Pair: Hashable {
        var old: FileIdentity
        var new: FileIdentity
    }

    private let known = Mutex<[Pair: Bool]>([:])
    private let isUsed: Bool

    /// - Parameter isUsed: false where inode numbers of the old tree tell nothing.
    init(_ isUsed: Bool) { self.isUsed = isUsed }

    /// Whether two files differ.
    ///
    /// - Parameter compare: finds it out; called once for each pair by each thread at the most.
    func differs(_ old: FileStatus, _ new: FileStatus, _ compare: () throws -> Bool) throws -> Bool {
        guard isUsed, old.linkCount > 1, new.linkCount > 1, !new.isDirectory else { return try compare() }
        let pair = Pair(old: FileIdentity(old), new: FileIdentity(new))
        if let found = known.withLock({ $0[pair] }) { return found }
        let result = try compare()
        known.withLock { $0[pair] = result }
        return result
    }
}
