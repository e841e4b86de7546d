import Glibc
package import Logging
package import TestSupport
package import VarveContainerd
package import VarveOCI
package import VarveStore
package import VarveSystem
import SystemPackage

/// A store on a btrfs of its own with the snapshots of one containerd, and a content store in memory.
package struct DaemonRoom: ~Copyable {
    package let volume: LoopVolume
    package let content = MemoryContent()
    package var path: BytePath { volume.path.appending("store") }

    package init() throws {
        let volume = try LoopVolume()
        _ = try SnapshotStore.initialize(at: volume.path.appending("store"), logger: Self.quiet)
        self.volume = volume
    }

    package static let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    package var store: SnapshotStore { get throws { try SnapshotStore.open(at: path, logger: Self.quiet) } }

    /// The snapshots as a daemon that starts finds them. The one before must be let go: what it still deletes is waited for.
    package func snapshotter(_ id: String = "test", waits: Bool = true, adopts: Bool = true) throws
        -> Snapshotter
    {
        while true {
            do {
                return try Snapshotter(DaemonTrees(store, id: id, adopts: adopts), logger: Self.quiet)
            } catch let error as VarveError
                where waits && error.description.contains("another process serves")
            {
                usleep(5_000)
            }
        }
    }

    /// Runs `script` in the root of a snapshot's mount.
    package func run(_ script: String, in mounts: [SnapshotMount]) throws {
        guard let source = mounts.first?.source else { throw TestSupportError("there is no mount") }
        try runSuccessfully(["sh", "-euc", "cd '\(source)'; \(script)"])
    }

    /// Applies a layer of `content`, as containerd asks for it. Returns the uncompressed layer.
    @discardableResult
    package func apply(_ layer: Descriptor, to mounts: [SnapshotMount], _ snapshotter: Snapshotter) throws
        -> Descriptor
    {
        try Differ(snapshotter, logger: Self.quiet).apply(
            layer, to: mounts, synchronizes: false, from: content, memory: 8 << 20, Cancellation())
    }

    /// What is in `containerd/ID/trees/`.
    package func trees(_ id: String = "test") throws -> [String] {
        let directory = try FileDescriptor.workingDirectory.openDirectory(
            path.appending("containerd").appending(id).appending("trees"))
        return try directory.fd.entries().map { $0.name.description }.sorted()
    }
}

/// The code of the error that `body` throws; nil if it throws none.
package func code(_ body: () throws -> Void) -> ServiceError.Code? {
    do {
        try body()
        return nil
    } catch {
        return (error as? ServiceError)?.code ?? .internalError
    }
}
