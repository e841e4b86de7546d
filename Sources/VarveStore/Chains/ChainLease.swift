import VarveSystem
import SystemPackage

/// Leases: a chain that somebody works with is not collected under them. A lease is a shared flock(2) on the chain's own
/// directory, held for as long as it is open; who deletes it takes an exclusive one. The kernel ends a lease with its
/// process.
extension SnapshotStore {
    /// The chain's subvolume, leased; nil if there is none. Waits while somebody is about to delete it.
    func leased(_ name: ChainName) throws -> SharedDescriptor? {
        while true {
            guard let subvolume = try open(name.path, in: chainsDirectory) else { return nil }
            let isThere = try attempt("lock the chain", name.path) { () throws(Errno) in
                try subvolume.fd.lock(.shared, cancellation)
                return try isNamed(subvolume, name)
            }
            if isThere { return subvolume }
        }
    }

    /// The chain's subvolume, which nobody else can get hold of while the value lives; nil if there is none, or somebody
    /// has it now.
    func unleased(_ name: ChainName) throws -> SharedDescriptor? {
        guard let subvolume = try open(name.path, in: chainsDirectory) else { return nil }
        let isOurs = try attempt("lock the chain", name.path) { () throws(Errno) in
            guard try subvolume.fd.tryLock(.exclusive) else { return false }
            return try isNamed(subvolume, name)
        }
        return isOurs ? subvolume : nil
    }

    /// Whether it was not deleted, and perhaps built anew, since it was opened.
    private func isNamed(_ subvolume: SharedDescriptor, _ name: ChainName) throws(Errno) -> Bool {
        let status = try subvolume.fd.status()
        let current = try chainsDirectory.fd.statusIfPresent(of: name.path)
        return current?.device == status.device && current?.inode == status.inode
    }
}
