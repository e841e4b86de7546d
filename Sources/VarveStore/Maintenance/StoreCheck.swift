import VarveBtrfs
import Glibc
import VarveOCI
public import VarveSystem
import SystemPackage

/// Looks whether a store is as it should be, and takes away what is wrong.
///
/// Only what the store made itself is ever removed: a chain can be built again, and what an interrupted command left is of
/// no use. A user's snapshot, or a file that somebody put into the store, is named and left alone.
public struct StoreCheck: Sendable {
    /// Something that is wrong with the store.
    public struct Finding: Sendable, Hashable {
        /// Below the store's directory; empty for itself.
        public var path: BytePath
        /// What is wrong, as one sentence.
        public var problem: String
        /// What was done about it; nil if nothing was.
        package var repair: String?
        /// What a person can do; nil if `--repair` does it.
        public var remedy: VarveError.Remedy?
        /// Whether it was mended.
        public var isRepaired: Bool { repair != nil }
    }

    let store: SnapshotStore
    let repairs: Bool

    package init(_ store: SnapshotStore, repairs: Bool = false) {
        self.store = store
        self.repairs = repairs
    }

    /// Everything but the content of the chains. Reads no tree.
    package func run() throws -> [Finding] {
        var findings: [Finding] = []
        try checkDirectories(&findings)
        try checkStubs(&findings)
        try checkChains(&findings)
        try checkSnapshots(&findings)
        try checkRefreshed(&findings)
        try checkLeftovers(&findings)
        try checkContainerds(&findings)
        return findings
    }

    /// The store's own directories: nobody else may write to them.
    private func checkDirectories(_ findings: inout [Finding]) throws {
        var places: [(BytePath, SharedDescriptor)] = [
            (.empty, store.directory), (StoreLayout.chains, store.chains.directory.opened),
            (StoreLayout.snapshots, store.snapshotsDirectory.opened),
            (StoreLayout.work, store.work.directory.opened), (StoreLayout.locks, store.locks.directory),
            (StoreLayout.refreshed, store.refreshedDirectory.opened),
        ]
        places += try containerdDirectories()
        if let images = try subdirectory(StoreLayout.images) { places.append((StoreLayout.images, images)) }
        for (path, directory) in places {
            let status = try attempt("look at", path) { () throws(Errno) in try directory.fd.status() }
            if status.uid != geteuid(), status.uid != 0 {
                findings.append(
                    Finding(
                        path: path, problem: "it belongs to the user \(status.uid)",
                        remedy: .distrust))
            }
            guard status.permissions & 0o022 != 0 else { continue }
            let problem = "others may write to it (mode \(String(status.permissions, radix: 8)))"
            try findings.append(
                mendable(path, problem, "took that away") {
                    try attempt("change the mode of", path) { () throws(Errno) in
                        try directory.fd.changeMode(to: status.permissions & ~0o022)
                    }
                })
        }
    }

    /// What a snapshot of the store has in place of its subvolumes. Every command takes it for nothing at all.
    private func checkStubs(_ findings: inout [Finding]) throws {
        var places: [(BytePath, SharedDescriptor)] = [
            (StoreLayout.chains, store.chains.directory.opened),
            (StoreLayout.snapshots, store.snapshotsDirectory.opened),
            (StoreLayout.refreshed, store.refreshedDirectory.opened),
            (StoreLayout.work, store.work.directory.opened),
        ]
        // Not the store's own, but where bundles are put by custom.
        if let bundles = try subdirectory(StoreLayout.bundles) {
            places.append((StoreLayout.bundles, bundles))
        }
        for place in try ContainerdFolder(of: store).places() {
            if let trees = place.trees { places.append((trees.name, trees.opened)) }
        }
        for (place, directory) in places {
            for entry in try entries(of: directory, place, withStubs: true)
            where try isStub(entry.name, in: directory) {
                let path = place.appending(entry.name)
                try findings.append(
                    mendable(
                        path,
                        "it is the empty directory that a snapshot of the store has in place of a subvolume; it counts as absent",
                        "removed it"
                    ) {
                        try attempt("remove", path) { () throws(Errno) in
                            _ = try directory.fd.removeSubvolumeStub(entry.name)
                        }
                    })
            }
        }
    }

    func isStub(_ name: BytePath, in directory: SharedDescriptor) throws -> Bool {
        try attempt("look at", name) { () throws(Errno) in
            try directory.fd.statusIfPresent(of: name)?.isSubvolumeStub == true
        }
    }

