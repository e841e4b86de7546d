import VarveBtrfs
package import VarveOCI
import VarveSystem
import SystemPackage

extension SnapshotStore {
    /// The manifests of the images that bundles and snapshots of the store came from: `repack` of one needs its manifest,
    /// configuration and layers, whether or not a tag still leads to them.
    ///
    /// Root finds every subvolume of the file system. Anybody else may not search the trees, and finds those in the store's
    /// own directories and in its `bundles/`.
    package func neededManifests() throws -> Set<Digest> {
        do throws(BtrfsError) {
            return try manifestsOfAllSubvolumes()
        } catch  where error.errno == .notPermitted {
            return try manifestsInOwnDirectories()
        }
    }

    private func manifestsOfAllSubvolumes() throws(BtrfsError) -> Set<Digest> {
        // What was made a moment ago is in the trees only after a commit.
        try directory.fd.commitTransaction()
        var needed: Set<Digest> = []
        var search = TreeSearch(directory.fd)
        for root in try search.subvolumes() where !root.isDeleted {
            if let value = try search.rootAttribute(StoreLayout.chainAttribute, ofSubvolume: root.id) {
                needed.formUnion(ChainRecords(value).manifests)
            }
        }
        return needed
    }

    private func manifestsInOwnDirectories() throws -> Set<Digest> {
        var needed: Set<Digest> = []
        var places = [snapshotsDirectory, refreshedDirectory]
        let own = SubvolumeDirectory(opened: directory, store: path, name: .empty)
        if let bundles = try own.open(StoreLayout.bundles) {
            places.append(SubvolumeDirectory(opened: bundles, store: path, name: StoreLayout.bundles))
        }
        for place in places {
            for entry in try place.entries() where entry.type == .directory {
                guard let opened = try place.open(entry.name) else { continue }
                let value = try attempt("read the attributes of", entry.name) { () throws(Errno) in
                    try opened.fd.extendedAttribute(StoreLayout.chainAttribute)
                }
                needed.formUnion(ChainRecords(value ?? []).manifests)
            }
        }
        return needed
    }
}
