import Synchronization
import VarveOCI
import VarveSystem

/// The digests of files with several names that were read: such a file is read once, not by each of its names, which are as many as
/// whoever made the tree likes. For all threads of a walk.
final class LinkedDigests: Sendable {
    private let known = Mutex<[FileIdentity: Digest]>([:])

    /// The digest of a regular file's content.
    ///
    /// - Parameter read: finds it out; called once for each file by each thread at the most.
    func digest(_ status: FileStatus, _ read: () throws(LayerError) -> Digest) throws(LayerError) -> Digest {
        guard status.linkCount > 1 else { return try read() }
        let file = FileIdentity(status)
        if let found = known.withLock({ $0[file] }) { return found }
        let digest = try read()
        known.withLock { $0[file] = digest }
        return digest
    }
}
