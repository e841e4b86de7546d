import VarveBtrfs
import Logging
import VarveSystem
import SystemPackage

/// Deletes what processes that are gone left in a store. Nothing that somebody is still at is touched: whoever is at work
/// holds a lock, which the kernel drops with the process.
///
/// What it sweeps, each by its own function:
/// * `sweepWork`: subvolumes in `work/`;
/// * `sweepLocks`: files in `locks/`, and what a process was about to put into `refreshed/` and `snapshots/`.
///
/// Opening a store sweeps nothing. The command and the façade sweep when they open one; a daemon sweeps when it starts.
/// What nothing needs any more is another matter: `GarbageCollection`.
package struct Sweeper: Sendable {
    private let work: WorkArea
    private let refreshed: SubvolumeDirectory
    private let snapshots: SubvolumeDirectory
    private let logger: Logger

    init(work: WorkArea, refreshed: SubvolumeDirectory, snapshots: SubvolumeDirectory, logger: Logger) {
        self.work = work
        self.refreshed = refreshed
        self.snapshots = snapshots
        self.logger = logger
    }

    /// Everything. What cannot be deleted is told of, and left.
    package func sweep() {
        sweepWork()
        sweepLocks()
    }

    /// Subvolumes in `work/` whose lock nobody holds.
    package func sweepWork() {
        guard let entries = try? work.directory.entries() else { return }
        for entry in entries {
            guard let lock = try? RemovalLock(WorkArea.lockName(entry.name), of: work.locks) else { continue }
            remove(entry.name, in: work.directory)
            extendLifetime(lock)
        }
    }

    /// Locks that nobody holds: whoever dies with a lock leaves its file, and who gets it removes it by giving it back.
    /// A work subvolume may have been on its way into `refreshed/`, where it then has the name that it had in `work/`.
    /// Beside the snapshots, one that is replaced, or about to replace one, has that name behind a dot.
    package func sweepLocks() {
        guard let names = try? work.locks.directory.fd.entries() else { return }
        for entry in names {
            guard var lock = try? work.locks.tryLock(entry.name) else { continue }
            if let name = WorkArea.workName(ofLock: entry.name) {
                let isGone = [
                    remove(name, in: refreshed),
                    remove(SnapshotStore.hiddenPrefix.appendingBytes(name), in: snapshots),
                ]
                // By this file the next one finds what is still there.
                if isGone.contains(false) { lock.leave() }
            }
            extendLifetime(lock)
        }
    }

    /// False if it is still there.
    @discardableResult
    private func remove(_ name: BytePath, in directory: SubvolumeDirectory) -> Bool {
        let shown = directory.store.appending(directory.name).appending(name)
        do {
            if MovedAside.isAnother(name, in: directory.fd) {
                logger.warning(
                    "\"\(shown)\" is not what was to be deleted there: somebody gave its name to it; move it back to where it belongs"
                )
                return false
            }
            // It never lay there, or its owner was done with it just now.
            guard try directory.fd.statusIfPresent(of: name) != nil else { return true }
            if (try? directory.fd.removeSubvolumeStub(name)) == true { return true }
            let cancellation = work.locks.cancellation
            // A snapshot that was replaced may have been mounted since.
            try directory.requireUnused(name, "\"\(shown)\"", cancellation)
            if directory.name == StoreLayout.snapshots {
                // It may be a plain directory, as `cp -a` of a store leaves it.
                try SubvolumeDirectory.delete(
                    name, in: directory.fd, isHidden: true, cancellation: cancellation)
            } else {
                try directory.fd.removeSubvolumeTree(name, isHidden: true, cancellation: cancellation)
            }
            logger.info("removed what an interrupted run had left in \"\(shown)\"")
            return true
        } catch let error as VarveError where error.code == .notFound {
            return true
        } catch let error as BtrfsError where error.errno == .noSuchFileOrDirectory {
            return true
        } catch {
            // The next one goes on with it.
            if work.locks.cancellation.isCancelled { return false }
            logger.warning("cannot remove what an interrupted run left in \"\(shown)\": \(error)")
            return false
        }
    }
}
