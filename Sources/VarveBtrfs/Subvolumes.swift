import BtrfsSendStream
import CBtrfs
import CVarveBtrfsUtil
import Glibc
package import VarveSystem
package import SystemPackage

/// A subvolume that lies in another one.
package struct NestedSubvolume: Hashable, Sendable {
    package var id: UInt64
    /// The directory in which it lies, relative to the root of the outer subvolume; empty for that itself.
    package var directory: BytePath
    package var name: BytePath
    package var path: BytePath { directory.appending(name) }
}

/// Making, listing and deleting, each anchored at the descriptor of a directory. Names are single components.
extension FileDescriptor {
    /// Makes an empty subvolume `name` in this directory (`BTRFS_IOC_SUBVOL_CREATE_V2`). Needs write permission only.
    package func createSubvolume(_ name: BytePath) throws(BtrfsError) {
        guard unsafe name.withCString({ unsafe varve_btrfs_create_subvolume(rawValue, $0) }) == 0 else {
            throw BtrfsError(.createSubvolume, self, name, errno: Errno(rawValue: errno))
        }
        durabilityPoint()
    }

    /// Makes `name` in `directory` a snapshot of the subvolume of which this descriptor is the root
    /// (`BTRFS_IOC_SNAP_CREATE_V2`). The kernel writes delayed data of the source first. Nested subvolumes are not
    /// taken along: empty directories stand in their place.
    package func snapshot(to directory: FileDescriptor, _ name: BytePath, readOnly: Bool) throws(BtrfsError) {
        durabilityPoint()
        let result = unsafe name.withCString {
            unsafe varve_btrfs_snapshot(rawValue, directory.rawValue, $0, readOnly ? 1 : 0)
        }
        guard result == 0 else { throw BtrfsError(.snapshot, directory, name, errno: Errno(rawValue: errno)) }
        durabilityPoint()
    }

    /// Deletes the subvolume `name` in this directory (`BTRFS_IOC_SNAP_DESTROY`), whatever is in it but other
    /// subvolumes, for which it fails with ENOTEMPTY. The kernel's cleaner frees the space later.
    package func deleteSubvolume(_ name: BytePath) throws(BtrfsError) {
        durabilityPoint()
        guard unsafe name.withCString({ unsafe varve_btrfs_delete_subvolume(rawValue, $0) }) == 0 else {
            throw BtrfsError(.deleteSubvolume, self, name, errno: Errno(rawValue: errno))
        }
        durabilityPoint()
    }

    /// Deletes a subvolume of this file system by its number.
    private func deleteSubvolume(numbered id: UInt64) throws(BtrfsError) {
        durabilityPoint()
        guard btrfs_util_delete_subvolume_by_id_fd(rawValue, id) == BTRFS_UTIL_OK else {
            throw BtrfsError(.deleteSubvolume, self, .current, errno: Errno(rawValue: errno))
        }
        durabilityPoint()
    }

    /// Deletes the subvolume `name` in this directory and those that lie in it, however deep, the innermost first.
    /// One that is read-only is made writable if others lie in it, or the caller has no privileges. Returns the ids of all that were deleted.
    ///
    /// - Parameter cancellation: ends it between two, with the error ECANCELED where none is deleted by then, and EINTR where some are.
    @discardableResult
    package func deleteSubvolumeTree(_ name: BytePath, cancellation: Cancellation? = nil) throws(BtrfsError)
        -> [UInt64]
    {
        try deleteSubvolumeTree(name, isOpen: false, cancellation)
    }

    /// Deletes the subvolume of which this is the root directory, and those that lie in it, whatever its name and place are by then.
    /// Needs CAP_SYS_ADMIN and Linux 5.7 (BTRFS_SUBVOL_SPEC_BY_ID, btrfs_ioctl_snap_destroy in fs/btrfs/ioctl.c). Returns the ids
    /// of all that were deleted.
    ///
    /// - Parameter cancellation: see `deleteSubvolumeTree`.
    package func deleteOpenSubvolumeTree(cancellation: Cancellation? = nil) throws(BtrfsError) -> [UInt64] {
        try deleteSubvolumeTree(.current, isOpen: true, cancellation)
    }

