import Glibc
import VarveBtrfs
package import VarveSystem
import SystemPackage

/// Finds the store of a bundle without being told where it is.
package enum StoreOfBundle {
    /// The store in whose directory the bundle lies, or is to lie; else the store that the bundle's attribute
    /// `user.varve.store` names, if there is one: that of root's bundle or of the caller's own. It may lie on another file system: a copy of a bundle is compared with its chain
    /// all the same. Nil if there is none.
    ///
    /// Nothing is believed of the place beyond that: whoever opens the store checks whose it is, and chains are named by what
    /// they hold.
    ///
    /// - Parameter elsewhere: also one on another file system than the bundle.
    package static func find(_ bundle: BytePath, elsewhere: Bool) -> BytePath? {
        if let above = storeAbove(bundle) { return above }
        let here = FileDescriptor.workingDirectory
        guard let opened = try? here.open(bundle, [.directory]),
            let owner = try? opened.fd.status().uid, owner == 0 || owner == geteuid(),
            let attribute = (try? opened.fd.extendedAttribute(StoreLayout.storeAttribute)) ?? nil,
            let path = BytePath(attribute), path.isAbsolute,
            let store = try? here.open(path, [.directory]), StoreGround.isStore(store.fd)
        else { return nil }
        if elsewhere { return path }
        let uuids = try? (opened.fd.fileSystemUUID(), store.fd.fileSystemUUID())
        return uuids.map { $0 == $1 } == true ? path : nil
    }

    /// What `user.varve.store` says in bundles of the store: where its directory is now. Nil where /proc does not tell.
    static func attribute(of store: FileDescriptor) -> ExtendedAttribute? {
        guard let path = try? store.path(), path.isAbsolute else { return nil }
        return ExtendedAttribute(name: StoreLayout.storeAttribute, value: Array(path.bytes))
    }

    private static func storeAbove(_ bundle: BytePath) -> BytePath? {
        var path = bundle.parent
        var opened: OwnedDescriptor
        while true {
            // What is missing above a bundle that is yet to be made lies in no store either.
            if let found = try? FileDescriptor.workingDirectory.open(
                path.isEmpty ? .current : path, [.directory, .path])
            {
                opened = found
                break
            }
            if path.isEmpty || path.parent == path { return nil }
            path = path.parent
        }
        while true {
            if StoreGround.isStore(opened.fd) { return try? opened.fd.path() }
            guard let status = try? opened.fd.status(),
                let next = try? opened.fd.open("..", [.directory, .path]),
                let above = try? next.fd.status(),
                above.inode != status.inode || above.device != status.device
            else { return nil }
            opened = next
        }
    }
}
