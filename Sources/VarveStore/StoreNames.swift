import VarveFormats
package import VarveSystem
import SystemPackage

/// What a store has under which names, as far as its directories alone show: for the completion of command lines. Nothing is written, not
/// even a time of access, and nothing that is named is opened.
package struct StoreNames {
    private let directory: SharedDescriptor

    /// Nil where there is no store, or none that is safe to use.
    package init?(at path: BytePath) {
        guard let opened = try? Place.ownDirectory(path) else { return nil }
        directory = SharedDescriptor(opened)
        guard (try? directory.fd.status(of: StoreLayout.description))?.isRegular == true else { return nil }
    }

    package var chains: [String] { names(in: StoreLayout.chains) { ChainName($0) != nil } }

    package var snapshots: [String] { names(in: StoreLayout.snapshots) { !$0.beginsWithByte(".") } }

    /// The IDs of containerds.
    package var containerds: [String] { names(in: StoreLayout.containerd) { !$0.beginsWithByte(".") } }

    /// The absolute paths of the bundles in `bundles/`. Where others are, no directory shows.
    package var bundles: [String] {
        guard let above = (try? directory.fd.path())?.appending(StoreLayout.bundles) else { return [] }
        return names(in: StoreLayout.bundles) { !$0.beginsWithByte(".") }.compactMap {
            above.appending(BytePath($0)).string
        }
    }

    private func names(in name: BytePath, _ isWanted: (String) -> Bool) -> [String] {
        guard let opened = try? openQuietly(name), let entries = try? opened.fd.entries() else { return [] }
        return entries.filter { $0.type == .directory }.compactMap(\.name.string).filter(isWanted).sorted()
    }

    /// The store is the caller's own, or root's, who may forgo times of access (open(2), O_NOATIME).
    private func openQuietly(_ name: BytePath) throws(Errno) -> OwnedDescriptor {
        do throws(Errno) {
            return try directory.fd.open(name, [.directory, .noFollow, .noAccessTime])
        } catch .notPermitted {
            return try directory.fd.open(name, [.directory, .noFollow])
        }
    }
}
