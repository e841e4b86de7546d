import VarveFormats
package import VarveSystem
import SystemPackage

/// A lasting reason not to collect a chain from which nothing descends: somebody, a daemon, has a record that speaks of
/// it. What descends from a chain needs no pin: the file system knows of it (`ChainUsers`).
package struct Pin: Hashable, Sendable {
    /// Who keeps the chain: one component of a path.
    package var owner: String
    package var chain: ChainName

    package init(owner: String, chain: ChainName) {
        self.owner = owner
        self.chain = chain
    }
}

/// The pins of a store: an empty file `pins/OWNER/CHAIN` for each, on disk when `add` returns. An owner has one pin for a
/// chain, however many of its records speak of it.
package struct PinFolder: Sendable {
    /// That of the store.
    private let directory: SharedDescriptor
    private let path: BytePath

    init(in directory: SharedDescriptor, path: BytePath) {
        self.directory = directory
        self.path = path
    }

    /// All pins, in no order. Those of an owner may name chains that are not there any more.
    package func all() throws(VarveError) -> [Pin] {
        var result: [Pin] = []
        for entry in try entries(StoreLayout.pins) {
            // What somebody else put there is no owner's.
            guard let owner = entry.name.string, !owner.beginsWithByte(".") else { continue }
            result += try pins(of: owner)
        }
        return result
    }

    /// The pins of one owner.
    package func pins(of owner: String) throws(VarveError) -> [Pin] {
        try entries(StoreLayout.pins.appending(try StoreLayout.ownerName(owner))).compactMap { entry in
            entry.name.string.flatMap { ChainName($0) }.map { Pin(owner: owner, chain: $0) }
        }
    }

    /// Keeps a chain until the pin is removed. The chain is open, so leased: nobody deletes it meanwhile.
    package func add(_ chain: OpenChain, for owner: String) throws(VarveError) {
        let folder = StoreLayout.pins.appending(try StoreLayout.ownerName(owner))
        let name = chain.name.path
        try attempt("keep the chain", name) { [directory] () throws(Errno) in
            let opened = try directory.fd.makeOwnDirectories(folder)
            do throws(Errno) {
                let file = try opened.fd.open(
                    name, [.writeOnly, .create, .exclusive, .noFollow], mode: 0o600)
                try file.close()
            } catch .fileExists {}
            // Also where it was there: whoever made it may not have come to this.
            try opened.fd.synchronize()
        }
        extendLifetime(chain)
    }

    /// Does nothing if there is no such pin.
    package func remove(_ pin: Pin) throws(VarveError) {
        let folder = StoreLayout.pins.appending(try StoreLayout.ownerName(pin.owner))
        try attempt("give up the chain", pin.chain.path) { [directory] () throws(Errno) in
            do throws(Errno) {
                let opened = try directory.fd.openDirectory(folder)
                try opened.fd.unlink(pin.chain.path)
                try opened.fd.synchronize()
            } catch .noSuchFileOrDirectory {}
        }
    }

    private func entries(_ place: BytePath) throws(VarveError) -> [DirectoryEntry] {
        try attempt("list", path.appending(place)) { [directory] () throws(Errno) in
            do throws(Errno) {
                let opened = try directory.fd.openDirectory(place)
                return try opened.fd.entries()
            } catch .noSuchFileOrDirectory {
                return []
            } catch .notDirectory {
                return []
            }
        }
    }
}
