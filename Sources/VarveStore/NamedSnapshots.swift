import Logging
import VarveFormats
import VarveBtrfs
public import VarveSystem
import SystemPackage

/// A snapshot of a bundle that a user has named.
public struct NamedSnapshot: Sendable {
    /// The name that it was given.
    public var name: String
    /// When it was made.
    public var created: Timestamp
    /// The chain that the bundle came from; nil if that cannot be told any more.
    public var chain: ChainName?
    /// What its maker says of it.
    package var labels: SnapshotLabels

    package init(
        name: String, created: Timestamp, chain: ChainName? = nil, labels: SnapshotLabels = SnapshotLabels()
    ) {
        self.name = name
        self.created = created
        self.chain = chain
        self.labels = labels
    }
}

extension SnapshotStore {
    /// Keeps the bundle as it is now, under `name`: at once, whatever its size.
    ///
    /// - Parameters:
    ///   - replaces: a snapshot of that name makes room, in one step.
    ///   - labels: what is said of it; they are part of the snapshot, and come to be with it.
    package func createSnapshot(
        of bundlePath: BytePath, name: String, replaces: Bool = false,
        labels: SnapshotLabels = SnapshotLabels()
    ) throws {
        let target = try Self.snapshotName(name)
        guard ShownText.isPlain(name) else {
            throw VarveError(
                .usage,
                "\"\(BytePath.escape(name.utf8))\" cannot name a snapshot", subject: BytePath(name),
                remedy: .follow("use no control characters in a name")
            )
        }
        let bundle = try openBundle(bundlePath)
        let lock = try BundleLock(in: bundle.subvolume.fd, bundlePath)
        defer { extendLifetime(lock) }
        try requireTrustedChains(of: bundle)
        if replaces {
            // All processes are looked at for that.
            if try snapshotsDirectory.occupant(of: target) != nil {
                try snapshotsDirectory.requireUnused(target, "the snapshot \"\(name)\"", locks.cancellation)
            }
        } else if try snapshotsDirectory.open(target) != nil {
            throw Self.snapshotExists(name)
        }
        try snapshotsDirectory.removeStub(target)
        try FullFileSystem.naming(bundle.path, "take a snapshot of") {
            try withLabels(labels, on: bundle) {
                if replaces {
                    try replaceSnapshot(target, by: bundle, labels)
                } else {
                    try takeSnapshot(of: bundle, as: target, name, labels)
                }
            }
        }
    }

    private func takeSnapshot(
        of bundle: ActiveTree, as target: BytePath, _ name: String, _ labels: SnapshotLabels
    ) throws {
        racePoint("take-snapshot")
        do throws(BtrfsError) {
            try bundle.subvolume.fd.snapshot(to: snapshotsDirectory.fd, target, readOnly: true)
        } catch  where error.errno == .fileExists {
            throw Self.snapshotExists(name)
        } catch {
            throw ActiveSwapFile.explanation(of: error, in: bundle.subvolume.fd, bundle.path) ?? error
        }
        guard let made = try snapshotsDirectory.open(target) else { return }
        // The owner of the bundle may write to its attributes.
        let found = try attempt("read the attributes of", target) { () throws(Errno) in
            try made.fd.extendedAttribute(StoreLayout.labelsAttribute)
        }
        guard found == Self.attribute(labels) else {
            try snapshotsDirectory.delete(target)
            throw VarveError(
                .failed, "somebody else changed the labels of the snapshot \"\(name)\" while it was taken",
                subject: bundle.path, remedy: .tryAgainLater)
        }
        recordTimes(ofSnapshot: made.fd, of: bundle)
    }

    /// What a snapshot with these labels bears; nil for none.
    private static func attribute(_ labels: SnapshotLabels) -> [UInt8]? {
        labels.isEmpty ? nil : labels.encoded
    }

    /// How the name of a snapshot begins that is not yet, or no more, under a name of a user's, who can give none such.
    static let hiddenPrefix = BytePath(".")

    /// The new snapshot is made beside the old one, under a name that is a leftover once its lock is free (`Sweeper`), and changes places with
    /// it. So there is one of that name at any moment, and a crash leaves the old one or the new one.
    private func replaceSnapshot(
        _ target: BytePath, by bundle: ActiveTree, _ labels: SnapshotLabels
    ) throws {
        var work = try work.make(for: bundle.path) { _, workName in
            try takeSnapshot(of: bundle, as: Self.hiddenPrefix.appendingBytes(workName), "\(target)", labels)
        }
        let hidden = Self.hiddenPrefix.appendingBytes(work.name)
        // The new one is there, whatever becomes of the old one: it may be read just now, by btrfs send.
        if let failure = try putInPlace(hidden, deletingAnyOf: target) {
            work.leaveLock()
            logger.warning(
                "the snapshot that was replaced cannot be deleted yet, and goes with a later command: \(failure)"
            )
        }
        extendLifetime(work)
    }