    private func subdirectory(_ name: BytePath) throws -> SharedDescriptor? {
        try attempt("open", name) { () throws(Errno) in
            do throws(Errno) {
                return SharedDescriptor(try store.directory.fd.openDirectory(name))
            } catch  where error.isAbsence {
                return nil
            }
        }
    }

    private func checkChains(_ findings: inout [Finding]) throws {
        for entry in try entries(of: store.chains.directory.opened, StoreLayout.chains) {
            let path = StoreLayout.chains.appending(entry.name)
            guard let name = entry.name.string.flatMap({ ChainName($0) }) else {
                findings.append(foreign(path, "it is not named as a chain"))
                continue
            }
            let fault: ChainFault?
            switch try store.chains.directory.occupant(of: entry.name) {
            // Deleted since it was listed.
            case nil: continue
            case .file?:
                findings.append(foreign(path, "\(ChainFault.file), and cannot be a chain"))
                continue
            case .plainDirectory?: fault = .plainDirectory
            case .subvolume(let subvolume)?:
                fault = try store.chains.fault(
                    of: OpenChain(
                        name: name, subvolume: subvolume, info: try subvolume.fd.settledSubvolumeInfo()))
            }
            guard let fault else { continue }
            try findings.append(
                mendable(path, "\(fault); it is not used", "deleted it; it is built anew where it is needed")
                {
                    racePoint("repair-chain")
                    do { try store.chains.remove(name, evenIfPinned: true) } catch let error as VarveError
                        where error.code == .notFound
                    {
                        // A collection has deleted it since it was looked at.
                    }
                })
        }
    }

    private func checkSnapshots(_ findings: inout [Finding]) throws {
        for entry in try entries(of: store.snapshotsDirectory.opened, StoreLayout.snapshots)
        // See `checkLeftovers`.
        where !entry.name.hasPrefix(SnapshotStore.hiddenPrefix.bytes) {
            let path = StoreLayout.snapshots.appending(entry.name)
            let subvolume: SharedDescriptor
            switch try store.snapshotsDirectory.occupant(of: entry.name) {
            case nil: continue
            case .subvolume(let found)?: subvolume = found
            case .plainDirectory?:
                // What a user kept is in it, so only a user can say that it is of no use.
                findings.append(
                    Finding(
                        path: path, problem: "\(ChainFault.plainDirectory); it is not used",
                        remedy: store.remedyForPlainSnapshot(entry.name)))
                continue
            case .file?:
                findings.append(foreign(path, "\(ChainFault.file), and cannot be a snapshot"))
                continue
            }
            switch try store.chains.times.changeFault(subvolume.fd, subvolume.fd.settledSubvolumeInfo()) {
            case nil: break
            case .writable?:
                try findings.append(
                    mendable(path, "it was made writable after it was taken", "made it read-only") {
                        try subvolume.fd.setSubvolumeReadOnly(true)
                    })
            case let fault?:
                findings.append(
                    Finding(
                        path: path, problem: "\(fault.description.replacingPublished)",
                        remedy: .restoreSnapshot))
            }
        }
    }

    private func checkRefreshed(_ findings: inout [Finding]) throws {
        for entry in try entries(of: store.refreshedDirectory.opened, StoreLayout.refreshed) {
            let path = StoreLayout.refreshed.appending(entry.name)
            guard let occupant = try store.refreshedDirectory.occupant(of: entry.name) else { continue }
            let isNamed = entry.name.string.flatMap({ SubvolumeUUID($0.prefix(36)) }) != nil
            if isNamed, case .plainDirectory = occupant {
                try findings.append(
                    mendable(path, "\(ChainFault.plainDirectory); it is not used", "deleted it") {
                        _ = try store.refreshedDirectory.deleteUnused(
                            entry.name, "it", store.locks.cancellation)
                    })
                continue
            }
            guard isNamed, case .subvolume(let subvolume) = occupant else {
                // On its way there, by a command that runs just now.
                if (try? isLeftover(entry.name, in: store.refreshedDirectory.opened)) == false { continue }
                findings.append(foreign(path, "it is not the state of a refreshed bundle"))
                continue
            }
            // That of a bundle which somebody deleted with rm(1) is no fault: garbage collection deletes it.
            // What came with a store that was received is the state of no bundle here, and no fault either.
            let info = try subvolume.fd.settledSubvolumeInfo()
            guard
                let fault = try store.chains.times.changeFault(
                    subvolume.fd, info, onlyRootfs: !info.isReceived)
            else {
                continue
            }
            try findings.append(
                mendable(path, "\(fault.description.replacingPublished); it is not used", "deleted it") {
                    _ = try store.refreshedDirectory.deleteUnused(
                        entry.name, "it", store.locks.cancellation)
                })
        }
    }

