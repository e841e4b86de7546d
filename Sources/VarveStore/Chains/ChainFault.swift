import VarveBtrfs
import VarveSystem
import SystemPackage

/// Why a subvolume of the store's is not to be trusted.
enum ChainFault: Hashable, CustomStringConvertible {
    /// Anybody may write to it at any moment.
    case writable
    /// It was written to after it was published.
    case changed
    /// It was made by btrfs receive, and written to after that.
    case changedAfterReceipt
    /// It bears no record of its publication.
    case unrecorded
    /// It is not the subvolume that was published under its name, but a copy of it or something else.
    case copy
    /// It was made by btrfs receive.
    case received
    case noRootfs
    /// It is a directory of the subvolume that the store lies in, as `cp -a` of a store leaves it.
    case plainDirectory
    /// It is no directory.
    case file

    var description: String {
        switch self {
        case .writable: "it was made writable after it was published"
        case .changed: "it was changed after it was published"
        case .changedAfterReceipt: "it was changed after it was received"
        case .unrecorded: "it does not say what it was published as"
        case .copy:
            "it is not what was published under that name, but a copy (a snapshot, cp -a) or something else"
        case .received:
            "it is not what was published under that name, but a copy that was received (btrfs receive)"
        case .noRootfs: "it has no rootfs/"
        case .plainDirectory: "it is no subvolume but a plain directory, as cp -a of a store makes it"
        case .file: "it is no subvolume and no directory"
        }
    }
}

extension ChainCatalog {
    /// Whether a chain is what was published under its name, as the file system's own records prove it: nothing of the tree is
    /// read. Nil if it is.
    func fault(of chain: OpenChain) throws -> ChainFault? {
        // What is said of the subvolume is said of that of the store then.
        guard try chain.subvolume.fd.isSubvolume() else { return .plainDirectory }
        guard let record = try PublicationRecord.read(from: chain.subvolume.fd, chain.name.path) else {
            return .unrecorded
        }
        guard record.name == chain.name, record.source == chain.info.parentUUID else {
            return chain.info.receivedUUID == nil ? .copy : .received
        }
        if let fault = try times.changeFault(chain.subvolume.fd, chain.info, onlyRootfs: true) {
            return fault
        }
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
    /// - Parameters:
    ///   - info: settled.
    ///   - onlyRootfs: a delta counts from what is in `rootfs/`. What is said of the subvolume's root directory itself does not count
    ///     then, such as a property of btrfs: it is no part of an image, and `rootfs/` cannot become another directory
    ///     unless one of the two changes too. Otherwise what `btrfs receive` made is judged since its receipt: it is filled after it
    ///     was made.
    func changeFault(_ subvolume: FileDescriptor, _ info: SubvolumeInfo, onlyRootfs: Bool = false) throws
        -> ChainFault?
    {
        if !info.isReadOnly { return .writable }
        if !onlyRootfs, info.isReceived { return try receivedFault(subvolume, info) }
        let isChanged = info.changeTransaction > info.originTransaction
        guard isChanged || info.generation > info.originTransaction else { return nil }
        guard var later = try laterChangeTimes(subvolume, after: info.originTransaction) else {
            return isChanged ? .changed : nil
        }
        if onlyRootfs, (try? subvolume.protection(of: .current))?.isEmpty == true {
            later[TreeSearch.firstInode] = nil
        }
        return holds(later, of: info.uuid) ? nil : .changed
    }

    /// Whether a subvolume that `btrfs receive` made was written to since.
    ///
    /// `BTRFS_IOC_SET_RECEIVED_SUBVOL` is the receiver's last step: it puts its transaction and its time into the root item
    /// (`_btrfs_ioctl_set_received_subvol`, fs/btrfs/ioctl.c). What was written before may be given its extents in a later
    /// transaction, but has a change time from before. Nobody published it here, so there is nothing better to compare with: a clock
    /// that was set back can hide a change.
    private func receivedFault(_ subvolume: FileDescriptor, _ info: SubvolumeInfo) throws -> ChainFault? {
        guard max(info.changeTransaction, info.generation) > info.receiveTransaction,
            let later = try laterChangeTimes(subvolume, after: info.receiveTransaction)
        else { return nil }
        return later.values.allSatisfy { $0 <= info.receiveTime } ? nil : .changedAfterReceipt
    }

    /// The change times of all inodes that a later transaction changed; nil for others than root, who may not search.
    private func laterChangeTimes(_ subvolume: FileDescriptor, after transaction: UInt64) throws
        -> [UInt64: Timestamp]?
    {
        do throws(BtrfsError) {
            return try changeTimes(in: subvolume, since: transaction + 1)
        } catch {
            if error.errno == .notPermitted { return nil }
            throw error
        }
    }
}

extension SubvolumeInfo {
    /// Whether `btrfs receive` made it. It may be made and marked in one transaction. A snapshot of such a one keeps the mark, which is
    /// of an earlier transaction then: setting it is committed before the call returns.
    var isReceived: Bool { receivedUUID != nil && receiveTransaction >= originTransaction }
}