    /// Gives a snapshot its name, durably, and deletes what had that name.
    ///
    /// - Returns: why that could not be deleted.
    private func putInPlace(_ hidden: BytePath, deletingAnyOf target: BytePath) throws -> (any Error)? {
        let isReplaced: Bool
        do {
            isReplaced = try attempt("replace the snapshot", target) { () throws(Errno) in
                let isReplaced = try putInPlace(hidden, of: target)
                try snapshotsDirectory.fd.synchronize()
                return isReplaced
            }
        } catch {
            _ = try? snapshotsDirectory.delete(hidden)
            throw error
        }
        guard isReplaced else { return nil }
        racePoint("snapshot-replaced")
        do { try snapshotsDirectory.delete(hidden) } catch { return error }
        return nil
    }

    /// Gives a snapshot its name, which others may take and give up meanwhile.
    ///
    /// - Returns: whether there was another, which has the hidden name now.
    private func putInPlace(_ hidden: BytePath, of target: BytePath) throws(Errno) -> Bool {
        let directory = snapshotsDirectory.fd
        for _ in 0..<Self.lookUps {
            if try Self.works(
                unless: .noSuchFileOrDirectory,
                { () throws(Errno) in
                    try directory.exchange(hidden, with: directory, target)
                })
            {
                return true
            }
            if try Self.works(
                unless: .fileExists,
                { () throws(Errno) in
                    try directory.rename(hidden, to: directory, target, replacing: false)
                })
            {
                return false
            }
        }
        throw .fileExists
    }

    /// False if it fails with this error; other errors are thrown.
    private static func works(unless failure: Errno, _ body: () throws(Errno) -> Void) throws(Errno) -> Bool {
        do throws(Errno) { try body() } catch {
            if error == failure { return false }
            throw error
        }
        return true
    }

    /// Runs `body` while the bundle's directory bears the labels: a snapshot that is taken meanwhile has them from its first moment, and nothing
    /// is written to it. The attribute is no part of an image.
    private func withLabels(
        _ labels: SnapshotLabels, on bundle: ActiveTree, _ body: () throws -> Void
    ) throws {
        let fd = bundle.subvolume.fd
        // Not even who labels nothing may get what somebody else writes there just now, or left there when it was killed.
        let lock = try attempt("lock", bundle.path) { () throws(Errno) in
            try FileLock.exclusive(
                BytePath("labels-\(bundle.info.uuid)"), in: locks.directory, locks.cancellation)
        }
        let left = try attempt("read the attributes of", bundle.path) { () throws(Errno) in
            try fd.extendedAttribute(StoreLayout.labelsAttribute)
        }
        let wanted = Self.attribute(labels)
        if left == wanted { return try body() }
        try attempt("write the labels to", bundle.path) { () throws(Errno) in
            if let wanted {
                try fd.setExtendedAttribute(
                    ExtendedAttribute(name: StoreLayout.labelsAttribute, value: wanted))
            } else {
                try fd.removeExtendedAttribute(StoreLayout.labelsAttribute)
            }
        }
        defer { try? fd.removeExtendedAttribute(StoreLayout.labelsAttribute) }
        try body()
        extendLifetime(lock)
    }

    /// All named snapshots, by name.
    package func snapshots() throws -> [NamedSnapshot] {
        try listSnapshots().compactMap { if case .snapshot(let found) = $0 { found } else { nil } }
    }

    /// What bears the name of a snapshot.
    package enum ListedSnapshot: Sendable {
        case snapshot(NamedSnapshot)
        /// What is no subvolume, and why no command uses it, a sentence.
        case unusable(name: String, reason: String)
    }

    /// All that bears the name of a snapshot, by name.
    package func listSnapshots() throws -> [ListedSnapshot] {
        var result: [ListedSnapshot] = []
        for entry in try snapshotsDirectory.entries().sorted(by: { $0.name < $1.name })
        where !entry.name.hasPrefix(Self.hiddenPrefix.bytes) {
            guard let name = entry.name.string, let occupant = try snapshotsDirectory.occupant(of: entry.name)
            else { continue }
            guard case .subvolume(let opened) = occupant else {
                let reason = occupant.fault?.description ?? ""
                result.append(.unusable(name: name, reason: reason))
                continue
            }
            let info = try opened.fd.subvolumeInfo()
            let attribute = try attempt("read the attributes of", entry.name) { () throws(Errno) in
                try opened.fd.extendedAttribute(StoreLayout.chainAttribute)
            }
            let labels = try attempt("read the attributes of", entry.name) { () throws(Errno) in
                try opened.fd.extendedAttribute(StoreLayout.labelsAttribute)
            }
            result.append(
                .snapshot(
                    NamedSnapshot(
                        name: name, created: info.originTime,
                        chain: ChainRecords(attribute ?? []).current,
                        labels: SnapshotLabels(attribute: labels))))
        }
        return result
    }