    /// - Parameter isOpen: the outermost is this descriptor's own, and deleted by its number.
    private func deleteSubvolumeTree(_ name: BytePath, isOpen: Bool, _ cancellation: Cancellation?)
        throws(BtrfsError) -> [UInt64]
    {
        var deleted = [UInt64]()
        let way = SubvolumeDescent(self, name, .deleteSubvolume)
        while let step = try way.next() {
            if cancellation?.isCancelled == true {
                throw BtrfsError(
                    .deleteSubvolume, self, name, errno: deleted.isEmpty ? .canceled : .interrupted)
            }
            switch step {
            case .entered(let subvolume, in: _):
                if subvolume.hasNested, subvolume.isReadOnly {
                    try subvolume.root.fd.setSubvolumeReadOnly(false)
                }
            case .left(let subvolume, in: let place):
                if isOpen, place == nil {
                    try deleteSubvolume(numbered: subvolume.id)
                } else {
                    try deleteEmptied(
                        subvolume.name, subvolume.root.fd, in: place?.fd ?? self, isNested: place != nil)
                }
                extendLifetime(place)
                deleted.append(subvolume.id)
            }
        }
        return deleted
    }

    /// Deletes a subvolume in which no others lie.
    private func deleteEmptied(
        _ name: BytePath, _ root: FileDescriptor, in directory: FileDescriptor, isNested: Bool
    ) throws(BtrfsError) {
        do throws(BtrfsError) {
            try directory.deleteSubvolume(name)
        } catch  where error.errno == .readOnlyFileSystem {
            // Without privileges, only what may be written can be deleted (btrfs_ioctl_snap_destroy).
            try root.setSubvolumeReadOnly(false)
            try directory.deleteSubvolume(name)
        } catch  where error.errno == .notPermitted {
            // Flags of chattr(1) on it, which snapshots have from what they were taken of, or on the directory in the outer
            // subvolume, which goes too.
            let isFreed = isNested ? (try? directory.clearProtection()) ?? false : false
            let isFreedItself = root.clearProtectionOfSubvolume()
            guard isFreed || isFreedItself else { throw error }
            try directory.deleteSubvolume(name)
        }
    }

    /// Takes the flags of chattr(1) from the root directory of a subvolume, which is made writable for that.
    ///
    /// - Returns: whether it had any. If not, or if they cannot be taken away, all is as it was.
    private func clearProtectionOfSubvolume() -> Bool {
        guard (try? protection(of: .current))?.isEmpty == false,
            let isReadOnly = try? isReadOnlySubvolume()
        else { return false }
        do {
            if isReadOnly { try setSubvolumeReadOnly(false) }
            return try clearProtection()
        } catch {
            if isReadOnly { try? setSubvolumeReadOnly(true) }
            return false
        }
    }

    /// The subvolumes that lie directly in the one of which this descriptor is the root, not those nested deeper
    /// (`BTRFS_IOC_GET_SUBVOL_ROOTREF`, `BTRFS_IOC_INO_LOOKUP_USER`; Linux 4.18). Needs no privilege, but search
    /// permission on the way to each. EINVAL if it is not the root.
    ///
    /// - Parameter passesOverClosed: those to which the caller may not find the way are left out; else they are an error (EACCES).
    package func nestedSubvolumes(passingOverClosed passesOverClosed: Bool = false) throws(BtrfsError)
        -> [NestedSubvolume]
    {
        guard try isSubvolume() else { throw BtrfsError(.listSubvolumes, self, errno: .invalidArgument) }
        var result = [NestedSubvolume]()
        var ids = [UInt64](repeating: 0, count: Int(VARVE_ROOTREFS))
        var directories = [UInt64](repeating: 0, count: Int(VARVE_ROOTREFS))
        var nameBuffer = [CChar](repeating: 0, count: 256)
        var pathBuffer = [CChar](repeating: 0, count: 4096)
        var least: UInt64 = 0
        while true {
            var more: CInt = 0
            let count = unsafe varve_btrfs_rootrefs(rawValue, least, &ids, &directories, &more)
            guard count >= 0 else { throw BtrfsError(.listSubvolumes, self, errno: Errno(rawValue: errno)) }
            for index in 0..<min(Int(count), ids.count) {
                let found = unsafe varve_btrfs_lookup_user(
                    rawValue, ids[index], directories[index], &nameBuffer, &pathBuffer)
                guard found == 0 else {
                    // Deleted since.
                    if errno == ENOENT || passesOverClosed && errno == EACCES { continue }
                    throw BtrfsError(.listSubvolumes, self, errno: Errno(rawValue: errno))
                }
                var directory = pathBuffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
                while directory.last == UInt8(ascii: "/") { directory.removeLast() }
                let name = nameBuffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
                guard let directory = BytePath(directory), let name = BytePath(name) else { continue }
                result.append(NestedSubvolume(id: ids[index], directory: directory, name: name))
            }
            guard more != 0, count > 0, let last = ids[..<Int(count)].last, last < UInt64.max else {
                return result
            }
            least = last + 1
        }
    }
}
