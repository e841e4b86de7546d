package import VarveBtrfs
import Logging
import VarveLayers
import VarveOCI
import Synchronization
package import VarveSystem
import SystemPackage

/// A published chain, open.
package struct OpenChain: Sendable {
    package let name: ChainName
    /// The read-only subvolume; `rootfs/` is in it.
    package let subvolume: SharedDescriptor
    /// Settled (`settledSubvolumeInfo`), but for those of `chains()`.
    package let info: SubvolumeInfo

    /// The transaction that last changed what a chain holds which is used: later ones have changed nothing (`changeFault`).
    var changeTransaction: UInt64 { min(info.changeTransaction, info.originTransaction) }
}

extension SnapshotStore {
    /// The chain of that name, leased: nobody collects it while the value lives. Nil if it is not published, or is not
    /// what was published any more; a warning says so.
    package func chain(_ name: ChainName) throws -> OpenChain? {
        guard let subvolume = try leased(name) else { return nil }
        let chain = OpenChain(
            name: name, subvolume: subvolume, info: try subvolume.fd.settledSubvolumeInfo())
        guard let fault = try fault(of: chain) else { return chain }
        let isNew = warned.withLock { names in
            guard !names.contains(name) else { return false }
            names.append(name)
            return true
        }
        if isNew {
            logger.warning("the chain \(name) is not used, and built anew where it is needed: \(fault)")
        }
        return nil
    }

    /// Makes a writable snapshot of a chain: what it holds is what was published, or this fails.
    ///
    /// Root can make a chain writable, open a file and go on writing to it whatever becomes of the flag. The snapshot has
    /// its source's `ctransid` of the moment at which it was taken (`create_pending_snapshot`, fs/btrfs/transaction.c), and by
    /// then all data of the source was written out. So if that is the one that the chain was found unchanged with, the snapshot is.
    func snapshot(of chain: OpenChain, to directory: FileDescriptor, _ name: BytePath) throws {
        try chain.subvolume.fd.snapshot(to: directory, name, readOnly: false)
        let made = try attempt("open", name) { () throws(Errno) in try directory.openDirectory(name) }
        guard try made.fd.subvolumeInfo().changeTransaction != chain.info.changeTransaction else { return }
        // Deduplication changes it too.
        let now = OpenChain(
            name: chain.name, subvolume: chain.subvolume,
            info: try chain.subvolume.fd.settledSubvolumeInfo())
        guard let fault = try fault(of: now) else { return }
        try delete(name, in: directory)
        throw StoreError(
            .failed, "the chain \(chain.name) was written to while it was used: \(fault)",
            subject: chain.name.path,
            remedy: .tryAgain)
    }

    /// A subvolume of the store's; nil if it is not there. A stub counts as not there: a snapshot of the subvolume in which the
    /// store lies has one in place of each subvolume of the store (a rollback by snapper or timeshift brings them back).
    func open(_ name: BytePath, in directory: SharedDescriptor) throws(StoreError) -> SharedDescriptor? {
        try attempt("open in the store \(path)", name) { () throws(Errno) in
            do throws(Errno) {
                let opened = SharedDescriptor(try directory.fd.openDirectory(name))
                return try opened.fd.status().isSubvolumeStub ? nil : opened
            } catch .noSuchFileOrDirectory {
                return nil
            }
        }
    }

    /// All published chains, by name, those not to be trusted as well; none is leased. What is in `chains/` under another
    /// name than a chain's, or is no subvolume, is passed over.
    package func chains() throws -> [OpenChain] {
        let entries = try attempt("list the chains of", path) { () throws(Errno) in
            try chainsDirectory.fd.entries()
        }
        var result: [OpenChain] = []
        for entry in entries.sorted(by: { $0.name < $1.name }) {
            guard let text = entry.name.string, let name = ChainName(text), entry.type != .regular,
                let subvolume = try open(name.path, in: chainsDirectory), try subvolume.fd.isSubvolume(),
                let info = try subvolume.fd.subvolumeInfoIfPresent()
            else { continue }
            result.append(OpenChain(name: name, subvolume: subvolume, info: info))
        }
        return result
    }

    /// Why no command uses a chain of `chains()`, a sentence; nil if it is used.
    package func reasonNotToUse(_ chain: OpenChain) throws -> String? {
        let settled = OpenChain(
            name: chain.name, subvolume: chain.subvolume,
            info: try chain.subvolume.fd.settledSubvolumeInfo())
        return try fault(of: settled)?.description
    }

    /// The published chain whose subvolume has that UUID.
    func chain(withUUID uuid: SubvolumeUUID) throws -> OpenChain? {
        guard let found = try chains().first(where: { $0.info.uuid == uuid }) else { return nil }
        return try chain(found.name)
    }

