import VarveBtrfs
import VarveSystem
import SystemPackage

extension SharedDescriptor {
    /// Whether the tree of this subvolume, in which nobody works, holds names of subvolumes, or their stubs: what a snapshot shows as an
    /// empty directory in place of a subvolume that was nested in its source.
    ///
    /// - Parameter subject: what errors name.
    func holdsSubvolumeNames(_ subject: BytePath) throws -> Bool {
        var search = TreeSearch(fd)
        var isThere = false
        do throws(BtrfsError) {
            try search.forEachInode(changedSince: 0, onSubvolume: { isThere = true }) { _ in }
            return isThere
        } catch {
            // Others than root may not search trees.
            guard error.errno == .notPermitted || error.errno == .permissionDenied else { throw error }
        }
        return try attempt("list", subject) { () throws(Errno) in
            let way = try DirectoryDescent(self)
            var pending = [try way.current.fd.entries()]
            while let last = pending.indices.last {
                guard let entry = pending[last].popLast() else {
                    pending.removeLast()
                    _ = try way.leave()
                    continue
                }
                guard entry.type == nil || entry.type == .directory else { continue }
                let status = try way.current.fd.status(of: entry.name)
                guard status.isDirectory else { continue }
                if status.isSubvolumeStub || status.device != way.status.device { return true }
                try way.enter(entry.name)
                pending.append(try way.current.fd.entries())
            }
            return false
        }
    }
}
