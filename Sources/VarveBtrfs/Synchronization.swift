import CBtrfs
import CVarveBtrfsUtil
import Glibc
import VarveSystem
package import SystemPackage

extension FileDescriptor {
    /// Returns when the running transaction is on disk (`BTRFS_IOC_START_SYNC`, `BTRFS_IOC_WAIT_SYNC`). Data that is
    /// still to be written is not part of it.
    package func commitTransaction() throws(BtrfsError) {
        var transaction: UInt64 = 0
        if unsafe varve_btrfs_start_sync(rawValue, &transaction) == 0,
            varve_btrfs_wait_sync(rawValue, transaction) == 0
        {
            return
        }
        // EINVAL: the kernel does not know the transaction any more or not yet, because a commit ends just now
        // (btrfs_wait_for_commit in fs/btrfs/transaction.c). syncfs(2) writes more, and waits for all of it.
        let reason = Errno(rawValue: errno)
        guard reason == .invalidArgument else { throw BtrfsError(.synchronize, self, errno: reason) }
        do throws(Errno) {
            try synchronizeFileSystem()
        } catch {
            throw BtrfsError(.synchronize, self, errno: error)
        }
    }

    /// The ids of subvolumes that are deleted and that the cleaner has not freed yet. Needs `CAP_SYS_ADMIN`.
    package func deletedSubvolumes() throws(BtrfsError) -> [UInt64] {
        var ids: UnsafeMutablePointer<UInt64>?
        var count = 0
        guard unsafe btrfs_util_deleted_subvolumes_fd(rawValue, &ids, &count) == BTRFS_UTIL_OK else {
            throw BtrfsError(.waitForCleaner, self, errno: Errno(rawValue: errno))
        }
        defer { unsafe free(ids) }
        return unsafe Array(UnsafeBufferPointer(start: ids, count: count))
    }

    /// Waits until the cleaner has freed these deleted subvolumes. False if some are left after `seconds`. Needs
    /// `CAP_SYS_ADMIN`. The cleaner works at commits, so one is started first.
    package func waitForCleaner(of ids: [UInt64], seconds: Double) throws(BtrfsError) -> Bool {
        var waiting = Set(ids)
        var search = TreeSearch(self, bufferSize: 0)
        let start = monotonicSeconds()
        var pause: UInt32 = 2_000
        try commitTransaction()
        while true {
            for id in waiting where try !search.hasSubvolume(id) { waiting.remove(id) }
            if waiting.isEmpty { return true }
            if monotonicSeconds() - start >= seconds { return false }
            usleep(pause)
            pause = min(pause * 2, 200_000)
        }
    }
}