    /// Deletes a chain. Bundles and chains made from it stay: they are snapshots, not references.
    package func removeChain(_ name: ChainName) throws {
        try withRemovalLock(on: name) {
            guard let chain = try open(name.path, in: chainsDirectory) else {
                throw StoreError(
                    .notFound, "the store in \"\(path)\" has no chain \(name)", subject: name.path,
                    remedy: .listChains)
            }
            guard
                try attempt(
                    "lock the chain", name.path, { () throws(Errno) in try chain.fd.tryLock(.exclusive) })
            else {
                throw StoreError(
                    .failed, "the chain \(name) is in use by another command", subject: name.path,
                    remedy: .tryAgainLater)
            }
            try delete(name.path, in: chainsDirectory.fd)
            extendLifetime(chain)
        }
    }

    /// Removes the stub of a subvolume under a name of the store's that is needed now (`open`).
    func removeStub(_ name: BytePath, in directory: SharedDescriptor) throws(StoreError) {
        try attempt("make room in the store \(path) for", name) { () throws(Errno) in
            _ = try directory.fd.removeSubvolumeStub(name)
        }
    }

    /// Deletes a subvolume of the store's. No others lie in it, so it goes with its name in one transaction, and what
    /// is half deleted is never seen.
    @discardableResult
    func delete(_ name: BytePath, in directory: FileDescriptor) throws -> [UInt64] {
        do throws(BtrfsError) {
            return try directory.removeSubvolumeTree(name)
        } catch {
            if error.errno == .noSuchFileOrDirectory {
                throw StoreError(.notFound, "\"\(name)\" is not there (any more)", subject: name)
            }
            guard error.errno == .invalidArgument, let opened = try? directory.openDirectory(name),
                (try? opened.fd.isSubvolume()) == false
            else { throw error }
            // A plain directory, as `cp -a` of a store leaves it.
            try TreeRemoval.removeTree(name, in: directory, path: name)
            return []
        }
    }

    /// Deletes a bundle, which other subvolumes may lie in: moved out of sight first, so that a crash leaves nothing that looks
    /// whole. If it cannot be deleted, it is put back.
    func discard(_ name: BytePath, in directory: FileDescriptor) throws {
        let shown = (try? directory.path())?.appending(name) ?? name
        let work = try makeWork(for: shown, removes: true) { workDirectory, workName in
            func move() throws(Errno) {
                try directory.rename(name, to: workDirectory, workName, replacing: false)
            }
            do throws(Errno) {
                do throws(Errno) {
                    try move()
                } catch .diskQuotaExceeded {
                    // What running transactions have set aside comes back; what is deleted in its place might stay in part.
                    try directory.synchronizeFileSystem()
                    try move()
                }
            } catch .noSuchFileOrDirectory {
                throw StoreError(.notFound, "\"\(name)\" is not there (any more)", subject: name)
            } catch .improperLink {
                // On another mount of the file system.
            } catch .readOnlyFileSystem {
                // Read-only, and so not to be moved; see `publish`.
            } catch .noSpace {
                // Deleting takes less room than moving: btrfs keeps some for it.
            } catch {
                throw StoreError.system("move away", shown, error)
            }
        }
        let workName = work.name
        let isMoved = try attempt("look at", workName) { () throws(Errno) in
            try workDirectory.fd.statusIfPresent(of: workName) != nil
        }
        if isMoved {
            do throws(BtrfsError) {
                try workDirectory.fd.removeSubvolumeTree(workName, isHidden: true)
            } catch {
                // Back to where it is looked for, unless it was emptied on the way.
                if (try? workDirectory.fd.status(of: workName.appending(StoreLayout.rootfs))) != nil {
                    try? workDirectory.fd.rename(workName, to: directory, name, replacing: false)
                }
                throw error.naming(shown, insteadOf: workName)
            }
        } else {
            try delete(name, in: directory)
        }
        extendLifetime(work)
    }

    /// Runs `body` while this process alone may publish or delete the chain.
    func withLock<R>(on name: ChainName, _ cancellation: Cancellation, _ body: () throws -> R) throws -> R {
        let lock = try lockChain(name) { try cancellation.check() }
        let result = try body()
        extendLifetime(lock)
        return result
    }

    func lockChain(_ name: ChainName, whileWaiting: () throws -> Void) throws -> FileLock {
        do {
            return try FileLock.exclusive(
                name.path, in: locksDirectory, isShared: true
            ) {
                try cancellation.check()
                try whileWaiting()
            }
        } catch let error as Errno {
            throw StoreError.system("lock the chain", name.path, error)
        }
    }
}
