import VarveBtrfs
import VarveSystem
import SystemPackage

/// Why a subvolume of the store's is not to be trusted.
enum ChainFault: Hashable, CustomStringConvertible {
    /// Anybody may write to it at any moment.
    case writable
    /// It was written to after it was published.
    case changed
    /// It bears no record of its publication.
    case unrecorded
    /// It is not the subvolume that was published under its name, but a copy of it or something else.
    case copy
    /// It was made by btrfs receive.
    case received
    case noRootfs

    var description: String {
        switch self {
        case .writable: "it was made writable after it was published"
        case .changed: "it was changed after it was published"
        case .unrecorded: "it does not say what it was published as"
        case .copy:
            "it is not what was published under that name, but a copy (a snapshot, cp -a) or something else"
        case .received:
            "it is not what was published under that name, but a copy that was received (btrfs receive)"
        case .noRootfs: "it has no rootfs/"
        }
    }
}

extension ChainCatalog {
    /// Whether a chain is what was published under its name, as the file system's own records prove it: nothing of the tree is
    /// read. Nil if it is.
    func fault(of chain: OpenChain) throws -> ChainFault? {
        // As `cp -a` leaves it: what is said of the subvolume is said of the store then.
        guard try chain.subvolume.fd.isSubvolume() else { return .copy }
        guard let record = try PublicationRecord.read(from: chain.subvolume.fd, chain.name.path) else {
            return .unrecorded
        }
        guard record.name == chain.name, record.source == chain.info.parentUUID else {
            return chain.info.receivedUUID == nil ? .copy : .received
        }
        if let fault = try times.changeFault(chain.subvolume.fd, chain.info) { return fault }
        let rootfs = try attempt("look into", chain.name.path) { () throws(Errno) in
            try chain.subvolume.fd.statusIfPresent(of: StoreLayout.rootfs)
        }
        return rootfs?.isDirectory == true ? nil : .noRootfs
    }
}

extension PublishedTimesFolder {
    /// Whether a snapshot was written to after it was made.
    ///
    /// `otransid` is the transaction that made it, and the call that makes a snapshot returns only after that is committed, so
    /// whoever writes to it later does so in a later one. Every change of an inode puts its transaction into the
    /// subvolume's `ctransid` (btrfs_update_inode, btrfs_update_root_times; fs/btrfs), and making it read-only again does not
    /// take that back. A log that is replayed after a crash changes inodes without it, but not without a later generation
    /// of the tree; as taking a snapshot and a balance raise that too, it is then looked for inodes of a later transaction.
    ///
    /// Deduplication and defragmentation give inodes a later transaction and change nothing. An inode is unchanged if it has
    /// the change time that it was published with (`PublishedTimes`).
    ///
    /// - Parameter info: settled.
    func changeFault(_ subvolume: FileDescriptor, _ info: SubvolumeInfo) throws -> ChainFault? {
        if !info.isReadOnly { return .writable }
        let isChanged = info.changeTransaction > info.originTransaction
        guard isChanged || info.generation > info.originTransaction else { return nil }
        let later: [UInt64: Timestamp]
        do throws(BtrfsError) {
            later = try changeTimes(in: subvolume, since: info.originTransaction + 1)
        } catch {
            // Only root may search.
            if error.errno == .notPermitted { return isChanged ? .changed : nil }
            throw error
        }
        return holds(later, of: info.uuid) ? nil : .changed
    }
}