    /// What interrupted commands left. `Sweeper` has taken away what it could.
    private func checkLeftovers(_ findings: inout [Finding]) throws {
        for entry in try entries(of: store.work.directory.opened, StoreLayout.work) {
            let path = StoreLayout.work.appending(entry.name)
            guard try isLeftover(entry.name, in: store.work.directory.opened) else { continue }
            if MovedAside.isAnother(entry.name, in: store.work.directory.fd) {
                findings.append(
                    foreign(path, "it had the name of a bundle that was to be deleted, and is another"))
                continue
            }
            findings.append(cannotBeRemoved(path))
        }
        let hiddenPrefix = SnapshotStore.hiddenPrefix
        for entry in try entries(of: store.snapshotsDirectory.opened, StoreLayout.snapshots)
        where entry.name.hasPrefix(hiddenPrefix.bytes) {
            let work = entry.name.dropFirst(hiddenPrefix.count)
            // Else it is on its way, by a command that runs just now.
            guard try isLeftover(entry.name, lockedAs: work, in: store.snapshotsDirectory.opened) else {
                continue
            }
            findings.append(cannotBeRemoved(StoreLayout.snapshots.appending(entry.name)))
        }
        for entry in try entries(of: store.directory, .empty)
        where entry.name.hasPrefix(SnapshotStore.temporaryDescription) {
            try findings.append(
                mendable(entry.name, "an interrupted command left it", "deleted it") {
                    try attempt("remove", entry.name) { () throws(Errno) in
                        try store.directory.fd.unlink(entry.name)
                    }
                })
        }
    }

    private func cannotBeRemoved(_ path: BytePath) -> Finding {
        Finding(
            path: path, problem: "an interrupted command left it, and it cannot be removed",
            remedy: .deleteSubvolume)
    }

    /// Whether something is still there though nobody holds its lock.
    ///
    /// - Parameter work: its name in `work/`, by which it is locked; nil where it has that name still.
    private func isLeftover(
        _ name: BytePath, lockedAs work: BytePath? = nil, in directory: SharedDescriptor
    ) throws -> Bool {
        try attempt("lock", name) { () throws(Errno) in
            let lockName = WorkArea.lockName(work ?? name)
            let hasLock = try store.locks.directory.fd.statusIfPresent(of: lockName) != nil
            guard var lock = try RemovalLock(lockName, of: store.locks) else { return false }
            let isThere = try directory.fd.statusIfPresent(of: name) != nil
            // By this file `Sweeper` finds it.
            if isThere, hasLock { lock.leave() }
            extendLifetime(lock)
            return isThere
        }
    }

    // MARK: Parts

    /// What `--repair` mends. What cannot be mended just now, since somebody has it in use, must not keep the rest from being looked at.
    ///
    /// - Parameter what: what was done about it, once `body` has done it.
    func mendable(
        _ path: BytePath, _ problem: String, _ what: String, _ body: () throws -> Void
    ) throws -> Finding {
        guard repairs else { return Finding(path: path, problem: problem) }
        do { try body() } catch let error as VarveError where error.code == .failed {
            return Finding(
                path: path, problem: "\(problem); it cannot be mended: \(error.reason)",
                remedy: error.remedy ?? .tryAgainLater)
        }
        return Finding(path: path, problem: problem, repair: what)
    }

    func foreign(_ path: BytePath, _ problem: String) -> Finding {
        Finding(path: path, problem: problem, remedy: .moveAway)
    }

    /// By name; without stubs (`checkStubs`).
    private func entries(of directory: SharedDescriptor, _ path: BytePath, withStubs: Bool = false) throws
        -> [DirectoryEntry]
    {
        let all = try attempt("list", path) { () throws(Errno) in try directory.fd.entries() }
            .sorted { $0.name < $1.name }
        return withStubs ? all : try all.filter { try !isStub($0.name, in: directory) }
    }
}

extension String {
    /// A snapshot was taken, not published.
    fileprivate var replacingPublished: String {
        hasSuffix("published") ? dropLast("published".count) + "taken" : self
    }
}
