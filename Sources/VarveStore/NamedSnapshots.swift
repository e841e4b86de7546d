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

    package init(name: String, created: Timestamp, chain: ChainName? = nil) {
        self.name = name
        self.created = created
        self.chain = chain
    }
}

extension SnapshotStore {
    /// Keeps the bundle as it is now, under `name`: at once, whatever its size.
    package func createSnapshot(of bundlePath: BytePath, name: String) throws {
        let target = try Self.snapshotName(name)
        guard ShownText.isPlain(name) else {
            throw StoreError(
                .usage,
                "\"\(BytePath.escape(name.utf8))\" cannot name a snapshot", subject: BytePath(name),
                remedy: .follow("use no control characters in a name")
            )
        }
        let bundle = try openBundle(bundlePath)
        if try snapshotsDirectory.open(target) != nil { throw Self.snapshotExists(name) }
        try snapshotsDirectory.removeStub(target)
        try FullFileSystem.naming(bundle.path, "take a snapshot of") {
            do throws(BtrfsError) {
                try bundle.subvolume.fd.snapshot(to: snapshotsDirectory.fd, target, readOnly: true)
            } catch  where error.errno == .fileExists {
                throw Self.snapshotExists(name)
            } catch {
                throw ActiveSwapFile.explanation(of: error, in: bundle.subvolume.fd, bundle.path) ?? error
            }
        }
        if let made = try snapshotsDirectory.open(target) {
            chains.times.record(snapshot: made.fd, of: bundle.info)
        }
    }

    /// All named snapshots, by name.
    package func snapshots() throws -> [NamedSnapshot] {
        var result: [NamedSnapshot] = []
        for entry in try snapshotsDirectory.entries().sorted(by: { $0.name < $1.name }) {
            guard let name = entry.name.string, let opened = try snapshotsDirectory.open(entry.name)
            else { continue }
            let info = try opened.fd.subvolumeInfo()
            let attribute = try attempt("read the attributes of", entry.name) { () throws(Errno) in
                try opened.fd.extendedAttribute(StoreLayout.chainAttribute)
            }
            result.append(
                NamedSnapshot(
                    name: name, created: info.originTime,
                    chain: ChainRecords(attribute ?? []).current))
        }
        return result
    }

    /// Makes a bundle of a snapshot. The snapshot stays.
    ///
    /// - Parameter mode: the permissions of the bundle's directory, whatever those of the bundle were that the snapshot is of.
    package func restoreSnapshot(
        _ name: String, to bundle: BytePath, mode: UInt32 = UnpackContext.closedBundleMode
    ) throws {
        let source = try snapshot(name)
        let place = try BundlePlace(bundle, store: self)
        try FullFileSystem.naming(bundle, "restore the snapshot to") {
            var copy = try work.make(for: bundle) { directory, workName in
                do throws(BtrfsError) {
                    try source.fd.snapshot(to: directory, workName, readOnly: false)
                } catch  where error.errno == .noSuchFileOrDirectory {
                    // It was removed since it was opened.
                    throw absent(name)
                }
            }
            try place.put(&copy, mode: mode)
        }
    }

    package func removeSnapshot(_ name: String) throws {
        _ = try snapshot(name)
        try snapshotsDirectory.delete(try Self.snapshotName(name))
    }

    private func snapshot(_ name: String) throws -> SharedDescriptor {
        guard let found = try snapshotsDirectory.open(try Self.snapshotName(name)) else {
            throw absent(name)
        }
        return found
    }

    private func absent(_ name: String) -> StoreError {
        StoreError(
            .notFound, "the store \"\(path)\" has no snapshot \"\(name)\"", subject: BytePath(name),
            remedy: .listSnapshots)
    }

    private static func snapshotExists(_ name: String) -> StoreError {
        StoreError(
            .failed,
            "there is a snapshot \"\(name)\" already", subject: BytePath(name), remedy: .removeSnapshot(name)
        )
    }

    /// A name that is one component, not hidden, and fits a file name.
    private static func snapshotName(_ name: String) throws(StoreError) -> BytePath {
        guard !name.isEmpty, name.utf8.count <= 255, !name.hasPrefix("."), !name.contains("/"),
            let path = BytePath(Array(name.utf8))
        else {
            throw StoreError(
                .usage,
                "\"\(name)\" cannot name a snapshot", subject: BytePath(name),
                remedy: .follow("use 1 to 255 bytes with no slash and no dot at the start")
            )
        }
        return path
    }
}