    /// Makes a bundle of a snapshot. The snapshot stays.
    ///
    /// - Parameter mode: the permissions of the bundle's directory, whatever those of the bundle were that the snapshot is of.
    package func restoreSnapshot(
        _ name: String, to bundle: BytePath, mode: UInt32 = UnpackContext.closedBundleMode
    ) throws {
        let place = try BundlePlace(bundle, store: self)
        try FullFileSystem.naming(bundle, "restore the snapshot to") {
            for _ in 0..<Self.lookUps {
                let source = try snapshot(name)
                do {
                    try requireTrustedChains(ofSnapshot: source, name)
                    return try restore(source, to: bundle, at: place, mode: mode)
                } catch is Vanished {}
            }
            throw absent(name)
        }
    }

    /// A snapshot that was removed since it was opened, or replaced: then there is another one of that name.
    private struct Vanished: Error {}

    /// The snapshot itself is asked: its bundle may have been changed after it was looked at, and before it was taken.
    private func requireTrustedChains(ofSnapshot source: SharedDescriptor, _ name: String) throws {
        let tree: ActiveTree
        do { tree = try ActiveTree(source, at: BytePath(name)) } catch let error as BtrfsError
            where error.errno == .noSuchFileOrDirectory
        { throw Vanished() }
        try requireTrustedChains(of: tree, isSnapshot: true)
    }

    private func restore(
        _ source: SharedDescriptor, to bundle: BytePath, at place: BundlePlace, mode: UInt32
    ) throws {
        var copy = try work.make(for: bundle) { directory, workName in
            do throws(BtrfsError) {
                try source.fd.snapshot(to: directory, workName, readOnly: false)
            } catch  where error.errno == .noSuchFileOrDirectory {
                throw Vanished()
            }
        }
        // What is said of the snapshot is not said of the bundle.
        let made = try copy.open(for: bundle)
        try? made.fd.removeExtendedAttribute(StoreLayout.labelsAttribute)
        // Whoever took the snapshot had the bundle locked, and so it has the lock's file.
        try? made.fd.unlink(BundleLock.file)
        let origin = try made.fd.subvolumeInfo().parentUUID
        guard let info = try? source.fd.subvolumeInfo(), info.uuid == origin else { throw Vanished() }
        try place.put(&copy, madeOf: info, mode: mode)
    }

    /// How often a name is looked up again that another command gives to something else meanwhile.
    private static let lookUps = 100

    /// Deletes a snapshot, also one that `cp -a` made a plain directory of.
    ///
    /// - Throws: `VarveError`: `notFound` if there is none of that name; `failed` if somebody has it, or something of it, mounted.
    package func removeSnapshot(_ name: String) throws {
        let path = try Self.snapshotName(name)
        guard try snapshotsDirectory.occupant(of: path) != nil else { throw absent(name) }
        try snapshotsDirectory.deleteUnused(path, "the snapshot \"\(name)\"", locks.cancellation)
    }

    private func snapshot(_ name: String) throws -> SharedDescriptor {
        let path = try Self.snapshotName(name)
        for _ in 0..<Self.lookUps {
            if let found = try findSnapshot(path) { return found }
            // What was opened may have been replaced, and deleted, meanwhile.
            let isThere = try attempt("look at", path) { () throws(Errno) in
                try snapshotsDirectory.fd.statusIfPresent(of: path).map { !$0.isSubvolumeStub } ?? false
            }
            if !isThere { break }
        }
        throw absent(name)
    }

    /// The snapshot of that name; nil if there is none.
    ///
    /// - Throws: `VarveError`: `notFound` for what is no subvolume.
    func findSnapshot(_ name: BytePath) throws -> SharedDescriptor? {
        guard let occupant = try snapshotsDirectory.occupant(of: name) else { return nil }
        if case .subvolume(let found) = occupant { return found }
        let remedy =
            if case .plainDirectory = occupant { remedyForPlainSnapshot(name) } else {
                VarveError.Remedy.moveAway
            }
        throw VarveError(
            .notFound,
            "the snapshot \"\(name)\" of the store \"\(path)\" cannot be used: \(occupant.fault?.description ?? "")",
            subject: name, remedy: remedy)
    }

    func remedyForPlainSnapshot(_ name: BytePath) -> VarveError.Remedy {
        .saveAndRemoveSnapshot(name, at: path.appending(StoreLayout.snapshots).appending(name))
    }

    private func absent(_ name: String) -> VarveError {
        VarveError(
            .notFound, "the store \"\(path)\" has no snapshot \"\(name)\"", subject: BytePath(name),
            remedy: .listSnapshots)
    }

    private static func snapshotExists(_ name: String) -> VarveError {
        VarveError(
            .failed,
            "there is a snapshot \"\(name)\" already", subject: BytePath(name), remedy: .removeSnapshot(name)
        )
    }

    /// A name that is one component, not hidden, and fits a file name.
    private static func snapshotName(_ name: String) throws(VarveError) -> BytePath {
        guard !name.isEmpty, name.utf8.count <= 255, !name.beginsWithByte("."), !name.hasByte("/"),
            let path = BytePath(Array(name.utf8))
        else {
            throw VarveError(
                .usage,
                "\"\(name)\" cannot name a snapshot", subject: BytePath(name),
                remedy: .follow("use 1 to 255 bytes with no slash and no dot at the start")
            )
        }
        return path
    }
}
