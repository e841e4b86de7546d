import VarveBtrfs
import Logging
import VarveSystem
import SystemPackage

extension SnapshotStore {
    /// Makes a chain visible: a read-only snapshot of `source`, a subvolume in `directory`. The caller holds the chain's
    /// lock and knows that the tree is exactly its layers.
    ///
    /// The snapshot is made under its name at once: a read-only subvolume cannot be renamed into another directory
    /// (EROFS; vfs_rename, fs/namei.c, asks for write permission to a directory that gets a new parent). Whatever was
    /// written to `source` is written out first, and snapshot and name are one transaction, which is on disk when the
    /// call returns (create_snapshot, fs/btrfs/ioctl.c): there is no chain, or a whole one.
    ///
    /// What stands under the name and is not to be trusted (`ChainFault`) makes room first.
    ///
    /// - Parameters:
    ///   - below: the chain of which `source` is a snapshot by way of others; nil: whatever it is a snapshot of.
    ///   - since: what `source` differs in from `below` has at least this transaction.
    func publish(
        _ name: ChainName, snapshotOf source: BytePath, in directory: FileDescriptor,
        below: SubvolumeUUID? = nil, since: UInt64 = 0
    ) throws -> OpenChain {
        let opened = try attempt("open", source) { () throws(Errno) in try directory.openDirectory(source) }
        try recordPublication(of: name, on: opened.fd)
        if try open(name.path, in: chainsDirectory) != nil { try delete(name.path, in: chainsDirectory.fd) }
        try removeStub(name.path, in: chainsDirectory)
        try opened.fd.snapshot(to: chainsDirectory.fd, name.path, readOnly: true)
        guard let chain = try chain(name) else {
            throw StoreError(
                .failed, "the chain \(name) vanished while it was published", subject: name.path,
                remedy: .follow("do not delete chains by hand"))
        }
        let made = try opened.fd.subvolumeInfo()
        if let below {
            recordTimes(of: chain, below: below, since: since)
        } else {
            recordTimes(of: chain, below: made.parentUUID, since: made.originTransaction)
        }
        logger.debug("published the chain \(name)")
        return chain
    }
}
