import CBtrfs
package import SystemPackage
package import VarveSystem

/// Small files that are replaced as a whole, with less waiting for the disk than `writeFileDurably` needs on any file system: that waits for
/// the file and then for its name.
extension FileDescriptor {
    /// When a small file is on the disk.
    package enum FileDurability: Sendable {
        /// When the call returns.
        case now
        /// With whatever the file system commits next: a snapshot, or a change of a subvolume's flags.
        case withNextCommit
    }

    /// Replaces the file `name` in this directory, which is on a btrfs: after a crash the old content is there, or the new one.
    ///
    /// The content of a small file lies in its inode's metadata (`cow_file_range_inline`, fs/btrfs/inode.c). Once it was written out to
    /// there, in memory, each commit that has the new name has the content too. Of what is larger the content is synchronized first.
    /// After the rename, one fsync of the file puts both its content and its name on the disk: of an inode that got a name in the running
    /// transaction, the directories are logged with it (`btrfs_log_inode_parent`, `btrfs_log_all_parents`, fs/btrfs/tree-log.c).
    package func replaceFile(
        _ name: BytePath, with contents: [UInt8], mode: UInt32, durable: FileDurability
    ) throws(Errno) {
        try replaceFile(
            name, with: contents, mode: mode,
            settle: { (file) throws(Errno) in
                if varve_btrfs_is_inline(file.rawValue) != 1 { try file.synchronize() }
            },
            finish: { (file) throws(Errno) in if durable == .now { try file.synchronize() } })
    }
}
